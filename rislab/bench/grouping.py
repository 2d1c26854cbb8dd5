"""What GroupViT's label maps, training texts and gradient caching take, beside the plain way of the official code."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.layers.drop import DropPath
from torch import Tensor

from rislab.bench.label_maps import STRIDE, WINDOW
from rislab.bench.random_weights import with_random_weights
from rislab.bench.timed import timed
from rislab.data.batch import LabelledPictures, Viewing
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.methods.groupvit import inference
from rislab.methods.groupvit.contrast import contrasts
from rislab.methods.groupvit.encoding import pooled
from rislab.methods.groupvit.grouping import gumbel_noise
from rislab.methods.groupvit.task import GroupViTTask
from rislab.nn.sliding import boxes

What = Literal["labels", "texts", "caching"]
How = Literal["rislab", "plain"]
Kept = dict[str, NDArray[Any]]
CAPTION = (
    "a small brown dog sits beside an old red barn and looks at the tall trees behind the garden of its owner number"
)
"""Cut to 8 to 22 words for each picture: captions of the training data have 8 to 30 tokens."""


def measure(
    recipe: dict[str, Any], what: What, how: How, kept: str, counts: bool = False, **sizes: int
) -> dict[str, float]:
    """Seconds and MiB of one piece of work with random weights, in this process, after a small one.

    Args:
        recipe: class and options of a GroupViT.
        what: `labels`: a label map; `texts`: a training step; `caching`: a training step in micro-batches.
        how: `plain`: the encoder runs twice for each window, and scores of all classes stand at all pixels; each text has its
            full length; the whole batch is in memory.
        kept: file for the labels or gradients, so that both ways can be compared.
        counts: whether operations are counted, in a second run.
        sizes: of the work, see `_labels` and `_step`.

    Returns:
        See `timed`.

    Raises:
        ConfigError: The recipe is no GroupViT.
    """
    torch.manual_seed(0)
    method = with_random_weights(recipe)
    if not isinstance(method, GroupViTTask):
        raise ConfigError(f"the measurement is of GroupViT, the config names {type(method).__name__}")
    run = _labels(method, how, **sizes) if what == "labels" else _step(method, what, how, **sizes)
    next(run)  # warm-up
    found, cost = timed(lambda: next(run), counts, method if how == "rislab" else None)
    with replacing(Path(kept)) as temporary, temporary.open("wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]  # numpy's annotation takes each name for its option
    return cost


def difference(one: Path, other: Path) -> float:
    """Largest difference of two kept gradients, each as a share of the largest entry of its parameter's gradient.

    Some parameters have none but rounding, such as a bias before a batch norm: shares are of a thousandth of the largest entry of
    all parameters at least.
    """
    with np.load(one) as ours, np.load(other) as theirs:
        least = 1e-3 * max(float(np.abs(theirs[key]).max()) for key in theirs)
        return max(
            float(np.abs(ours[key] - theirs[key]).max()) / max(np.abs(theirs[key]).max(), least) for key in theirs
        )


def same_labels(one: Path, other: Path) -> float:
    """Share of pixels, in percent, that two kept label maps have in common."""
    with np.load(one) as ours, np.load(other) as theirs:
        return 100.0 * float((ours["labels"] == theirs["labels"]).mean())


@torch.inference_mode()
def _labels(method: GroupViTTask, how: How, classes: int, height: int, width: int) -> Iterator[Kept]:
    """The label map of a picture of noise, by the protocol's windows; names are encoded before."""
    method.eval()
    names = tuple(f"thing number {n}" for n in range(classes))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    for shown in chain([image[:, :64, :64]], repeat(image)):
        size = (shown.shape[1], shown.shape[2])
        if how == "rislab":
            blank = np.zeros(size, np.uint8)
            viewing = Viewing(WINDOW, 2048, WINDOW, STRIDE, "given")
            (found,) = method.label(LabelledPictures([shown], [blank], names, True, viewing, [0]))
        else:
            found = _official_labels(method, shown, names)
        yield {"labels": found.numpy()}


def _official_labels(method: GroupViTTask, image: Tensor, names: Sequence[str]) -> Tensor:
    """Source: NVlabs/GroupViT, segmentation/evaluation/group_vit_seg.py, with mmsegmentation 0.18's sliding windows."""
    height, width = image.shape[1:]
    level = inference.background_threshold(names) if method.bg_thresh is None else method.bg_thresh
    total = torch.zeros(1 + len(names), height, width)
    windows = torch.zeros(height, width)
    scale = inference.scale_of(method.model.logit_scale)
    texts = method.texts.names(names)
    for y1, y2, x1, x2 in boxes(height, width, WINDOW, STRIDE):
        window = image[None, :, y1:y2, x1:x2]
        maps = method.encode_images(window).groups  # the encoder, for the assignment
        if maps is None:
            raise ConfigError("--config has no grouping stage: there are no groups to be labelled")
        encoded = method.encode_images(window)  # and again, for the segments
        own = F.interpolate(maps, window.shape[-2:], mode="bilinear")
        onehot = F.one_hot(own.argmax(1), own.shape[1]).to(own.dtype)[0]  # [h, w, G]
        before = scale * encoded.segments[0] @ texts.T
        whole = (encoded.image @ texts.T)[0].topk(min(method.top_classes, len(names))).indices
        kept = torch.full_like(before, -torch.inf)
        kept[:, whole] = before[:, whole]
        group_scores = kept.softmax(1) * before.softmax(1)
        scores = torch.zeros(1 + len(names), *window.shape[-2:])
        scores[1:] = (onehot @ group_scores).permute(2, 0, 1)
        least = group_scores.max().clamp(max=level)
        scores[0, (onehot @ group_scores).amax(2) < least] = 1  # the product is made twice
        total[:, y1:y2, x1:x2] += scores
        windows[y1:y2, x1:x2] += 1
    mean = (total / windows)[None]
    return F.interpolate(mean, (height, width), mode="bilinear").softmax(1)[0].argmax(0)


def _step(method: GroupViTTask, what: What, how: How, batch: int, micro_batch: int = 0) -> Iterator[Kept]:
    """A training step of `batch` noisy pictures with their captions and prompts, given the noise of the assignments."""
    method.train()
    for module in method.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # parts of a batch would skip other branches than the whole
    side = method.geometry.size[0]
    words = CAPTION.split()
    texts = []
    for n in range(batch):
        length = 8 + n % 15
        own = [f"a photo of the {words[(n + k) % len(words)]}." for k in range(method.multi_label)]
        texts.append([" ".join([*words[:length], str(n)]), *own])
    ids = method.texts.ids(texts)
    pixels = method.normalise(torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8))
    noise = _noise(method, pixels)
    if what == "caching":
        method.micro_batch = micro_batch if how == "rislab" else None
    # The first small: memory that it leaves would hide what the second takes.
    for some in chain([slice(4)], repeat(slice(batch))):
        method.zero_grad()
        some_noise = [each[some] for each in noise]
        if what == "texts" and how == "plain":
            images, _ = pooled(method.model, pixels[some], *some_noise)
            states = method.model.text(ids[some].flatten(0, 1)).unflatten(0, (-1, ids.shape[1]))
            terms = contrasts(method.model, images, states, method.multi_label_loss_weight)
        else:
            terms = method.losses_of(pixels[some], ids[some], some_noise)
        torch.stack(list(terms.values())).sum().backward()
        yield {name: p.grad.numpy() for name, p in method.named_parameters() if p.grad is not None}


@torch.no_grad()
def _noise(method: GroupViTTask, pixels: Tensor) -> list[Tensor]:
    """A draw for each grouping of `pixels`, so that both ways assign alike."""
    found = method.model.image(pixels[:1])
    return [gumbel_noise(each.soft.expand(len(pixels), -1, -1)) for each in found.assignments]
