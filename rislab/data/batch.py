"""Images and queries: what every loader gives and every method takes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rislab.data.geometry import Placement
from rislab.data.masks import RLE


@dataclass(frozen=True)
class Batch:
    """I images and N queries, N >= I; a query is (image_index, text, target).

    images: uint8 [I, 3, H, W], RGB at network resolution, not normalised.
    texts: N sentences.
    image_index: int64 [N], the row of `images` that a query belongs to.
    masks: float32 [N, H, W] in [0, 1], soft targets at network resolution; None in evaluation.
    targets: N masks at the size at which the protocol compares, the original one or its square; None in training.
    placements: I; what undoes the geometry.
    image_ids: I; ref_ids, sent_ids: N; ids of the annotation file.
    no_target: N; whether nothing in the image is meant. Its mask is empty, but not every empty mask is one: an
        annotation without a pixel is a fault of the file.
    """

    images: Tensor
    texts: list[str]
    image_index: Tensor
    masks: Tensor | None
    targets: list[RLE] | None
    placements: list[Placement]
    image_ids: list[int]
    ref_ids: list[int]
    sent_ids: list[int]
    no_target: list[bool]

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Lightning moves anything with a `to`; ids, texts and targets stay on the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            image_index=self.image_index.to(device, non_blocking=non_blocking),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        return replace(
            self,
            images=self.images.pin_memory(),
            image_index=self.image_index.pin_memory(),
            masks=None if self.masks is None else self.masks.pin_memory(),
        )
