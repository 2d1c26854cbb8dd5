"""The few pictures of a split whose label maps are kept for the report, the same in every trial of a table."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rislab.data.batch import LabelledPictures
from rislab.evaluation.base import Examples
from rislab.files import replacing, write_json
from rislab.metrics.classes import IGNORE

LONGEST = 256
"""Side of what is kept, in pixels: it is looked at, not scored."""
Map = NDArray[np.uint8]


@dataclass(frozen=True)
class Kept:
    """One picture, made small. right: share of the scored pixels of the whole picture that are right, in percent."""

    number: int
    image: NDArray[np.uint8]
    target: Map
    prediction: Map
    right: float


class LabelExamples(Examples):
    """Up to `count` pictures. Which ones depends on their numbers only: a hash of the number, lowest first."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        self.count, self.names = count, names
        self._kept: dict[int, Kept] = {}

    @property
    def kept(self) -> Mapping[int, Kept]:
        return self._kept

    def offer(self, batch: LabelledPictures, answers: Sequence[NDArray[Any]]) -> None:
        for number, image, answer, label in zip(batch.ids, batch.images, answers, batch.labels, strict=True):
            self._offer(number, image.permute(1, 2, 0).cpu().numpy(), answer, label)

    def _offer(self, number: int, image: NDArray[np.uint8], prediction: NDArray[Any], label: Map) -> None:
        """image: uint8 [H, W, 3] of any size; maps [h, w], label 255 where nothing is scored."""
        rank = zlib.crc32(b"%d" % number)
        if self.count < 1 or (len(self._kept) >= self.count and rank > max(self._kept)):
            return
        scored = label != IGNORE
        right = 100.0 * float((prediction == label)[scored].mean()) if scored.any() else 0.0
        maps = (_smaller(each.astype(np.uint8), cv2.INTER_NEAREST_EXACT) for each in (label, prediction))
        target, said = maps
        small = np.asarray(cv2.resize(image, target.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        self._kept[rank] = Kept(number, small, target, said, round(right, 2))
        if len(self._kept) > self.count:
            del self._kept[max(self._kept)]

    def gather(self, parts: Sequence[Mapping[int, Kept]]) -> None:
        """Take what all processes have kept."""
        everything = {rank: kept for part in parts for rank, kept in part.items()}
        self._kept = {rank: everything[rank] for rank in sorted(everything)[: self.count]}

    def write(self, folder: Path, data: Any) -> None:
        """`label_maps.json`, and three PNGs a picture; those of maps hold the labels themselves."""
        entries = []
        for rank in sorted(self._kept):
            one = self._kept[rank]
            files = {"image": one.image, "target": one.target, "prediction": one.prediction}
            names = {what: f"{one.number}{'' if what == 'image' else f'-{what}'}.png" for what in files}
            for what, pixels in files.items():
                with replacing(folder / names[what]) as temporary:
                    Image.fromarray(pixels).save(temporary, format="PNG")
            there = sorted({*np.unique(one.target).tolist(), *np.unique(one.prediction).tolist()} - {IGNORE})
            shown = {str(label): self.names[label] for label in there}
            entries.append({"image_id": one.number, **names, "classes": shown, "right": one.right})
        write_json(folder / "label_maps.json", entries)


def _smaller(values: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    height, width = values.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(values, size, interpolation=interpolation), np.uint8)
