"""Images and queries: what every loader gives and every method takes."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.geometry import InverseGeometry
from rislab.data.masks import RLE


@dataclass(frozen=True)
class Batch:
    """I images and N queries, N >= I; a query is (image_index, text, target).

    images: uint8 [I, 3, H, W], RGB at network resolution, not normalised.
    texts: N sentences.
    image_index: int64 [N], the row of `images` that a query belongs to.
    mask_bytes: uint8 [N, H, W], soft targets at network resolution times 255; None in evaluation. See `masks`.
    targets: N masks at the size at which the protocol compares, the original one or its square; None in training.
    placements: I; what undoes the geometry.
    image_ids: I; ref_ids, sent_ids: N; ids of the annotation file.
    no_target: N; whether nothing in the image is meant. Its mask is empty, but not every empty mask is one: an
        annotation without a pixel is a fault of the file.
    """

    images: Tensor
    texts: list[str]
    image_index: Tensor
    mask_bytes: Tensor | None
    targets: list[RLE] | None
    placements: list[InverseGeometry]
    image_ids: list[int]
    ref_ids: list[int]
    sent_ids: list[int]
    no_target: list[bool]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def masks(self) -> Tensor | None:
        """float32 [N, H, W] in [0, 1], made where the batch is: a quarter of the bytes travels from loader to device."""
        return None if self.mask_bytes is None else self.mask_bytes.float().div_(255)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Lightning moves anything with a `to`; ids, texts and targets stay on the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            image_index=self.image_index.to(device, non_blocking=non_blocking),
            mask_bytes=None if self.mask_bytes is None else self.mask_bytes.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        return replace(
            self,
            images=self.images.pin_memory(),
            image_index=self.image_index.pin_memory(),
            mask_bytes=None if self.mask_bytes is None else self.mask_bytes.pin_memory(),
        )


@dataclass(frozen=True)
class Viewing:
    """How pictures are shown to a network: fitted into (short, long), by windows of a side and stride, names of a set."""

    short: int
    long: int
    window: int
    stride: int
    names: str


@dataclass(frozen=True)
class LabelBatch:
    """Pictures to be labelled, each with its own size.

    images: uint8 [3, H, W] each, as the protocol shows them. labels: uint8 [h, w] each, at the original size, 255 where
    nothing is scored. names: the vocabulary, background not among them; with `has_background`, label 0 is
    background and `names` follow. ids: numbers of the pictures within the split.
    """

    images: list[Tensor]
    labels: list[NDArray[np.uint8]]
    names: tuple[str, ...]
    has_background: bool
    viewing: Viewing
    ids: list[int]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "LabelBatch":
        return replace(self, images=[image.to(device, non_blocking=non_blocking) for image in self.images])

    def pin_memory(self) -> "LabelBatch":
        return replace(self, images=[image.pin_memory() for image in self.images])
