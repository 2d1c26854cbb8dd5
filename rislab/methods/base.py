"""What every method shares: one way to train a step, one way to be asked for masks."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.batch import Batch
from rislab.data.geometry import Geometry
from rislab.errors import DivergedError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextSegmenter(L.LightningModule):
    """Masks from images and sentences.

    A subclass sets `geometry` and `mask_threshold`, and says `losses` and `segment`.

    geometry: how an image gets into the network; the data layer asks for it.
    mask_threshold: a pixel is foreground when its probability is strictly greater; used for masks that people look at.
        Scores follow the benchmark's convention instead.
    """

    geometry: Geometry
    mask_threshold: float = 0.5
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [I, 3, H, W] -> float32 [I, 3, H, W]."""
        return (images.float() / 255.0 - self.mean) / self.std

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar terms by name, already weighted. A term that is switched off is absent and not computed."""

    @abstractmethod
    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Mask logits [N, h, w], at the network's own stride.

        images: uint8 [I, 3, H, W]; texts: N sentences; image_index: int64 [N].
        """

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Mask logits [I, C, h, w] of C class names: each is asked, as a sentence, of each of the I images."""
        rows = images.shape[0]
        index = torch.arange(rows, device=images.device).repeat_interleave(len(names))
        logits = self.segment(images, list(names) * rows, index)
        return logits.view(rows, len(names), *logits.shape[1:])

    def take_tokens(self, tokenizer: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        """Token ids that lie ready, by sentence, made by a tokenizer of this kind; a method that has such a one may take them."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self.losses(batch)
        # One look at the device a step, for the sum; the terms are named only when something is wrong.
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            bad = [name for name, value in terms.items() if not torch.isfinite(value)]
            raise DivergedError(f"loss term {', '.join(bad) or 'sum'} is not finite at step {self.global_step}")
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        if len(terms) > 1:
            logged["train/loss"] = total.detach()
        self.log_dict(logged, batch_size=len(batch))
        return total

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        # In float32 whatever training used: autocast moves pixels that lie near the threshold.
        with torch.autocast(self.device.type, enabled=False):
            return {"logits": self.segment(batch.images, batch.texts, batch.image_index)}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx, dataloader_idx)
