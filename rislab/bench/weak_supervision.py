"""What CLIMS's training step and its activation maps take, as rislab makes them and in the plain way of the official code."""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rislab.bench.random_weights import with_random_weights
from rislab.bench.timed import timed
from rislab.data.batch import ImageLabels
from rislab.data.geometry import Stretch
from rislab.data.synthetic import batch_of
from rislab.encoders import resnet
from rislab.encoders.clip.text import encode
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.losses.text_matching import matched, suppressed, unmatched
from rislab.methods.clims.inference import activated, scaled, summed
from rislab.methods.clims.task import CLIMSTask

How = Literal["rislab", "plain"]
What = Literal["step", "maps"]
Found = dict[str, Tensor]
"""What was computed, by name."""
LABELS = 2
"""Classes that a picture shows when maps are measured; VOC's mean is 1.56."""


def measure(
    recipe: dict[str, Any],
    what: What,
    how: How,
    images: int,
    height: int,
    width: int,
    result: str | None = None,
    counts: bool = False,
) -> dict[str, float]:
    """One step or one picture's maps, after a small one, with random weights: see `timed`; and the process' peak in MiB.

    Args:
        recipe: The model of a CLIMS config, of the repository's version.
        what: `step`: forward and backward of a batch. `maps`: those of one picture at all scales.
        how: `plain`: as the official code does it; see `plain_terms` and `plain_maps`.
        images: Pictures of the batch.
        height, width: Of the pictures; of a step, the side is the larger one.
        result: A file to keep what was computed in: terms and a gradient, or the maps.
        counts: Whether operations are counted, in a second run.

    Raises:
        ConfigError: The recipe is none of CLIMS, or has the paper's background prompts.
    """
    torch.manual_seed(0)
    method = with_random_weights(recipe)
    if not isinstance(method, CLIMSTask) or method.matching is None or method.matching.own is not None:
        raise ConfigError(
            "expected a recipe of CLIMS in its stage `clims` whose classes share their background prompts"
        )
    work = (
        step_of(method, recipe, how, images, max(height, width))
        if what == "step"
        else maps_of(method, how, height, width)
    )
    work(True)
    found, cost = timed(lambda: work(False), counts, method if how == "rislab" else None)
    if result is not None:
        with replacing(Path(result)) as temporary:
            torch.save({name: value.detach().float() for name, value in found.items()}, temporary)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {**cost, "peak_mb": peak}


def step_of(
    method: CLIMSTask, recipe: dict[str, Any], how: How, images: int, side: int
) -> Callable[[bool], Found]:  # fmt: skip
    """A function that makes a step, of small pictures where its argument says so: the terms, then the head's gradient."""
    matching = method.matching
    assert matching is not None
    towers = load(CLIPSpec(recipe["init_args"]["clip"]["name"]))
    tokenizer, prompts, background = Tokenizer(recipe["init_args"]["clip"]["name"]), *prompts_of(method, recipe)
    with torch.no_grad():  # both ways have the same CLIP
        matching.judge.visual.load_state_dict(towers.visual.state_dict())
        texts = encode(towers, tokenizer([*prompts, *background], len(towers.positional_embedding)))[1]
        matching.judge.classes.copy_(F.normalize(texts[: len(prompts)], dim=-1))
        matching.judge.background.copy_(F.normalize(texts[len(prompts) :], dim=-1))
    method.train()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    norms = [module for module in method.modules() if isinstance(module, _BatchNorm)]
    if how == "plain":
        method.model.to(memory_format=torch.contiguous_format)

    def work(is_small: bool) -> Found:
        batch = batch_of(ImageLabels, Stretch(64 if is_small else side), images, vocabulary=method.vocabulary)
        assert isinstance(batch, ImageLabels)
        for norm in norms:
            norm.reset_running_stats()
        for parameter in (*trained, *towers.parameters()):
            parameter.grad = None
        if how == "rislab":
            terms = list(method.losses(batch).values())
        else:
            terms = plain_terms(method, towers, tokenizer, prompts, background, batch)
        torch.stack(terms).sum().backward()
        gradient = method.model.head.classifier.weight.grad
        assert gradient is not None
        return {"terms": torch.stack(terms), "gradient": gradient}

    return work


def prompts_of(method: CLIMSTask, recipe: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Texts of classes and of backgrounds; what they say changes no time."""
    count = 0 if method.matching is None else len(method.matching.judge.background)
    return [f"a photo of {name}." for name in method.words.names], [f"a photo of thing {n}." for n in range(count)]


def plain_terms(
    method: CLIMSTask,
    towers: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    background: Sequence[str],
    batch: ImageLabels,
) -> list[Tensor]:
    """The four terms as the official loop makes them: CLIP's weights take gradients, each term runs CLIP and its texts anew."""
    matching = method.matching
    assert matching is not None
    at, judge = matching.settings, matching.judge
    pixels = method.normalise(batch.images)
    present = batch.present.new_zeros(len(pixels), len(method.words.names))
    present[:, method.words.columns(batch.names)] = batch.present
    maps = method.model(pixels).sigmoid()
    classes = present.nonzero(as_tuple=True)[1]
    whole, inside = judge.masked(pixels, maps, present)

    def encode_pictures(pictures: Tensor) -> Tensor:
        return F.normalize(towers.visual(pictures), dim=-1)

    def encode_texts(texts: Sequence[str]) -> Tensor:
        return F.normalize(encode(towers, tokenizer(list(texts), len(towers.positional_embedding)))[1], dim=-1)

    own = [prompts[number] for number in classes.tolist()]
    return [
        at.alpha * matched((encode_pictures(inside) * encode_texts(own)).sum(-1), None, at.clamp),
        at.beta * unmatched((encode_pictures(whole - inside) * encode_texts(own)).sum(-1), None, at.clamp),
        at.gamma * suppressed(encode_pictures(inside) @ encode_texts(background).T, matching.threshold),
        at.delta * maps.mean(),
    ]


def maps_of(method: CLIMSTask, how: How, height: int, width: int) -> Callable[[bool], Found]:
    """A function that makes the maps of one picture of noise, a small one where its argument says so: [k, H, W]."""
    method.eval()
    picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    names = method.words.names[:LABELS]
    if how == "plain":
        method.model.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def work(is_small: bool) -> Found:
        image = picture[:, :64, :64] if is_small else picture
        if how == "rislab":
            return {"maps": method.activation_maps(image, names).full}
        with patch.object(resnet, "normed", lambda x, conv, norm: norm(conv(x))):
            return {"maps": plain_maps(method, image, method.words.columns(names))}

    return work


def plain_maps(method: CLIMSTask, image: Tensor, columns: Sequence[int]) -> Tensor:
    """The maps as the official code makes them: those of all classes are enlarged, and the picture's own taken then."""
    network: nn.Module = method.model
    maps = [
        activated(network, method.normalise(scaled(image, scale)[None])[0]) for scale in method.scales
    ]  # fmt: skip
    everything = torch.arange(len(method.words.names))
    return summed(maps, everything, (image.shape[-2], image.shape[-1])).full[list(columns)]


def largest_difference(one: Path, other: Path) -> float:
    """Between two kept results, relative to the largest value of each array."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return max(
        float((value - second[name]).abs().max() / value.abs().max().clamp(min=1e-12)) for name, value in first.items()
    )
