"""From an annotation to a mask: every form in which COCO files hold one.

Rules and known faults: polygons of one object are united (never added, which wraps or leaves holes); a polygon with
fewer than three points or an odd number of coordinates is dropped before pycocotools sees it, because pycocotools
decides by the first entry whether a list holds polygons or boxes; coordinates that are no pixel positions and polygons whose
edges are far longer than the picture's are refused, because pycocotools allocates memory along every edge.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rislab.errors import DataError, brief

RLE = dict[str, Any]
"""COCO run-length encoding: ``{"size": [h, w], "counts": bytes}``."""

FARTHEST = 1e5
"""Pixels; polygons may leave the picture (real ones do, by a fraction of a pixel), but not by this much."""
LONGEST_EDGES = 1e7
"""Pixels; all edges of an object together. pycocotools takes about 40 bytes for each."""
EDGE = 64
"""An edge may on average be so many times as long as height and width of the picture together."""
MOST_GROUPS = 7
"""Groups of five bits in a number of compressed run lengths: what pycocotools itself writes at most."""


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

    Raises:
        DataError: For anything else, for coordinates that are no numbers, and for an RLE of another size.
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
    _refuse_far_points(usable, height, width)
    lists = [polygon.tolist() for polygon in usable]
    return union(coco_mask.frPyObjects(lists, height, width) if lists else [], height, width)


Polygon = NDArray[np.float64]
"""[x1, y1, x2, y2, ...] in pixels."""


def polygons(segmentation: Any) -> list[Polygon] | None:
    """The usable polygons of a segmentation, or None when it is no list of polygons. Raises DataError."""
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        return None
    return [_polygon(part) for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]


def _polygon(coordinates: list[Any]) -> Polygon:
    try:
        values = np.asarray(coordinates)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"a polygon is no flat list of numbers: {brief(str(error), 200)[1:-1]}") from None
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise DataError(f"a polygon is no flat list of numbers: {brief(coordinates)}")
    return values.astype(np.float64, copy=False)


def _refuse_far_points(found: Sequence[Polygon], height: int, width: int) -> None:
    """Refuse what would take far more memory than any outline of something in the picture. Raises DataError."""
    if not found:
        return
    farthest = float(np.max([np.abs(polygon).max() for polygon in found]))
    if not farthest < FARTHEST:  # NaN, which numpy's maximum keeps, compares false
        raise DataError(f"a polygon has coordinates that are no pixel positions (not finite, or beyond {FARTHEST:g})")
    points = sum(len(polygon) for polygon in found) // 2
    limit = min(LONGEST_EDGES, EDGE * (height + width) * points)
    if 2 * points * farthest <= limit:
        return
    length = sum(float(np.abs(np.diff(p.reshape(-1, 2), axis=0, append=p[None, :2])).max(1).sum()) for p in found)
    if length > limit:
        raise DataError(
            f"polygons of {points} points have edges of {length:.0f} pixels together, at most {limit:.0f} in a picture of "
            f"{width}x{height}"
        )


def _from_rle(rle: dict[str, Any], height: int, width: int) -> RLE:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or list(size[:3]) != [height, width]:
        raise DataError(f"RLE of size {brief(size)}, image of {[height, width]} (height, width)")
    if isinstance(counts, list):
        runs = [_run(run) for run in counts]
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise DataError(f"uncompressed RLE counts do not add up to the {height * width} pixels of the image")
        compressed: RLE = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return compressed
    if isinstance(counts, str):
        if counts.startswith(("b'", 'b"')):
            raise DataError("RLE counts are Python's print of bytes, b'...': write counts.decode()")
        if not counts.isascii():
            raise DataError("compressed RLE counts are damaged: they hold letters that are not ASCII")
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise DataError(f"RLE counts are {type(counts).__name__}, expected a list, str or bytes")
    runs = _runs(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DataError(f"compressed RLE counts are damaged: they do not add up to {height * width} pixels")
    return {"size": [height, width], "counts": counts}


def _run(run: Any) -> int:
    """A run length: a whole number, also where a tool wrote it as a float."""
    if type(run) is int:
        return run
    if isinstance(run, float) and run.is_integer():
        return int(run)
    raise DataError(f"uncompressed RLE counts hold {brief(run)}, which is no whole number")


def _runs(counts: bytes) -> list[int]:
    """Run lengths of compressed counts.

    pycocotools leaves the pixels that damaged counts do not cover uninitialised, so they are added up here first.
    A number is written as groups of five bits, lowest first, 48 added to each; bit 5 says that more follow, bit 4 of the
    last is the sign; from the third run on, it is the difference to the run before last. The last run is -1 where the counts
    are no such text: cut off within a number, a byte of another range, or a number of more groups than pycocotools reads.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        group = byte - 48
        if shift == 5 * MOST_GROUPS or not 0 <= group < 64:
            return [*runs, -1]
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [*runs, -1] if shift else runs
