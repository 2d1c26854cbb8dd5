"""What an expression denotes, as pixels: the union of its annotations, or what an official code makes of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rislab.data import masks
from rislab.data.annotations import Annotation
from rislab.data.masks import RLE
from rislab.metrics.protocols import Convention
from rislab.metrics.scored_size import at_scored_size


def union(annotations: Sequence[Annotation], height: int, width: int) -> RLE:
    """Everything under any polygon or run of any of the annotations, at the original size; empty for none.

    Raises:
        DataError: For a segmentation that is none.
    """
    return masks.union([masks.from_segmentation(a.segmentation, height, width) for a in annotations], height, width)


def scored(annotations: Sequence[Annotation], height: int, width: int, convention: Convention) -> RLE:
    """The target that a convention compares with, at the size at which it compares. Raises DataError."""
    if convention.skips_crowds:
        annotations = [annotation for annotation in annotations if not annotation.is_crowd]
    if convention.redraws_polygons and convention.side is not None:
        drawn = [_redrawn(a.segmentation, height, width, convention.side, convention) for a in annotations]
        return masks.union(drawn, convention.side, convention.side)
    if convention.overlaps == "holes":
        return _stretched(_without_overlaps(annotations, height, width), convention)
    return _stretched(union(annotations, height, width), convention)


def _stretched(target: RLE, convention: Convention) -> RLE:
    if convention.side is None:
        return target
    return masks.encode(at_scored_size(masks.decode(target).view(np.bool_), convention))


def _redrawn(segmentation: Any, height: int, width: int, side: int, convention: Convention) -> RLE:
    """Polygons stretched as coordinates and drawn at `side` (ReLA). Its code fails on run lengths; here they are stretched."""
    polygons = masks.polygons(segmentation)
    if polygons is None:
        return _stretched(masks.from_segmentation(segmentation, height, width), convention)
    scale = np.array([side / width, side / height])
    placed = [(p.reshape(-1, 2) * scale).reshape(-1).tolist() for p in polygons]
    return masks.from_segmentation(placed, side, side)


def _without_overlaps(annotations: Sequence[Annotation], height: int, width: int) -> RLE:
    """Pixels under exactly one polygon.

    LAVT adds the polygons of an object up and keeps the value 1: where two overlap is a hole, and an object whose polygon
    is listed twice is gone. Its sets have one annotation a reference; with several, all their polygons are added up.
    """
    covered = np.zeros((height, width), np.int32)
    for annotation in annotations:
        polygons = masks.polygons(annotation.segmentation)
        parts = [annotation.segmentation] if polygons is None else [[polygon.tolist()] for polygon in polygons]
        for part in parts:
            covered += masks.decode(masks.from_segmentation(part, height, width))
    return masks.encode(np.asarray(covered == 1))
