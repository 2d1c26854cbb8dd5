"""A linear probe on pooled colours: a method in a package of its own, as small as one can be."""

import zlib
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.data.batch import MaskQueries
from rislab.data.geometry import Stretch
from rislab.methods.base import TextSegmenter


class ProbeTask(TextSegmenter):
    """Colours of 4 x 4 pixels times a kernel of the sentence's words.

    image_size: side of the square that pictures are stretched to.
    buckets: rows of the word table.
    base_lr: Adam's.
    bias: whether a sentence shifts its map.
    """

    trains_on: ClassVar[type[MaskQueries]] = MaskQueries

    def __init__(self, image_size: int = 64, buckets: int = 64, base_lr: float = 0.05, bias: bool = True) -> None:
        super().__init__()
        self.geometry = Stretch(image_size)
        self.colours = nn.Conv2d(5, 16, 1)
        self.words = nn.EmbeddingBag(buckets, 17 if bias else 16, mode="sum")
        self.buckets, self.base_lr = buckets, base_lr

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        pixels = F.avg_pool2d(self.normalise(images), 4)
        side = torch.linspace(-1, 1, pixels.shape[-1]).expand(len(pixels), 1, *pixels.shape[-2:])
        features = torch.tanh(self.colours(torch.cat([pixels, side, side.mT], dim=1)))
        ids = [[zlib.crc32(word.encode()) % self.buckets for word in text.split() or [""]] for text in texts]
        offsets = torch.tensor([0, *(len(row) for row in ids[:-1])]).cumsum(0)
        kernels = self.words(torch.tensor([word for row in ids for word in row]), offsets)
        maps = torch.einsum("nchw,nc->nhw", features[image_index], kernels[:, :16])
        return maps + kernels[:, 16:].sum(1)[:, None, None]

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        assert batch.masks is not None
        logits = self.segment(batch.images, batch.texts, batch.image_index)
        target = F.adaptive_avg_pool2d(batch.masks, logits.shape[-2:])
        return {"mask": F.binary_cross_entropy_with_logits(logits, target)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.base_lr)
