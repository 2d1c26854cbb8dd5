"""What a method saves by encoding class names once, and by holding no map of full size for a name: time and memory."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.bench.official_order import official_order
from rislab.bench.random_weights import with_random_weights
from rislab.bench.timed import timed
from rislab.data.batch import LabelledPictures, LabelMaps, Viewing, members
from rislab.data.geometry import Stretch
from rislab.data.synthetic import batch_of
from rislab.encoders.clip.dense import Prompts
from rislab.encoders.clip.text import encode
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.methods.lseg.task import LSegTask
from rislab.nn.enlarging import enlarged
from rislab.nn.multi_scale import MultiScale

Work = Literal["window", "step", "picture"]
Way = Literal["rislab", "every_pass", "text_gradients", "full_size", "official"]
WAYS: dict[Work, tuple[Way, ...]] = {
    "window": ("rislab", "every_pass", "official"),
    "step": ("rislab", "text_gradients", "full_size", "official"),
    "picture": ("rislab", "every_pass", "official"),
}
"""What is measured, and the ways of doing it.

every_pass: names are encoded whenever the network sees a window, with all positions of CLIP's context. text_gradients: the
same in training, with gradients of the text tower. full_size: names are encoded once, and the loss holds logits of all names at
the size of the labels. official: names as in every_pass or text_gradients, and the network in the order of LSeg's official code.
"""

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
SMALL = 64


def measure(
    recipe: dict[str, Any], work: Work, way: Way, names: int, side: int, counts: bool = False
) -> dict[str, float]:
    """One piece of work on noise with random weights, in this process, after a small one.

    Args:
        recipe: Of a method with a frozen text tower of CLIP's that is trained on label maps.
        work: `window`: scores of a window and of its mirror image. `step`: loss and gradients of one picture. `picture`: the
            label map of one picture at six scales with mirror images, as LSeg is scored: its long side is 13/12 of the window's
            at scale 1, its ratio 4 : 3.
        way: One of `WAYS`.
        names: Class names.
        side: Of the window in pixels.
        counts: Whether operations are counted, in a second run.

    Returns:
        See `timed`; `encoded`: names through the text tower. Where names are encoded once, they are in `encoded` and in no other
        number.

    Raises:
        ConfigError: Another method; a way that the work does not have; `official` of a method that is not LSeg.
    """
    if way not in WAYS[work]:
        raise ConfigError(f"{work} has no way {way}; ways are {', '.join(WAYS[work])}")
    torch.manual_seed(0)
    options = {**recipe.get("init_args", {}), "image_size": side}
    method = with_random_weights({**recipe, "init_args": options})
    prompts = getattr(method, "prompts", None)
    if not isinstance(prompts, Prompts) or LabelMaps not in members(method.trains_on):
        raise ConfigError(
            f"{type(method).__name__} has no frozen text tower of CLIP's, or is not trained on label maps"
        )
    if way == "official":
        if not isinstance(method, LSegTask):
            raise ConfigError(f"way official is of LSeg, not of {type(method).__name__}")
        method.model.to(memory_format=torch.contiguous_format)
    with official_order() if way == "official" else nullcontext():
        return _measured(method, Counted(prompts, way, learns=work == "step"), work, names, side, counts)


def _measured(
    method: TextSegmenter, counted: "Counted", work: Work, names: int, side: int, counts: bool
) -> dict[str, float]:
    """See `measure`."""
    way = counted.way
    method.prompts = counted
    vocabulary = tuple(f"thing number {number}" for number in range(names))
    once = way in ("rislab", "full_size")
    first = vocabulary if once else vocabulary[:2]
    if work == "step":
        step(method.train(), first, SMALL, way)  # which also makes the gradients' memory
        warm = counted.count
        _, cost = timed(lambda: step(method, vocabulary, side, way), counts, method if once else None)
    else:
        method.eval()
        with torch.inference_mode():
            both_ways(method, first, SMALL)
            warm = counted.count
            answer = both_ways if work == "window" else label
            _, cost = timed(lambda: answer(method, vocabulary, side), counts, method if once else None)
    encoded = counted.count if once else (counted.count - warm) / (2 + counts)
    return {**cost, "encoded": float(encoded)}


class Counted(nn.Module):
    """Unit embeddings of class names as a method gets them, in one of the ways.

    Args:
        prompts: The method's own.
        way: Whether names are kept or encoded in every pass.
        learns: Whether names that are encoded in every pass have gradients of the text tower.
    """

    def __init__(self, prompts: Prompts, way: Way, learns: bool) -> None:
        super().__init__()
        self.prompts, self.way, self.count = prompts, way, 0
        self.learns = learns and way not in ("rislab", "full_size")
        if self.learns:
            self.prompts.requires_grad_(True)

    def forward(self, texts: Sequence[str]) -> Tensor:
        if self.way in ("rislab", "full_size"):
            before = len(self.prompts._made)
            found: Tensor = self.prompts(texts)
            self.count += len(self.prompts._made) - before
            return found
        self.count += len(texts)
        tokens = self.prompts.tokenizer(texts, self.prompts.context_length)
        with torch.set_grad_enabled(self.learns):
            return F.normalize(encode(self.prompts.clip, tokens)[1].float(), dim=-1)


def both_ways(method: TextSegmenter, names: Sequence[str], side: int) -> None:
    """Scores of a window [1, 3, side, side] and of its mirror image."""
    window = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    for shown in (window, window.flip(-1)):
        method.segment_vocabulary(shown, names)


def step(method: TextSegmenter, names: tuple[str, ...], side: int, way: Way) -> None:
    """Loss and gradients of one picture [1, 3, side, side] with a label of every name."""
    made = batch_of(LabelMaps, Stretch(side), 1)
    labels = (torch.arange(side * side) % len(names)).view(1, side, side).to(torch.uint8)
    batch = LabelMaps(**{**vars(made), "labels": labels, "names": names, "has_background": False})
    if way == "full_size":
        logits = enlarged(method.segment_vocabulary(batch.images, names))
        loss = F.cross_entropy(logits, labels.long())
    else:
        loss = torch.stack(list(method.losses(batch).values())).sum()
    loss.backward()
    method.zero_grad(set_to_none=False)


def label(method: TextSegmenter, names: tuple[str, ...], side: int) -> Tensor:
    """The label map of a picture, int64 [height, width], at six scales with mirror images; windows as in LSeg's evaluation."""
    long = side * 13 // 12
    image = torch.randint(0, 256, (3, long * 3 // 4, long), dtype=torch.uint8)
    scales = MultiScale(long, SCALES, side, side * 2 // 3)
    viewing = Viewing(side, 4 * side, side, side * 2 // 3, "given", scales)
    blank = torch.zeros(image.shape[1:], dtype=torch.uint8).numpy()
    (found,) = method.label(LabelledPictures([image], [blank], names, False, viewing, [0]))
    return found
