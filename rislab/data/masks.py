"""From an annotation to a mask: every form in which COCO files hold one.

Rules and known faults: polygons of one object are united (never added, which wraps or leaves holes); a polygon with
fewer than three points or an odd number of coordinates is dropped before pycocotools sees it, because pycocotools
decides by the first entry whether a list holds polygons or boxes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rislab.errors import DataError

RLE = dict[str, Any]


def encode(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> RLE:
    """Mask [h, w] -> COCO RLE ``{"size": [h, w], "counts": bytes}``."""
    rle: RLE = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle


def decode(rle: RLE) -> NDArray[np.uint8]:
    """COCO RLE -> uint8 0/1 [h, w]."""
    return np.asarray(coco_mask.decode(rle))


def empty(height: int, width: int) -> RLE:
    return encode(np.zeros((height, width), np.uint8))


def from_segmentation(segmentation: Any, height: int, width: int) -> RLE:
    """RLE of one annotation's `segmentation`, whatever its form; an empty mask when no usable polygon is left.

    Forms: list of flat polygons; one RLE dict; a list of RLE dicts; counts compressed (str, bytes) or not (list).
    Raises DataError for anything else and for an RLE of another size.
    """
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise DataError(f"segmentation is neither polygons nor RLE but {type(segmentation).__name__}")
    if segmentation and all(isinstance(part, dict) for part in segmentation):
        return union([_from_rle(part, height, width) for part in segmentation], height, width)
    if not all(isinstance(part, list) for part in segmentation):
        raise DataError("segmentation mixes forms: expected a list of flat polygons [x1, y1, x2, y2, ...]")
    usable = [part for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]
    if not usable:
        return empty(height, width)
    rle: RLE = coco_mask.merge(coco_mask.frPyObjects(usable, height, width))
    return rle


def _from_rle(rle: RLE, height: int, width: int) -> RLE:
    size = rle.get("size")
    if size != [height, width]:
        raise DataError(f"RLE of size {size}, image of {[height, width]}")
    counts = rle.get("counts")
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise DataError(f"RLE counts cover {sum(counts)} pixels, the image has {height * width}")
        compressed: RLE = coco_mask.frPyObjects(rle, height, width)
        return compressed
    if isinstance(counts, str):
        return {"size": size, "counts": counts.encode()}
    if isinstance(counts, bytes):
        return {"size": size, "counts": counts}
    raise DataError(f"RLE counts are {type(counts).__name__}, expected a list, str or bytes")


def union(rles: Sequence[RLE] | Iterable[RLE], height: int, width: int) -> RLE:
    """Union of masks of one size; the empty mask for none."""
    parts = list(rles)
    if not parts:
        return empty(height, width)
    merged: RLE = coco_mask.merge(parts)
    return merged


def area(rle: RLE) -> int:
    """Foreground pixels."""
    return int(coco_mask.area(rle))
