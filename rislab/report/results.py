"""What the trials of a table have come to, read from their files; half-done tables included."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rislab.ablation import records
from rislab.ablation.integrity import CURVES, PREDICTIONS, SUSPECT, unreadable
from rislab.ablation.plan import Planned, answered_by
from rislab.ablation.schema import METRICS
from rislab.ablation.table import Profile, Row, Table
from rislab.ablation.trial import State
from rislab.evaluation.arithmetic import Arithmetic, arithmetic_of
from rislab.evaluation.arithmetic import Table as CountTable


@dataclass(frozen=True)
class Counts:
    """Counts of the units of one trial and split, and what makes scores of them."""

    table: CountTable
    arithmetic: Arithmetic

    @property
    def units(self) -> NDArray[np.int64]:
        """What was scored: rows can be compared when theirs are the same."""
        return self.arithmetic.units(self.table)

    @property
    def pictures(self) -> NDArray[np.int64]:
        """Of each unit, its picture."""
        return np.unique(self.table["image_id"]) if "class" in self.table else self.table["image_id"]

    def parts(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numerators and denominators, float64 [images, K]. Raises KeyError for a metric that the evaluation has not."""
        return self.arithmetic.parts(self.table, metric)


LARGEST_CURVE = 64 << 20
"""Bytes of log/metrics.csv that are read."""

LARGEST_VALUE = 1e12
"""A curve that goes further is not drawn there: nothing else would be seen of it."""

AGREES = 0.005
"""Points by which a score may differ from what its evidence gives: half of the last digit that is printed."""

ANY_LIST = records.Listed(records.Kind("anything", lambda value: True))


@dataclass(frozen=True)
class Cell:
    """One row with one seed, and with one fold where the profile has folds."""

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
    result: Mapping[str, Any] = field(default_factory=dict)
    """metrics.json, as it was read when the trial was looked at."""

    @property
    def seed(self) -> int:
        return self.planned.seed

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty unless done."""
        return dict(self.result) if self.state == "done" else {}

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
        """A score on a split; one of an earlier stage is that stage's own split's."""
        cell, metric = self.of(metric)
        if cell is not self:
            return None if cell is None else cell.value(cell.planned.split, metric)
        found = self.metrics.get("splits", {}).get(split, {}).get(metric)
        return None if found is None else float(found)

    def evidence(self, split: str) -> Counts | None:
        """Counts of single units; None unless done, for an unknown protocol, and when the file is damaged."""
        arithmetic = arithmetic_of(self.metrics) if self.state == "done" else None
        if arithmetic is None:
            return None
        names = [*arithmetic.columns, "split"]
        try:  # a report reads thousands: `read_table` takes eight times as long, and threads that read ahead wait for a core
            data = pa.BufferReader(self.planned.trial.scores_file.read_bytes())
            table = pq.ParquetFile(data).read(columns=names, use_threads=False)
        except (OSError, pa.ArrowException):
            return None
        if not set(names) <= set(table.column_names) or not _is_counted(table, arithmetic.columns):
            return None
        chosen = _numbers(pc.cast(pc.equal(table.column("split"), split), pa.uint8())).astype(bool)
        columns = {name: _numbers(table.column(name))[chosen] for name in arithmetic.columns}
        order = np.lexsort([columns[name] for name in reversed(arithmetic.key)])
        return Counts({name: column[order] for name, column in columns.items()}, arithmetic)

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
        """Of the pictures that a benchmark of class names keeps; see `rislab.evaluation.label_examples`."""
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


def _point(step: str, value: str) -> tuple[int, float] | None:
    try:
        point = int(step), float(value)
    except ValueError:
        return None
    return point if 0 <= point[0] < 2**53 and abs(point[1]) < LARGEST_VALUE else None


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column without missing numbers; pyarrow's own `to_numpy` imports pandas, which takes longer than many a report."""
    return np.from_dlpack(column.combine_chunks())


@dataclass(frozen=True)
class RowResult:
    row: Row
    cells: tuple[Cell, ...]

    @property
    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state == "done"]

    @property
    def by_seed(self) -> list[tuple[Cell, ...]]:
        """Trials of each seed: one, or one a fold."""
        found: dict[int, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.seed, []).append(cell)
        return [tuple(cells) for cells in found.values()]

    @property
    def finished_seeds(self) -> int:
        return sum(1 for cells in self.by_seed if all(cell.state == "done" for cell in cells))

    def values(self, split: str, metric: str) -> list[float]:
        """One a seed: the mean over folds where there are folds, of seeds that have them all."""
        found = ([cell.value(split, metric) for cell in cells] for cells in self.by_seed)
        return [mean for each in found if (mean := _mean(each)) is not None]

    def of_fold(self, fold: str, split: str, metric: str) -> float | None:
        """The mean over the seeds of which this fold is there."""
        found = [cell.value(split, metric) for cell in self.cells if cell.planned.fold == fold]
        return _mean([value for value in found if value is not None])

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

    def first_that(self, keeps: Callable[[Cell], Any]) -> list[tuple[str, Cell | None]]:
        """Label and first finished trial of each row that keeps examples, all of one fold: other folds show other pictures."""
        fold = next((cell.planned.fold for row in self.rows for cell in row.done if keeps(cell)), "")
        return [
            (row.row.label, next((c for c in row.done if c.planned.fold == fold and keeps(c)), None))
            for row in self.rows
        ]

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
            seen[answer.hash] = _inspected(answer)
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


def _inspected(cell: Planned) -> Cell:
    """A trial as a report shows it: its numbers only where all its files are sound and agree with each other."""
    state, found = cell.trial.inspect(thorough=True)
    if state == "done":
        stale = tuple(cell.stale(found.recorded))
        made = Cell(
            cell, state, "", "", stale, has_digests=found.has_digests, changed=found.changed, result=found.result
        )
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


def _mean(values: Sequence[float | None]) -> float | None:
    """None where there is no value, or not every one."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def mean_ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> float:
    """Mean over columns of a metric's numerators over its denominators, in percent, without those whose denominator is 0."""
    there = bottom > 1e-12
    return float(100 * (top[there] / bottom[there]).mean()) if there.any() else 0.0


def relative(path: Path) -> str:
    """A trial's path as a report prints it: table folder and trial, no machine's path."""
    return str(Path(*path.parts[-2:]))
