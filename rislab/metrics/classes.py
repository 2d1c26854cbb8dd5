"""Semantic segmentation scored over a whole data set: counts of each class, summed over all pictures.

`miou_class`: mean over classes of I / (A_pred + A_label - I), each summed over all pictures; classes that occur neither in a
label nor in a prediction are left out. `macc_class`: mean of I / A_label over classes that occur in a label. `aacc`: share of
right pixels. Ignored pixels count nowhere. All in percent. Source: mmsegmentation 0.x, core/evaluation/metrics.py.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
AVERAGES = ("miou_class", "macc_class", "aacc")


def confusion(prediction: NDArray[np.integer], label: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """int64 [C, C], rows are labels: pixels of two maps [h, w] of one size.

    Raises:
        ValueError: For sizes that differ and for labels that are neither a class nor ignored.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction is {prediction.shape}, label is {label.shape}")
    # Ignored pixels are counted in a row of their own, which is then left out: faster than picking the others.
    pairs = label.ravel().astype(np.intp)
    pairs *= classes
    pairs += prediction.ravel()
    rows = np.bincount(pairs, minlength=(IGNORE + 1) * classes).reshape(-1, classes)
    if rows[classes:IGNORE].any():
        raise ValueError(f"label {classes + int(rows[classes:IGNORE].any(1).argmax())} is none of {classes} classes")
    return rows[:classes]


def iou_per_class(
    intersection: NDArray[np.int64], prediction: NDArray[np.int64], target: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64 [C] in [0, 1]; NaN for a class that occurs nowhere. Arguments are pixels of each class over all pictures."""
    hits, union = intersection.astype(np.float64), prediction + target - intersection
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def averages(
    intersection: NDArray[np.int64], prediction: NDArray[np.int64], target: NDArray[np.int64]
) -> dict[str, float]:
    """The averages by name, in percent; 0 where there is nothing to average over. Arguments as of `iou_per_class`."""
    hits = intersection.astype(np.float64)
    recall = np.divide(hits, target, out=np.full(len(hits), np.nan), where=target > 0)
    total = target.sum()
    return {
        "miou_class": _mean(iou_per_class(intersection, prediction, target)),
        "macc_class": _mean(recall),
        "aacc": 100.0 * float(hits.sum() / total) if total else 0.0,
    }


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return 100.0 * float(there.mean()) if len(there) else 0.0


Counts = Mapping[str, NDArray[np.int64]]
"""Pixels of one class in one picture: columns `image_id`, `class`, `intersection`, `prediction`, `target`, each int64 [N]."""


def class_parts(counts: Counts, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerators and denominators of an average, float64 [pictures, classes], pictures in order of their id.

    The average is the mean over columns of sum / sum, without columns whose denominator is 0; `aacc` has one column.
    """
    pictures, row = np.unique(counts["image_id"], return_inverse=True)
    there, column = np.unique(counts["class"], return_inverse=True)

    def spread(values: NDArray[np.int64]) -> NDArray[np.float64]:
        out = np.zeros((len(pictures), len(there)))
        out[row, column] = values
        return out

    hits, target = spread(counts["intersection"]), spread(counts["target"])
    if metric == "aacc":
        return hits.sum(1, keepdims=True), target.sum(1, keepdims=True)
    return hits, target if metric == "macc_class" else target + spread(counts["prediction"]) - hits
