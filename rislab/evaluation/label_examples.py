"""The few pictures of a split whose label maps are kept for the report, the same in every trial of a table."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rislab.data.batch import LabelledPictures
from rislab.evaluation.base import Examples, Scored
from rislab.files import replacing, write_json
from rislab.metrics.classes import IGNORE

LONGEST = 256
"""Side of what is kept, in pixels: it is looked at, not scored."""
Map = NDArray[np.uint8]


@runtime_checkable
class Grouping(Protocol):
    """A method that divides a picture into groups before it names them."""

    def groups_of(self, image: Tensor) -> Mapping[str, Tensor]:
        """The number of each patch's group, int64 [h, w], by the name of each division, of a picture uint8 [3, H, W]."""


@dataclass(frozen=True)
class LabelExample:
    """One picture, made small.

    Attributes:
        right: share of the scored pixels of the whole picture that are right, in percent.
        groups: number of each pixel's group, by the name of the division; of a method that has groups.
    """

    number: int
    image: NDArray[np.uint8]
    target: Map
    prediction: Map
    right: float
    groups: Mapping[str, Map] = field(default_factory=dict)


class LabelExamples(Examples):
    """Up to `count` pictures. Which ones depends on their numbers only: a hash of the number, lowest first."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        self.count, self.names = count, names
        self._kept: dict[int, LabelExample] = {}

    @property
    def kept(self) -> Mapping[int, LabelExample]:
        return self._kept

    def offer(self, batch: LabelledPictures, answers: Sequence[NDArray[Any]]) -> None:
        for number, image, answer, label in zip(batch.ids, batch.images, answers, batch.labels, strict=True):
            self._offer(number, image.permute(1, 2, 0).cpu().numpy(), answer, label)

    def _offer(self, number: int, image: NDArray[np.uint8], prediction: NDArray[Any], label: Map) -> None:
        """image: uint8 [H, W, 3] of any size; maps [h, w], label 255 where nothing is scored."""
        rank = _rank(number)
        if self.count < 1 or (len(self._kept) >= self.count and rank > max(self._kept)):
            return
        scored = label != IGNORE
        right = 100.0 * float((prediction == label)[scored].mean()) if scored.any() else 0.0
        maps = (_smaller(each.astype(np.uint8), cv2.INTER_NEAREST_EXACT) for each in (label, prediction))
        target, said = maps
        small = np.asarray(cv2.resize(image, target.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        self._kept[rank] = LabelExample(number, small, target, said, round(right, 2))
        if len(self._kept) > self.count:
            del self._kept[max(self._kept)]

    def inspect(self, method: Scored, batch: LabelledPictures) -> None:
        """Keep which patch belongs to which group, of a method that has groups."""
        if not isinstance(method, Grouping):
            return
        for number, image in zip(batch.ids, batch.images, strict=True):
            rank = _rank(number)
            if rank in self._kept:
                size = self._kept[rank].target.shape[::-1]
                groups = {
                    name: np.asarray(cv2.resize(_bytes(each), size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
                    for name, each in method.groups_of(image).items()
                }
                self._kept[rank] = replace(self._kept[rank], groups=groups)

    def gather(self, parts: Sequence[Mapping[int, LabelExample]]) -> None:
        """Take what all processes have kept."""
        everything = {rank: kept for part in parts for rank, kept in part.items()}
        self._kept = {rank: everything[rank] for rank in sorted(everything)[: self.count]}

    def write(self, folder: Path, data: Any) -> None:
        """`label_maps.json`, and three PNGs a picture or more; those of maps hold the labels, those of groups their numbers."""
        entries = []
        for rank in sorted(self._kept):
            one = self._kept[rank]
            files = {"image": one.image, "target": one.target, "prediction": one.prediction}
            names = {what: f"{one.number}{'' if what == 'image' else f'-{what}'}.png" for what in files}
            groups = {what: f"{one.number}-groups-{n}.png" for n, what in enumerate(one.groups, 1)}
            for what, pixels in (files | dict(one.groups)).items():
                with replacing(folder / (names | groups)[what]) as temporary:
                    Image.fromarray(pixels).save(temporary, format="PNG")
            there = sorted({*np.unique(one.target).tolist(), *np.unique(one.prediction).tolist()} - {IGNORE})
            shown = {str(label): self.names[label] for label in there}
            divided = {"groups": groups} if groups else {}
            entries.append({"image_id": one.number, **names, "classes": shown, "right": one.right, **divided})
        write_json(folder / "label_maps.json", entries)


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return values.cpu().numpy().astype(np.uint8)


def _rank(number: int) -> int:
    return zlib.crc32(b"%d" % number)


def _smaller(values: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    height, width = values.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(values, size, interpolation=interpolation), np.uint8)
