"""Scores of few-shot episodes, by the arithmetic of `rislab.metrics.episodes`. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.evaluation.arithmetic import Arithmetic, Table
from rislab.metrics import episodes


@dataclass(frozen=True)
class EpisodeArithmetic(Arithmetic):
    """A unit is an episode; one that a protocol shows again has another number.

    Attributes:
        classes: Numbers of the fold's classes.
        names: Of the same classes; empty where only a report reads the table.
    """

    classes: tuple[int, ...]
    names: Sequence[str] = ()
    columns: ClassVar[tuple[str, ...]] = episodes.COLUMNS
    key: ClassVar[tuple[str, ...]] = ("episode",)

    @property
    def metrics(self) -> tuple[str, ...]:
        return episodes.AVERAGES

    def scores(self, table: Table) -> dict[str, float]:
        return episodes.averages(table, self.classes)

    def parts(self, table: Table, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return episodes.parts(table, metric, self.classes)

    def summary(self, table: Table) -> dict[str, Any]:
        ious = episodes.class_ious(table, self.classes)
        named = dict(zip(self.names, ious.values(), strict=True)) if self.names else {}
        return {"episodes": len(table["episode"]), "images": len(np.unique(table["image_id"])), "classes": named}

    def units(self, table: Table) -> NDArray[np.int64]:
        return table["episode"]


def of_result(result: Mapping[str, Any]) -> EpisodeArithmetic | None:
    """That of a finished trial, by the classes in its metrics.json; None where it names none."""
    found = result.get("episode_classes")
    if not isinstance(found, list) or not found or not all(type(number) is int for number in found):
        return None
    return EpisodeArithmetic(tuple(found))
