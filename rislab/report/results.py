"""What the trials of a table have come to, read from their files; half-done tables included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rislab.ablation.plan import Planned, answered_by
from rislab.ablation.table import Profile, Row, Table
from rislab.ablation.trial import State
from rislab.files import read_json
from rislab.metrics import classes, referring
from rislab.metrics.protocols import Convention, Protocol


@dataclass(frozen=True)
class PerExpression:
    """Per-expression counts of one trial and split, sorted by sent_id, and the convention that scored them."""

    table: referring.Table
    convention: Convention

    @property
    def units(self) -> NDArray[np.int64]:
        """What was scored: rows can be compared when theirs are the same."""
        return self.table["sent_id"]

    @property
    def pictures(self) -> NDArray[np.int64]:
        """Of each unit, its picture."""
        return self.table["image_id"]

    def parts(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numerators and denominators, float64 [images, 1], in order of image id."""
        _, image = np.unique(self.table["image_id"], return_inverse=True)
        parts = referring.PARTS[metric](self.table, self.convention)
        top, bottom = (np.bincount(image, weights=part).astype(np.float64)[:, None] for part in parts)
        return top, bottom


@dataclass(frozen=True)
class PerClass:
    """Counts of each class in each picture, of one trial and split."""

    counts: classes.Counts

    @property
    def units(self) -> NDArray[np.int64]:
        return np.unique(self.counts["image_id"])

    @property
    def pictures(self) -> NDArray[np.int64]:
        return self.units

    def parts(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numerators and denominators, float64 [images, classes], in order of image id."""
        return classes.class_parts(self.counts, metric)


CLASS_COLUMNS = ("image_id", "class", "intersection", "prediction", "target")


@dataclass(frozen=True)
class Cell:
    """One row with one seed."""

    planned: Planned
    state: State
    error: str
    kind: str
    stale: tuple[str, ...]
    earlier: Mapping[str, "Cell"] = field(default_factory=dict)
    """Cells of the stages before, by name."""

    @property
    def seed(self) -> int:
        return self.planned.seed

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty unless done."""
        return dict(read_json(self.planned.trial.metrics_file) or {}) if self.state == "done" else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return dict(read_json(self.planned.trial.provenance_file) or {})

    def of(self, metric: str) -> tuple["Cell | None", str]:
        """The cell of the stage that `stage:metric` names, None where the row has no such stage; and the bare metric."""
        stage, _, bare = metric.rpartition(":")
        if not stage or stage == self.planned.stage:
            return self, bare
        return self.earlier.get(stage), bare

    def value(self, split: str, metric: str) -> float | None:
        cell, metric = self.of(metric)
        if cell is not self:
            return None if cell is None else cell.value(split, metric)
        found = self.metrics.get("splits", {}).get(split, {}).get(metric)
        return None if found is None else float(found)

    def evidence(self, split: str) -> PerExpression | PerClass | None:
        """Scores of single expressions, or of classes in single pictures; None unless done, and when the file is damaged."""
        return self._per_class(split) if "classes" in self.metrics else self._per_expression(split)

    def _per_class(self, split: str) -> PerClass | None:
        try:
            table = pq.read_table(self.planned.trial.scores_file, columns=[*CLASS_COLUMNS, "split"])
        except (OSError, pa.ArrowException):
            return None
        if set(table.column_names) != {*CLASS_COLUMNS, "split"}:
            return None
        chosen = table.column("split").to_numpy(zero_copy_only=False) == split
        return PerClass({name: table.column(name).to_numpy()[chosen] for name in CLASS_COLUMNS})

    def _per_expression(self, split: str) -> PerExpression | None:
        protocol = str(self.metrics.get("protocol"))
        if protocol not in Protocol.__members__:
            return None
        try:
            table = pq.read_table(self.planned.trial.scores_file, columns=[*referring.COLUMNS, "split"])
        except (OSError, pa.ArrowException):
            return None
        if self.state != "done" or set(table.column_names) != {*referring.COLUMNS, "split"}:
            return None
        chosen = table.column("split").to_numpy(zero_copy_only=False) == split
        columns = {name: table.column(name).to_numpy()[chosen] for name in referring.COLUMNS}
        order = np.argsort(columns["sent_id"], kind="stable")
        least = int(self.metrics.get("no_target_min_pixels", 1))
        convention = replace(Protocol[protocol].convention, no_target_min_pixels=least)
        return PerExpression({name: column[order] for name, column in columns.items()}, convention)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, finite value) of a logged quantity; whole lines only, since a running trial is still writing."""
        path = self.planned.trial.curves
        if not path.exists():
            return []
        lines = path.read_text(errors="replace").splitlines(keepends=True)[1:]
        parts = [line.strip().split(",") for line in lines if line.endswith("\n")]
        points = [(int(p[0]), float(p[3])) for p in parts if len(p) == 4 and p[2] == name]
        return [(step, value) for step, value in points if np.isfinite(value)]

    def predictions(self) -> list[dict[str, Any]]:
        found = read_json(self.planned.trial.path / "predictions" / "predictions.json")
        return list(found) if isinstance(found, list) else []

    def label_maps(self) -> list[dict[str, Any]]:
        """Of the pictures that a benchmark of class names keeps; see `rislab.training.label_pictures`."""
        found = read_json(self.planned.trial.path / "predictions" / "label_maps.json")
        return list(found) if isinstance(found, list) else []


@dataclass(frozen=True)
class RowResult:
    row: Row
    cells: tuple[Cell, ...]

    @property
    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state == "done"]

    def values(self, split: str, metric: str) -> list[float]:
        return [value for cell in self.cells if (value := cell.value(split, metric)) is not None]

    @property
    def parameters(self) -> float | None:
        """In millions."""
        totals = [cell.metrics["parameters"]["total"] for cell in self.done if "parameters" in cell.metrics]
        return totals[0] / 1e6 if totals else None


@dataclass(frozen=True)
class Results:
    table: Table
    profile: Profile
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]

    def row(self, name: str) -> RowResult | None:
        return next((result for result in self.rows if result.row.name == name), None)

    @property
    def cells(self) -> list[Cell]:
        """Every trial behind the table; one of an earlier stage once, however many rows start from it."""
        found: list[Cell] = []
        shared: set[Path] = set()
        for cell in (each for row in self.rows for last in row.cells for each in (*last.earlier.values(), last)):
            if not cell.planned.stage or cell.planned.trial.path not in shared:
                found.append(cell)
            shared.add(cell.planned.trial.path)
        return found

    def common(self, key: str) -> Any:
        """A field of metrics.json on which all done trials agree, or a list of the values they have."""
        found: list[Any] = []
        for cell in self.cells:
            value = cell.metrics.get(key)
            if value is not None and value not in found:
                found.append(value)
        return found[0] if len(found) == 1 else found or None


def collect(table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned]) -> Results:
    """Rows in the table's order, cells in the seeds' order."""
    answers = answered_by(planned)
    rows: dict[str, list[Cell]] = {}
    before: dict[str, Cell] = {}
    for cell in planned:
        answer = answers[cell.name]
        state = answer.state
        status = {} if state == "done" else answer.trial.status()
        stale = tuple(answer.stale()) if state == "done" else ()
        made = Cell(answer, state, str(status.get("error") or ""), str(status.get("kind") or ""), stale, dict(before))
        if cell.is_last:
            rows.setdefault(cell.row.name, []).append(made)
            before = {}
        else:
            before[cell.stage] = made
    by_name = {row.name: row for row in table.rows}
    return Results(
        table, profile, tuple(seeds), tuple(RowResult(by_name[name], tuple(cells)) for name, cells in rows.items())
    )


def relative(path: Path) -> str:
    """A trial's path as a report prints it: table folder and trial, no machine's path."""
    return str(Path(*path.parts[-2:]))
