"""Scores of referring segmentation: pure functions of pixel counts, and a Metric that keeps nothing but those counts.

RIS papers print three different numbers as "IoU". Here each name says which: `oiou` is the ratio of summed areas (also
called cIoU or overall IoU; large objects weigh more), `miou_expr` the mean over expressions (what CRIS prints), `pr@X`
the share of expressions whose IoU exceeds X percent. All are in percent.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

PRECISION_AT = (50, 60, 70, 80, 90)
AVERAGES = ("miou_expr", "oiou", *(f"pr@{x}" for x in PRECISION_AT))

Counts = NDArray[np.int64]


def iou_per_expression(intersection: Counts, union: Counts, eps: float) -> NDArray[np.float64]:
    """I / (U + eps), float64 [N] in [0, 1]; 0 where nothing was predicted and nothing was asked for."""
    result: NDArray[np.float64] = np.divide(intersection, union + eps, out=np.zeros(len(union)), where=(union > 0))
    return result


def oiou(intersection: Counts, union: Counts) -> float:
    """Overall IoU in percent: sum of intersections over sum of unions, over the data set."""
    total = int(union.sum())
    return 100.0 * int(intersection.sum()) / total if total else 0.0


def miou_expr(iou: NDArray[np.float64]) -> float:
    """Mean over expressions of the IoU of each, in percent."""
    return 100.0 * float(iou.mean()) if len(iou) else 0.0


def precision_at(iou: NDArray[np.float64], percent: int, strict: bool) -> float:
    """Share of expressions, in percent, whose IoU is > (strict) or >= `percent` / 100.

    The comparison is made in float32, as the official codes do: 0.7 in float32 lies below 0.7 in float64, and an IoU of
    exactly 7/10 must fall on the official side.
    """
    if not len(iou):
        return 0.0
    threshold = np.float32(percent / 100)
    values = iou.astype(np.float32)
    hits = values > threshold if strict else values >= threshold
    return 100.0 * float(hits.mean())


def summarise(intersection: Counts, union: Counts, eps: float, strict: bool) -> dict[str, float]:
    """All averages of one split by name, from per-expression pixel counts [N]."""
    iou = iou_per_expression(intersection, union, eps)
    scores = {"miou_expr": miou_expr(iou), "oiou": oiou(intersection, union)}
    return scores | {f"pr@{x}": precision_at(iou, x, strict) for x in PRECISION_AT}


class ReferringScores(Metric):
    """Per-expression pixel counts of one split.

    The state is integers only, gathered whole, and sorted and freed of duplicates by `sent_id` before anything is
    averaged: any number of processes and any order of batches give the same digits.

    eps: added to the union; strict: how Pr@X compares.
    """

    full_state_update = False
    COLUMNS = ("sent_id", "ref_id", "image_id", "intersection", "union", "target", "prediction")

    def __init__(self, eps: float, strict: bool) -> None:
        super().__init__()
        self.eps = eps
        self.strict = strict
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    rows: list[Tensor] | Tensor

    def update(self, rows: Sequence[Sequence[int]]) -> None:
        """rows: one a query, in the order of `COLUMNS`; areas in pixels of the scored size."""
        assert isinstance(self.rows, list)
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).view(-1, len(self.COLUMNS)))

    def table(self) -> dict[str, Counts]:
        """Columns int64 [N] by name, sorted by sent_id, each expression once."""
        parts = self.rows if isinstance(self.rows, list) else [self.rows]
        if not parts:
            return {name: np.zeros(0, np.int64) for name in self.COLUMNS}
        everything = torch.cat(parts).cpu().numpy()
        _, first = np.unique(everything[:, 0], return_index=True)
        return dict(zip(self.COLUMNS, np.ascontiguousarray(everything[first].T), strict=True))

    def compute(self) -> dict[str, Any]:
        """`summarise` plus `expressions` and `images` (how many), and the `table` itself.

        The table rides along because only inside `compute` are the rows of all processes at hand.
        """
        table = self.table()
        scores: dict[str, Any] = summarise(table["intersection"], table["union"], self.eps, self.strict)
        scores["expressions"] = len(table["sent_id"])
        scores["images"] = len(np.unique(table["image_id"]))
        scores["table"] = table
        return scores


def pixel_counts(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(intersection, union, target, prediction) in pixels of two masks [h, w] of one size."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction is {prediction.shape}, target is {target.shape}")
    intersection = int(np.count_nonzero(prediction & target))
    of_target, of_prediction = int(np.count_nonzero(target)), int(np.count_nonzero(prediction))
    return intersection, of_target + of_prediction - intersection, of_target, of_prediction
