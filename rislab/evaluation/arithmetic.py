"""From integer counts of units to scores: computed at the end of a run, and again by a report from files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.metrics import classes, referring
from rislab.metrics.protocols import Convention, Protocol

Table = Mapping[str, NDArray[np.int64]]
"""Columns, each int64 [N]; one row a unit."""


class Arithmetic(ABC):
    """Scores of a table of units.

    Attributes:
        columns: of a table, in order.
        key: columns that tell one unit from another. A unit that is counted twice, as padding of ranks, counts once.
    """

    columns: ClassVar[tuple[str, ...]]
    key: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names in order; the first chooses the checkpoint."""

    @abstractmethod
    def scores(self, table: Table) -> dict[str, float]:
        """Values by metric, in percent; metrics that a split has no units for are left out."""

    @abstractmethod
    def parts(self, table: Table, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numerators and denominators, float64 [pictures, K], in order of image id; the metric is the mean over K of sum / sum.

        Raises:
            KeyError: The evaluation has no such metric.
        """

    @abstractmethod
    def summary(self, table: Table) -> dict[str, Any]:
        """What metrics.json says of a split beside its scores."""

    @abstractmethod
    def units(self, table: Table) -> NDArray[np.int64]:
        """What was scored, sorted: two trials can be compared when theirs are the same."""

    def derived(self, table: Table) -> dict[str, NDArray[np.float64]]:
        """Further columns of scores.parquet, for people who look at it."""
        return {}


@dataclass(frozen=True)
class ExpressionArithmetic(Arithmetic):
    """Of referring segmentation; a unit is an expression."""

    convention: Convention
    columns: ClassVar[tuple[str, ...]] = referring.COLUMNS
    key: ClassVar[tuple[str, ...]] = ("sent_id",)

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.convention.averages

    def scores(self, table: Table) -> dict[str, float]:
        return referring.averages(table, self.convention)

    def parts(self, table: Table, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        _, image = np.unique(table["image_id"], return_inverse=True)
        found = referring.PARTS[metric](table, self.convention)
        top, bottom = (np.bincount(image, weights=part).astype(np.float64)[:, None] for part in found)
        return top, bottom

    def summary(self, table: Table) -> dict[str, Any]:
        return {
            "expressions": len(table["sent_id"]),
            "zero_target": int(table["no_target"].sum()),
            "images": len(np.unique(table["image_id"])),
        }

    def units(self, table: Table) -> NDArray[np.int64]:
        return table["sent_id"]

    def derived(self, table: Table) -> dict[str, NDArray[np.float64]]:
        return {"iou": referring.iou_per_expression(table, self.convention)}


@dataclass(frozen=True)
class ClassArithmetic(Arithmetic):
    """Of label maps; a unit is a class that is in a picture's label or prediction.

    Attributes:
        names: by label; empty where only a report reads the table.
    """

    names: Sequence[str] = ()
    columns: ClassVar[tuple[str, ...]] = ("image_id", "class", "intersection", "prediction", "target")
    key: ClassVar[tuple[str, ...]] = ("image_id", "class")

    @property
    def metrics(self) -> tuple[str, ...]:
        return classes.AVERAGES

    def scores(self, table: Table) -> dict[str, float]:
        return classes.averages(*self._sums(table))

    def parts(self, table: Table, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if metric not in classes.AVERAGES:
            raise KeyError(metric)
        return classes.class_parts(table, metric)

    def summary(self, table: Table) -> dict[str, Any]:
        hits, predicted, labelled = (sums.tolist() for sums in self._sums(table))
        unions = [float(p + t - i) for i, p, t in zip(hits, predicted, labelled, strict=True)]
        ious = {name: 100 * i / u if u else None for name, i, u in zip(self.names, hits, unions, strict=True)}
        return {"images": len(self.units(table)), "classes": ious}

    def units(self, table: Table) -> NDArray[np.int64]:
        return np.unique(table["image_id"])

    def _sums(self, table: Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(intersection, prediction, target) of each class over all pictures, int64 [C]."""
        count = max(len(self.names), int(table["class"].max(initial=-1)) + 1)

        def total(name: str) -> NDArray[np.int64]:
            out = np.zeros(count, np.int64)
            np.add.at(out, table["class"], table[name])
            return out

        return total("intersection"), total("prediction"), total("target")


@dataclass(frozen=True)
class SweptArithmetic(ClassArithmetic):
    """Of label maps that depend on a background threshold; a unit is a class in a picture at one threshold.

    Attributes:
        fixed: The threshold that scores are reported at, in thousandths. The best one of the split is reported beside it.
    """

    fixed: int = 150
    columns: ClassVar[tuple[str, ...]] = ("image_id", "threshold", "class", "intersection", "prediction", "target")
    key: ClassVar[tuple[str, ...]] = ("image_id", "threshold", "class")

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*classes.AVERAGES, BEST)

    def scores(self, table: Table) -> dict[str, float]:
        return super().scores(_at(table, self.fixed)) | {BEST: max(self._curve(table).values(), default=0.0)}

    def parts(self, table: Table, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if metric != BEST:
            return super().parts(_at(table, self.fixed), metric)
        return super().parts(_at(table, self._best(table)), "miou_class")

    def summary(self, table: Table) -> dict[str, Any]:
        curve = {f"miou_class@{threshold / 1000:g}": value for threshold, value in self._curve(table).items()}
        return super().summary(_at(table, self.fixed)) | {"best_threshold": self._best(table) / 1000} | curve

    def _curve(self, table: Table) -> dict[int, float]:
        """`miou_class` at each threshold."""
        there = np.unique(table["threshold"]).tolist()
        return {each: super(SweptArithmetic, self).scores(_at(table, each))["miou_class"] for each in there}

    def _best(self, table: Table) -> int:
        """The threshold with the highest mIoU, the lowest of equals."""
        curve = self._curve(table)
        return max(curve, key=lambda each: (curve[each], -each), default=self.fixed)


BEST = "miou_class_best"


def _at(table: Table, threshold: int) -> Table:
    chosen = table["threshold"] == threshold
    return {name: column[chosen] for name, column in table.items()}


def protocol_of(result: Mapping[str, Any]) -> str:
    """The protocol of a finished trial as reports say it, by its metrics.json; "" where that names none.

    A network that was not scored in float32 has another protocol than one that was.
    """
    protocol, precision = str(result.get("protocol") or ""), result.get("precision")
    return f"{protocol}, computed in {precision}" if protocol and precision else protocol


def arithmetic_of(result: Mapping[str, Any]) -> Arithmetic | None:
    """That of a finished trial, by its metrics.json; None for a protocol that is not known here."""
    if "threshold" in result:
        return SweptArithmetic(fixed=int(result["threshold"]))
    from rislab.evaluation.episode_arithmetic import of_result  # it is made of the classes above

    episodes = of_result(result)
    if episodes is not None:
        return episodes
    if "classes" in result:
        return ClassArithmetic()
    protocol = str(result.get("protocol"))
    if protocol not in Protocol.__members__:
        return None
    least = int(result.get("no_target_min_pixels", 1))
    return ExpressionArithmetic(replace(Protocol[protocol].convention, no_target_min_pixels=least))
