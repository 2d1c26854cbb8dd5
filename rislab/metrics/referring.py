"""Scores of referring segmentation, from pixel counts of each expression.

RIS papers print three different numbers as "IoU". Here each name says which:

- `miou_expr`: mean over expressions of I / U. `pr@X`: share of expressions whose IoU exceeds X percent.
- `oiou`: sum of I over sum of U (also called overall or cumulative IoU; large objects weigh more).
- `acc`: share of zero-target expressions that were answered with an empty mask (Ref-ZOM).
- `giou`, `ciou`, `n_acc`, `t_acc`: generalised RES (Liu et al., CVPR 2023). An answer of fewer than
  `no_target_min_pixels` pixels says "nothing there". gIoU is the mean over ALL expressions of I / U, and 1 for a zero
  target that was recognised. cIoU is sum of I over sum of U: a recognised zero target adds nothing, an overlooked one adds
  what was predicted to U, and "nothing there", said of a target, sets I to 0 and leaves U. N-acc and T-acc are the shares
  of zero-target and of targeted expressions whose kind was recognised.

Every one is a ratio of two sums over expressions, and is defined as such, once, in `parts`: averages, their exactness under
DDP and the jackknife over images all follow from it. All are in percent.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rislab.metrics.protocols import PRECISION_AT, Convention

COLUMNS = ("sent_id", "ref_id", "image_id", "intersection", "union", "target", "prediction", "no_target")
"""What is kept of an expression: ids, areas in pixels at the scored size, and whether its reference has no referent.

`no_target` is not `target == 0`: an annotation without a pixel is a fault of the file, not a statement.
"""

NEED_ZERO_TARGETS = frozenset({"acc", "n_acc", "giou", "ciou", "t_acc"})
"""Left out by conventions that keep zero targets apart, where a split has none."""

Table = Mapping[str, NDArray[np.int64]]
"""The columns, each int64 [N]."""


Parts = tuple[NDArray[np.float64], NDArray[np.float64]]


def iou_per_expression(table: Table, convention: Convention) -> NDArray[np.float64]:
    """I / (U + eps), float64 [N] in [0, 1]; 0 where nothing was predicted and nothing was meant.

    Where the convention is generalised RES: 1 for a zero target that was recognised, 0 where "nothing there" was said of a
    target.
    """
    if convention.zero_target == "generalised":
        return _generalised_iou(table, convention)
    return _ratio(table["intersection"], table["union"], convention.iou_eps)


def _ratio(intersection: NDArray[np.int64], union: NDArray[np.int64], eps: float) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(intersection, union + eps, out=np.zeros(len(union)), where=(union > 0))
    return ratio


def _generalised(table: Table, convention: Convention) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(I, U) of generalised RES."""
    none = _says_none(table, convention)
    intersection = np.where(none, 0, table["intersection"])
    return intersection, np.where(none & (table["no_target"] == 1), 0, table["union"])


def _generalised_iou(table: Table, convention: Convention) -> NDArray[np.float64]:
    iou = _ratio(*_generalised(table, convention), convention.iou_eps)
    iou[(table["no_target"] == 1) & _says_none(table, convention)] = 1.0
    return iou


def _says_none(table: Table, convention: Convention) -> NDArray[np.bool_]:
    return np.asarray(table["prediction"] < convention.no_target_min_pixels)


def _scored(table: Table, convention: Convention) -> NDArray[np.float64]:
    """1 for expressions that count in means over IoUs, else 0."""
    if convention.zero_target == "counted":
        return np.ones(len(table["no_target"]))
    return (table["no_target"] == 0).astype(np.float64)


def _miou_expr(table: Table, convention: Convention) -> Parts:
    scored = _scored(table, convention)
    return iou_per_expression(table, convention) * scored, scored


def _oiou(table: Table, convention: Convention) -> Parts:
    scored = _scored(table, convention)
    return table["intersection"] * scored, table["union"] * scored


def _precision(percent: int) -> Callable[[Table, Convention], Parts]:
    """The comparison is made in float32, as the official codes do: 0.7 in float32 lies below 0.7 in float64, and an IoU of
    exactly 7/10 must fall on the official side."""
    threshold = np.float32(percent / 100)

    def precision(table: Table, convention: Convention) -> Parts:
        scored = _scored(table, convention)
        iou = iou_per_expression(table, convention).astype(np.float32)
        hits = iou > threshold if convention.strict_precision else iou >= threshold
        return hits * scored, scored

    return precision


def _giou(table: Table, convention: Convention) -> Parts:
    return _generalised_iou(table, convention), np.ones(len(table["no_target"]))


def _ciou(table: Table, convention: Convention) -> Parts:
    intersection, union = _generalised(table, convention)
    return intersection.astype(np.float64), union.astype(np.float64)


def _n_acc(table: Table, convention: Convention) -> Parts:
    no_target = (table["no_target"] == 1).astype(np.float64)
    return no_target * _says_none(table, convention), no_target


def _t_acc(table: Table, convention: Convention) -> Parts:
    targeted = (table["no_target"] == 0).astype(np.float64)
    return targeted * ~_says_none(table, convention), targeted


PARTS: dict[str, Callable[[Table, Convention], Parts]] = {
    "miou_expr": _miou_expr,
    "oiou": _oiou,
    **{f"pr@{x}": _precision(x) for x in PRECISION_AT},
    "acc": _n_acc,
    "giou": _giou,
    "ciou": _ciou,
    "n_acc": _n_acc,
    "t_acc": _t_acc,
}
"""(numerators, denominators) of each metric, float64 [N]; the metric is 100 * sum / sum."""


def averages(table: Table, convention: Convention) -> dict[str, float]:
    """The convention's averages by name, in percent, in its order; 0 where there is nothing to average over."""
    names = convention.averages
    if convention.zero_target == "apart" and not table["no_target"].any():
        names = tuple(name for name in names if name not in NEED_ZERO_TARGETS)
    result = {}
    for name in names:
        top, bottom = PARTS[name](table, convention)
        total = float(bottom.sum())
        result[name] = 100.0 * float(top.sum()) / total if total else 0.0
    return result


def pixel_counts(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(intersection, union, target, prediction) in pixels of two masks [h, w] of one size."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction is {prediction.shape}, target is {target.shape}")
    intersection = int(np.count_nonzero(prediction & target))
    of_target, of_prediction = int(np.count_nonzero(target)), int(np.count_nonzero(prediction))
    return intersection, of_target + of_prediction - intersection, of_target, of_prediction
