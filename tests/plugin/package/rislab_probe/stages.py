"""Two stages of different classes: one makes label maps, one is trained on them."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from rislab.data.batch import IGNORED, LabelledPictures, LabelMaps
from rislab.data.geometry import Stretch
from rislab.methods.base import FileMaker
from rislab_probe import ProbeTask

DIES_AFTER = int(os.environ.get("PROBE_DIES_AFTER", "0"))
"""Files after which a process dies without a word; 0: never."""

_made: list[int] = []


class BrightnessLabels(FileMaker):
    """Label maps by brightness.

    levels: classes that are given out.
    """

    any_size: ClassVar[bool] = True

    def __init__(self, levels: int = 3) -> None:
        super().__init__()
        self.geometry = Stretch(64)
        self.levels = levels

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        return self.normalise(images).mean(1)[image_index]

    def produce(self, batch: LabelledPictures) -> Mapping[str, Callable[[], bytes]]:
        return {
            f"{number}.png": partial(self._labels, image, label.shape)
            for number, image, label in zip(batch.ids, batch.images, batch.labels, strict=True)
        }

    def _labels(self, image: Tensor, shape: tuple[int, int]) -> bytes:
        if DIES_AFTER and len(_made) == DIES_AFTER:
            os._exit(9)
        _made.append(1)
        bright = cv2.resize(image.float().mean(0).numpy(), shape[::-1])
        _, data = cv2.imencode(".png", np.minimum(bright * self.levels / 256, self.levels - 1).astype(np.uint8))
        return bytes(data)


class LabelProbe(ProbeTask):
    """The probe, trained on label maps.

    bias: whether a name shifts its map.
    """

    trains_on: ClassVar[type[LabelMaps]] = LabelMaps  # type: ignore[assignment]

    def __init__(self, bias: bool = True) -> None:
        super().__init__(bias=bias)

    def losses(self, batch: LabelMaps) -> dict[str, Tensor]:  # type: ignore[override]
        scores = self.with_background(self.segment_vocabulary(batch.images, batch.names))
        scores = F.interpolate(scores, batch.labels.shape[-2:], mode="bilinear")
        return {"cross_entropy": F.cross_entropy(scores, batch.labels.long(), ignore_index=IGNORED)}
