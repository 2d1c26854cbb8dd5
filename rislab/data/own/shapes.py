"""The forms in which a user's file gives an object: a mask file, polygons, run lengths, a box, a bitmap at a place.

Each becomes what an annotation of `instances.json` holds as its `segmentation`; coordinates are pixels of the upright picture.
"""

import base64
import binascii
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rislab.data import decoding, masks
from rislab.data.masks import RLE
from rislab.errors import DataError, brief
from rislab.paths import contents

CIRCLE_POINTS = 72


class Shape(ABC):
    """One part of an object."""

    kind: str

    @abstractmethod
    def segmentation(self, height: int, width: int) -> Any:
        """COCO's form of it in a picture of this size: polygons, or one RLE. Raises DataError."""


@dataclass(frozen=True)
class MaskFile(Shape):
    """A PNG of the picture's size; anything but 0 is the object (`decoding.mask`)."""

    path: Path
    kind = "masks in PNG files"

    def segmentation(self, height: int, width: int) -> RLE:
        expected = decoding.Expected(height, width, "the picture has")
        return masks.encode(decoding.mask(contents(self.path), str(self.path), expected))


@dataclass(frozen=True)
class Polygons(Shape):
    """Outlines of one object, each [x1, y1, x2, y2, ...]."""

    outlines: tuple[tuple[float, ...], ...]
    kind = "polygons"

    def segmentation(self, height: int, width: int) -> list[list[float]]:
        for outline in self.outlines:
            if len(outline) < 6 or len(outline) % 2:
                raise DataError(f"a polygon of {len(outline)} numbers: expected x1 y1 x2 y2 x3 y3 or more pairs")
        highest = max(value for outline in self.outlines for value in outline)
        if max(height, width) > 2 and highest <= 1:
            raise DataError(
                f"the polygon's highest coordinate is {highest:g}: expected pixels, not fractions of the picture"
            )
        return [list(outline) for outline in self.outlines]


@dataclass(frozen=True)
class RunLengths(Shape):
    """COCO run lengths in any form, `{"size": [h, w], "counts": ...}`."""

    value: Any
    kind = "run lengths"

    def segmentation(self, height: int, width: int) -> RLE:
        return masks.from_segmentation(self.value, height, width)


@dataclass(frozen=True)
class Box(Shape):
    """A rectangle [x, y, width, height] that stands in for a mask."""

    x: float
    y: float
    width: float
    height: float
    kind = "boxes"

    def segmentation(self, height: int, width: int) -> list[list[float]]:
        if self.width <= 0 or self.height <= 0:
            raise DataError(
                f"a box of {self.width:g} x {self.height:g} pixels: expected x, y, width, height, both above 0"
            )
        if self.x < -1 or self.y < -1 or self.x + self.width > width + 1 or self.y + self.height > height + 1:
            raise DataError(
                f"the box {self.x:g}, {self.y:g}, {self.width:g}, {self.height:g} (x, y, width, height) leaves the picture of "
                f"{width}x{height}; corners x1, y1, x2, y2 are not expected"
            )
        left, top, right, bottom = self.x, self.y, self.x + self.width, self.y + self.height
        return [[left, top, right, top, right, bottom, left, bottom]]


@dataclass(frozen=True)
class Bitmap(Shape):
    """labelme's mask: a PNG in base64 whose upper left pixel lies at (left, top); its lower right one at (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int
    png: str
    kind = "masks"

    def segmentation(self, height: int, width: int) -> RLE:
        try:
            data = base64.b64decode(self.png, validate=True)
        except (binascii.Error, ValueError):
            raise DataError("its mask is no base64 text") from None
        h, w = self.bottom - self.top + 1, self.right - self.left + 1
        if min(self.left, self.top) < 0 or min(h, w) < 1 or self.right >= width or self.bottom >= height:
            corners = [self.left, self.top, self.right, self.bottom]
            raise DataError(f"its mask at {corners} leaves the picture of {width}x{height}")
        part = decoding.mask(data, "its mask", decoding.Expected(h, w, "its corners say"))
        whole = np.zeros((height, width), np.bool_)
        whole[self.top : self.bottom + 1, self.left : self.right + 1] = part
        return masks.encode(whole)


def circle(centre: tuple[float, float], edge: tuple[float, float]) -> Polygons:
    """labelme's circle, given by its centre and a point of its edge."""
    radius = math.dist(centre, edge)
    angles = [2 * math.pi * turn / CIRCLE_POINTS for turn in range(CIRCLE_POINTS)]
    points = [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]
    return Polygons((tuple(value for point in points for value in point),))


def numbers(value: Any, what: str) -> tuple[float, ...]:
    """Finite numbers from a list of them, also of pairs. Raises DataError."""
    flat: list[Any] = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        flat += item if isinstance(item, (list, tuple)) else [item]
    if not all(type(item) in (int, float) for item in flat):
        raise DataError(f"{what} is {brief(value)}, expected numbers")
    if not all(abs(item) < masks.FARTHEST for item in flat):  # also of NaN
        raise DataError(f"{what} holds a number that is no pixel position: {brief(value)}")
    return tuple(float(item) for item in flat)


def polygons(value: Any) -> Polygons:
    """Outlines from one flat list, one list of points, or a list of flat lists. Raises DataError."""
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"polygon is {brief(value)}, expected [x1, y1, x2, y2, ...], or a list of such")
    nested = isinstance(value[0], (list, tuple))
    are_points = nested and all(isinstance(item, (list, tuple)) and len(item) == 2 for item in value)
    outlines = value if nested and not are_points else [value]
    return Polygons(tuple(numbers(outline, "polygon") for outline in outlines))


def box(value: Any) -> Box:
    """[x, y, width, height]. Raises DataError."""
    four = numbers(value, "box")
    if len(four) != 4:
        raise DataError(f"box has {len(four)} numbers, expected x, y, width, height")
    return Box(*four)


def united(parts: Sequence[Shape], height: int, width: int) -> tuple[Any, RLE]:
    """(segmentation as a file holds it, its mask) of an object of one or more parts.

    Polygons stay polygons. A mask is a list of one RLE with text, the form that both the official REFER code and ours read.

    Raises:
        DataError: A part that cannot be drawn, or an object without a pixel in the picture.
    """
    forms = [part.segmentation(height, width) for part in parts]
    if all(isinstance(form, list) and all(isinstance(one, list) for one in form) for form in forms):
        segmentation: Any = [outline for form in forms for outline in form]
        mask = masks.from_segmentation(segmentation, height, width)
    else:
        mask = masks.union([masks.from_segmentation(form, height, width) for form in forms], height, width)
        segmentation = [masks.to_json(mask)]
    if not masks.area(mask):
        raise DataError(
            f"its {parts[0].kind} have no pixel in the picture of {width}x{height}" if parts else "no shape"
        )
    return segmentation, mask
