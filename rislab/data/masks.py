"""From an annotation to a mask: every form in which COCO files hold one.

Rules and known faults: polygons of one object are united (never added, which wraps or leaves holes); a polygon with
fewer than three points or an odd number of coordinates is dropped before pycocotools sees it, because pycocotools
decides by the first entry whether a list holds polygons or boxes; coordinates that are no pixel positions are refused,
because pycocotools allocates memory along every edge.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rislab.errors import DataError

RLE = dict[str, Any]
"""COCO run-length encoding: ``{"size": [h, w], "counts": bytes}``."""

FARTHEST = 1e5
"""Pixels; polygons may leave the picture (real ones do, by a fraction of a pixel), but not by this much."""


def encode(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> RLE:
    """Mask [h, w], foreground is anything but 0 -> COCO RLE ``{"size": [h, w], "counts": bytes}``."""
    rle: RLE = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return rle


def decode(rle: RLE) -> NDArray[np.uint8]:
    """COCO RLE, with bytes or text -> uint8 0/1 [h, w]."""
    return np.asarray(coco_mask.decode(rle))


def to_json(rle: RLE) -> RLE:
    """The same RLE with text instead of bytes; `decode` reads both."""
    counts = rle["counts"]
    return {"size": [int(v) for v in rle["size"]], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def area(rle: RLE) -> int:
    """Foreground pixels."""
    return int(coco_mask.area(rle))


def intersection_area(one: RLE, other: RLE) -> int:
    """Foreground pixels that two masks of one size share."""
    return int(coco_mask.area(coco_mask.merge([one, other], intersect=True)))


def union(rles: Sequence[RLE], height: int, width: int) -> RLE:
    """Union of masks of one size; the empty mask for none."""
    if not rles:
        return encode(np.zeros((height, width), np.bool_))
    if len(rles) == 1:
        return rles[0]
    merged: RLE = coco_mask.merge(list(rles))
    return merged


def from_segmentation(segmentation: Any, height: int, width: int) -> RLE:
    """RLE of one annotation's `segmentation`, whatever its form; an empty mask when no usable polygon is left.

    Forms: list of flat polygons; one RLE dict; a list of RLE dicts; counts compressed (str, bytes) or not (list).
    Raises DataError for anything else, for coordinates that are no numbers, and for an RLE of another size.
    """
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise DataError(f"segmentation is neither polygons nor RLE but {type(segmentation).__name__}")
    if segmentation and all(isinstance(part, dict) for part in segmentation):
        return union([_from_rle(part, height, width) for part in segmentation], height, width)
    usable = polygons(segmentation)
    if usable is None:
        raise DataError("segmentation mixes forms: expected a list of flat polygons [x1, y1, x2, y2, ...]")
    return union(coco_mask.frPyObjects(usable, height, width) if usable else [], height, width)


def polygons(segmentation: Any) -> list[list[float]] | None:
    """The usable polygons of a segmentation, or None when it is no list of polygons. Raises DataError."""
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        return None
    return [_polygon(part) for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]


def _polygon(coordinates: list[Any]) -> list[float]:
    try:
        values = np.asarray(coordinates, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a polygon is no flat list of numbers: {error}") from None
    if values.ndim != 1 or not np.all(np.abs(values) < FARTHEST):  # NaN compares false
        raise DataError(f"a polygon has coordinates that are no pixel positions (not finite, or beyond {FARTHEST:g})")
    return [float(value) for value in values]


def _from_rle(rle: dict[str, Any], height: int, width: int) -> RLE:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise DataError(f"RLE of size {size}, image of {[height, width]} (height, width)")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise DataError(f"uncompressed RLE counts do not add up to the {height * width} pixels of the image")
        compressed: RLE = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return compressed
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes):
        raise DataError(f"RLE counts are {type(counts).__name__}, expected a list, str or bytes")
    runs = _runs(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DataError(f"compressed RLE counts are damaged: they do not add up to {height * width} pixels")
    return {"size": [height, width], "counts": counts}


def _runs(counts: bytes) -> list[int]:
    """Run lengths of compressed counts.

    pycocotools leaves the pixels that damaged counts do not cover uninitialised, so they are added up here first.
    A number is written as groups of five bits, lowest first, 48 added to each; bit 5 says that more follow, bit 4 of the
    last is the sign; from the third run on, it is the difference to the run before last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        group = byte - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [*runs, -1] if shift else runs  # cut off within a number
