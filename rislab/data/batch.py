"""What loaders give and methods take: a small closed family of training batches, and the pictures of a label benchmark.

A method names the member that it trains on (`TextSegmenter.trains_on`), a data module the one that it gives
(`EvaluatedData.gives`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.geometry import InverseGeometry
from rislab.data.masks import RLE
from rislab.data.square import Resampling
from rislab.nn.multi_scale import MultiScale

IGNORED = 255
"""The label of a pixel that is neither trained on nor scored."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """I pictures in the network's frame; the base of the family.

    Attributes:
        images: uint8 [I, 3, H, W], RGB, not normalised: mean and standard deviation are the method's.
        image_ids: I ids of the annotation file, or numbers of samples.
        placements: I; what undoes the geometry.
    """

    images: Tensor
    image_ids: list[int]
    placements: list[InverseGeometry]

    def __len__(self) -> int:
        """Samples, as a mean over a batch counts them."""
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Tensors on a device; ids, texts and run lengths stay on the host. Lightning moves anything that has a `to`."""
        return self._with(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._with(lambda value: value.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with each tensor changed."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class MaskQueries(Images):
    """I images and N queries, N >= I; a query is (image_index, text, target). Also the batch of referring evaluation.

    Attributes:
        texts: N sentences.
        image_index: int64 [N], the row of `images` that a query belongs to.
        mask_bytes: uint8 [N, H, W], soft targets at network resolution times 255; None in evaluation. See `masks`.
        targets: N masks at the size at which the protocol compares, the original one or its square; None in training.
        ref_ids: N ids of the annotation file.
        sent_ids: N ids of the annotation file.
        no_target: N; whether nothing in the image is meant. Its mask is empty, but not every empty mask is one: an
            annotation without a pixel is a fault of the file.
        noun_spans: N; first and last character (exclusive) of the phrase that a method may erase, or None for a sentence
            without one; None where the method asks for none.
    """

    texts: list[str]
    image_index: Tensor
    mask_bytes: Tensor | None = None
    targets: list[RLE] | None = None
    ref_ids: list[int]
    sent_ids: list[int]
    no_target: list[bool]
    noun_spans: list[tuple[int, int] | None] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def masks(self) -> Tensor | None:
        """float32 [N, H, W] in [0, 1], made where the batch is: a quarter of the bytes travels from loader to device."""
        return None if self.mask_bytes is None else self.mask_bytes.float().div_(255)


@dataclass(frozen=True, kw_only=True)
class LabelMaps(Images):
    """Pictures with the class of each pixel.

    Attributes:
        labels: uint8 [I, H, W], numbers of `names`, with background 0 and names from 1 where there is background; 255 is ignored.
        names: K class names, the same for the whole batch; background is not among them.
        has_background: whether label 0 is background.
    """

    labels: Tensor
    names: tuple[str, ...]
    has_background: bool


@dataclass(frozen=True, kw_only=True)
class ImageLabels(Images):
    """Pictures with the classes that they show, and not where.

    Attributes:
        present: bool [I, K].
        names: K class names.
    """

    present: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Captions(Images):
    """Image-text pairs.

    Attributes:
        texts: I captions.
        nouns: K prompted nouns of each caption, for methods that ask for them; None for others.
        skipped: why pairs were replaced by others, and how many.
    """

    texts: list[str]
    nouns: list[list[str]] | None = None
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Episodes(Images):
    """Pictures of which one class is to be segmented: few-shot folds.

    Attributes:
        class_index: int64 [I], numbers of `names`.
        names: class names of the fold.
        masks: uint8 [I, H, W]: 1 the class, 0 others, 255 ignored. In evaluation at the size at which the protocol compares.
        numbers: I numbers of the episodes in their split; none in training.
    """

    class_index: Tensor
    names: tuple[str, ...]
    masks: Tensor
    numbers: list[int] = field(default_factory=list)


def members(trains_on: type[Images] | UnionType | None) -> tuple[type[Images], ...]:
    """The batches that a method trains on: one, several of `LabelMaps | Episodes`, or none."""
    if trains_on is None:
        return ()
    return get_args(trains_on) if isinstance(trains_on, UnionType) else (trains_on,)


@dataclass(frozen=True)
class Viewing:
    """How pictures are shown to a network: fitted into (short, long), by windows of a side and stride, names of a set.

    With `multi_scale` a picture comes at its own size instead, and is shown as that says; with `as_stored` it comes so, too, and
    is shown by windows. With `crop` the square in its middle is all that is shown and scored, at that side, made by `resampling`.
    """

    short: int
    long: int
    window: int
    stride: int
    names: str
    multi_scale: MultiScale | None = None
    crop: int | None = None
    resampling: Resampling = "bilinear"
    as_stored: bool = False


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures to be labelled, each with its own size.

    nothing is scored. names: the vocabulary, background not among them; with `has_background`, label 0 is
    background and `names` follow. ids: numbers of the pictures within the split.

    Attributes:
        images: uint8 [3, H, W] each, as the protocol shows them.
        labels: uint8 [h, w] each, at the original size, 255 where
    """

    images: list[Tensor]
    labels: list[NDArray[np.uint8]]
    names: tuple[str, ...]
    has_background: bool
    viewing: Viewing
    ids: list[int]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "LabelledPictures":
        return replace(self, images=[image.to(device, non_blocking=non_blocking) for image in self.images])

    def pin_memory(self) -> "LabelledPictures":
        return replace(self, images=[image.pin_memory() for image in self.images])
