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

from rislab.ablation import records
from rislab.ablation.integrity import CURVES, PREDICTIONS, SUSPECT, unreadable
from rislab.ablation.plan import Planned, answered_by
from rislab.ablation.schema import METRICS
from rislab.ablation.table import Profile, Row, Table
from rislab.ablation.trial import State, TrialDir
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
        """Numerators and denominators, float64 [images, classes], in order of image id. Raises KeyError for other metrics."""
        if metric not in classes.AVERAGES:
            raise KeyError(metric)
        return classes.class_parts(self.counts, metric)


LARGEST_CURVE = 64 << 20
"""Bytes of log/metrics.csv that are read."""

LARGEST_VALUE = 1e12
"""A curve that goes further is not drawn there: nothing else would be seen of it."""

AGREES = 0.005
"""Points by which a score may differ from what its evidence gives: half of the last digit that is printed."""

ANY_LIST = records.Listed(records.Kind("anything", lambda value: True))

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
    has_digests: bool = True
    changed: tuple[str, ...] = ()
    """Files that are not what the trial wrote, and so are not shown; no number comes from them."""

    @property
    def seed(self) -> int:
        return self.planned.seed

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty unless done."""
        return dict(read_metrics(self.planned.trial) or {}) if self.state == "done" else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """provenance.json; empty where it is not there, damaged or closed to us."""
        return self._provenance[0]

    @property
    def provenance_fault(self) -> str:
        """What is wrong with provenance.json, or ""."""
        return self._provenance[1]

    @cached_property
    def _provenance(self) -> tuple[dict[str, Any], str]:
        path = self.planned.trial.provenance_file
        try:
            return dict(records.load(path, records.PROVENANCE) or {}), ""
        except records.DamagedError as error:
            return {}, str(error)
        except OSError as error:
            return {}, unreadable(error, path)

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
        if not _is_counted(table, CLASS_COLUMNS):
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
        if self.state != "done" or not _is_counted(table, referring.COLUMNS):
            return None
        chosen = table.column("split").to_numpy(zero_copy_only=False) == split
        columns = {name: table.column(name).to_numpy()[chosen] for name in referring.COLUMNS}
        order = np.argsort(columns["sent_id"], kind="stable")
        least = int(self.metrics.get("no_target_min_pixels", 1))
        convention = replace(Protocol[protocol].convention, no_target_min_pixels=least)
        return PerExpression({name: column[order] for name, column in columns.items()}, convention)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, finite value) of a logged quantity; whole lines only, since a running trial is still writing."""
        if self.state in SUSPECT or CURVES in self.changed:
            return []
        try:
            with self.planned.trial.curves.open(errors="replace") as file:
                text = file.read(LARGEST_CURVE)
        except OSError:
            return []
        parts = [line.strip().split(",") for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]
        points = (_point(part[0], part[3]) for part in parts if len(part) == 4 and part[2] == name)
        return [point for point in points if point is not None]

    def predictions(self) -> list[dict[str, Any]]:
        """The expressions that a trial keeps masks of; those that are no sound entries are left out."""
        return self._kept("predictions.json", records.EXPRESSION)

    def label_maps(self) -> list[dict[str, Any]]:
        """Of the pictures that a benchmark of class names keeps; see `rislab.training.label_pictures`."""
        return self._kept("label_maps.json", records.LABEL_MAP)

    def _kept(self, name: str, shape: records.Shape) -> list[dict[str, Any]]:
        if self.state != "done" or f"{PREDICTIONS}/{name}" in self.changed:
            return []
        try:
            found = records.load(self.planned.trial.path / PREDICTIONS / name, ANY_LIST) or []
        except (records.DamagedError, OSError):
            return []
        return [each for each in found if records.wrong(each, shape) is None]

    def picture(self, name: str) -> Path | None:
        """A file beside the kept predictions; None for one that was changed, or that lies elsewhere, by its name or by a link."""
        folder = self.planned.trial.path / PREDICTIONS
        path = folder / Path(name).name
        is_sound = f"{PREDICTIONS}/{path.name}" not in self.changed and path.resolve().parent == folder.resolve()
        return path if is_sound else None


def _is_counted(table: pa.Table, columns: Sequence[str]) -> bool:
    """Whether a table has these columns, all of whole numbers, none missing, and its splits."""
    fields = {field.name: field.type for field in table.schema}
    return (
        fields.keys() == {*columns, "split"}
        and all(pa.types.is_integer(fields[name]) for name in columns)
        and not any(column.null_count for column in table.columns)
    )


def read_metrics(trial: TrialDir) -> dict[str, Any] | None:
    """The result of a trial that is done."""
    try:
        found: dict[str, Any] | None = records.load(trial.metrics_file, records.RESULT)
    except (records.DamagedError, OSError):
        return None  # since its state was asked
    return found


def _point(step: str, value: str) -> tuple[int, float] | None:
    try:
        point = int(step), float(value)
    except ValueError:
        return None
    return point if 0 <= point[0] < 2**53 and abs(point[1]) < LARGEST_VALUE else None


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
        totals = [
            cell.metrics["parameters"]["total"] for cell in self.done if "total" in cell.metrics.get("parameters", {})
        ]
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
    seen: dict[str, Cell] = {}
    for cell in planned:
        answer = answers[cell.name]
        if answer.hash not in seen:
            seen[answer.hash] = _seen(answer)
        made = replace(seen[answer.hash], earlier=dict(before))
        if cell.is_last:
            rows.setdefault(cell.row.name, []).append(made)
            before = {}
        else:
            before[cell.stage] = made
    by_name = {row.name: row for row in table.rows}
    return Results(
        table, profile, tuple(seeds), tuple(RowResult(by_name[name], tuple(cells)) for name, cells in rows.items())
    )


def _seen(cell: Planned) -> Cell:
    """A trial as a report shows it: its numbers only where all its files are sound and agree with each other."""
    state, found = cell.trial.look(thorough=True)
    if state == "done":
        made = Cell(cell, state, "", "", tuple(cell.stale()), has_digests=found.has_digests, changed=found.changed)
        fault = disagreement(made)
        return made if not fault else Cell(cell, "damaged", fault, "", ())
    if found.suspect:
        return Cell(cell, state, found.reason, "", ())
    try:
        status = cell.trial.status()
    except OSError as error:
        return Cell(cell, "unreadable", unreadable(error, cell.trial.path), "", ())
    return Cell(cell, state, str(status.get("error") or ""), str(status.get("kind") or ""), ())


def disagreement(cell: Cell) -> str:
    """Where the scores of metrics.json are not those of scores.parquet, or ""."""
    for split, scores in cell.metrics.get("splits", {}).items():
        reported = {name: value for name, value in scores.items() if name in METRICS}
        if not reported:
            continue
        evidence = cell.evidence(split)
        if evidence is None or not len(evidence.units):
            return f"scores.parquet has no readable scores of split {split!r}"
        for name, value in reported.items():
            try:
                top, bottom = evidence.parts(name)
            except KeyError:
                return f"metrics.json: split {split!r} has {name}, which its scores cannot give"
            found = mean_ratio(top.sum(0), bottom.sum(0))
            if abs(found - value) > AGREES:
                return f"{name} of split {split!r} is {value:.2f} in metrics.json, {found:.2f} in scores.parquet"
    return ""


def mean_ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> float:
    """Mean over columns of a metric's numerators over its denominators, in percent, without those whose denominator is 0."""
    there = bottom > 1e-12
    return float(100 * (top[there] / bottom[there]).mean()) if there.any() else 0.0


def relative(path: Path) -> str:
    """A trial's path as a report prints it: table folder and trial, no machine's path."""
    return str(Path(*path.parts[-2:]))
