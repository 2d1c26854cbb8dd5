"""The scores behind a table's comparisons: which trials are read, each file once, each trial once."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from rislab.ablation import signature
from rislab.ablation.claims import Comparison
from rislab.report.results import Cell, Counts, Results, RowResult
from rislab.report.statistics import (
    RowSpread,
    SeedSpread,
    Sums,
    Variance,
    image_variance,
    pooled,
    seed_variance,
)

Weights = tuple[tuple[str, int], ...]
"""What a comparison takes of one row: metrics, each with its sign and count."""


class NoEvidenceError(Exception):
    """Why a comparison could not be made, for the report."""


@dataclass(frozen=True)
class Measurement:
    """A comparison's difference and what is known of its error.

    Attributes:
        difference: in percent points, turned so that a larger one is what the claim says.
        images: variance from the choice of pictures.
        pictures: how many there are.
        seeds: variance from the choice of seeds; None when a trained row has one seed only.
        least: seeds of the trained row that has fewest; None when no row is trained.
    """

    difference: float
    images: Variance
    pictures: int
    seeds: Variance | None
    least: int | None


@dataclass(frozen=True)
class _Group:
    """Trials of one row, and what is read of them.

    Attributes:
        trials: Of each seed, its trials: one, or one a fold.
        values: Of each seed, the mean over its trials.
    """

    weights: Weights
    trials: tuple[tuple[Cell, ...], ...]
    values: tuple[float, ...]

    @property
    def cells(self) -> list[Cell]:
        return [cell for cells in self.trials for cell in cells]

    @property
    def varies(self) -> bool:
        """Whether other seeds could give other values: not where nothing is trained and all seeds agree."""
        return any(is_trained(cell) for cell in self.cells) or max(self.values) - min(self.values) > 1e-9


def is_trained(cell: Cell) -> bool:
    """Whether a trial trains anything, by what its method declares."""
    model = cell.planned.config["model"]
    return not signature.trains_nothing(model["class_path"], model.get("init_args") or {})


class Evidence:
    """The scores of a table's rows on the split that its profile reports."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.split = results.profile.split
        self._tables: dict[str, Counts] = {}
        self._sums: dict[tuple[str, str], tuple[float, NDArray[np.float64]]] = {}
        self._pools: dict[tuple[Weights, frozenset[tuple[str, ...]]], SeedSpread | None] = {}

    def measure(self, comparison: Comparison) -> Measurement:
        """Raises NoEvidenceError."""
        groups = self._groups(comparison)
        if not groups:  # the same trials on both sides
            return Measurement(0.0, Variance(0.0, math.inf), 0, Variance(0.0, math.inf), None)
        folds = len(groups[0].trials[0])
        measured = [self._measure_fold(groups, fold) for fold in range(folds)]
        difference = sum(each for each, _, _ in measured) / folds
        # Folds have classes and pictures of their own, so that the variances of their differences add up.
        images = reduce(add, [Variance(each.value / folds**2, each.freedom) for _, each, _ in measured])
        pictures = sum(count for _, _, count in measured)
        trained = [group for group in groups if group.varies]
        least = min((len(group.trials) for group in trained), default=None)
        seeds = None if least == 1 else self._seed_variance(trained)
        return Measurement(difference, images, pictures, seeds, least)

    def _measure_fold(self, groups: Sequence[_Group], fold: int) -> tuple[float, Variance, int]:
        """(difference, its variance from the choice of pictures, number of pictures) of a fold, the only one without folds."""
        read = [cell for group in groups for trials in group.trials for cell in _read(group.weights, trials[fold])]
        first = self._table(read[0])
        is_dealt = any(_deals_sentences_out(cell) for cell in read)
        if any(not _same(self._table(cell), first, is_dealt) for cell in read[1:]):
            raise NoEvidenceError("the rows were scored on different expressions or pictures")
        difference = 0.0
        without: NDArray[np.float64] | float = 0.0
        for group in groups:
            for trials in group.trials:
                for metric, weight in group.weights:
                    whole, each = self._scores(trials[fold], metric)
                    difference += weight * whole / len(group.trials)
                    without = without + weight * each / len(group.trials)
        assert isinstance(without, np.ndarray)
        if len(without) < 2:
            raise NoEvidenceError("one picture says nothing about others")
        return difference, image_variance(without), len(without)

    def _seed_variance(self, trained: list[_Group]) -> Variance:
        compared = frozenset(_hashes(group) for group in trained)
        rows = []
        for group in trained:
            pool, rest = self.pool(group.weights), self.pool(group.weights, compared)
            assert pool is not None, "the compared rows are in it"
            rows.append(RowSpread(float(np.var(group.values, ddof=1)), len(group.values), pool, rest))
        return seed_variance(rows)

    def pool(self, weights: Weights, without: frozenset[tuple[str, ...]] = frozenset()) -> SeedSpread | None:
        """Spread between seeds of these metrics, pooled over the trained rows of the table; each trial counts once.

        Args:
            without: trials of rows that are left out.
        """
        key = (weights, without)
        if key not in self._pools:
            groups: dict[tuple[str, ...], _Group] = {}
            for row in self.results.rows:
                group = self._group(row, weights)
                if group is not None and group.varies and _hashes(group) not in without:
                    groups.setdefault(_hashes(group), group)
            self._pools[key] = pooled(group.values for group in groups.values())
        return self._pools[key]

    def spread_ratio(self, row: RowResult, metric: str) -> float | None:
        """A row's standard deviation between seeds over the pooled one; None for one seed and for rows that train nothing."""
        group, pool = self._group(row, ((metric, 1),)), self.pool(((metric, 1),))
        if group is None or not group.varies or len(group.values) < 2 or pool is None or not pool.sd:
            return None
        return float(np.std(group.values, ddof=1)) / pool.sd

    def _groups(self, comparison: Comparison) -> list[_Group]:
        """What is compared, a group a row; rows that are one and the same trials are one, and cancel where they can."""
        by_row: dict[str, Counter[str]] = {}
        for term in comparison.terms:
            by_row.setdefault(term.row, Counter())[term.metric] += term.sign
        merged: dict[tuple[str, ...], tuple[RowResult, Counter[str]]] = {}
        for name, counted in by_row.items():
            row = self.results.row(name)
            group = self._group(row, _weights(dict.fromkeys(counted, 1))) if row is not None else None
            if row is None or group is None:
                raise NoEvidenceError(self._why_absent(name, row, counted))
            _, total = merged.setdefault(_hashes(group), (row, Counter()))
            for metric, weight in counted.items():
                total[metric] += weight
        found = []
        for row, total in merged.values():
            weights = _weights({metric: weight for metric, weight in total.items() if weight})
            group = self._group(row, weights) if weights else None
            if group is not None:
                found.append(group)
        return found

    def _why_absent(self, name: str, row: RowResult | None, metrics: Mapping[str, int]) -> str:
        if row is None or not any(
            cell.state == "done" for last in row.cells for cell in (last, *last.earlier.values())
        ):
            return f"no result for {name}"
        return f"no result for {name}: {', '.join(metrics)}, split {self.split!r}"

    def _group(self, row: RowResult, weights: Weights) -> _Group | None:
        """The row's seeds of which all trials measured all of the metrics; None when there are none."""
        trials, values = [], []
        for cells in row.by_seed:
            parts = [(weight, cell.value(self.split, metric)) for cell in cells for metric, weight in weights]
            known = [(weight, value) for weight, value in parts if value is not None]
            if len(known) == len(parts):
                trials.append(cells)
                values.append(math.fsum(weight * value for weight, value in known) / len(cells))
        return _Group(weights, tuple(trials), tuple(values)) if trials else None

    def _table(self, cell: Cell) -> Counts:
        key = cell.planned.hash
        if key not in self._tables:
            split = self._split_of(cell)
            table = cell.evidence(split)
            if table is None or not len(table.units):
                raise NoEvidenceError(f"{cell.planned.name}: no readable scores of split {split!r}")
            self._tables[key] = table
        return self._tables[key]

    def _split_of(self, cell: Cell) -> str:
        """The split that the table shows of a trial's stage."""
        return cell.planned.split or self.split

    def _scores(self, cell: Cell, metric: str) -> tuple[float, NDArray[np.float64]]:
        """(the metric, the metric without each picture)."""
        stage, bare = cell.of(metric)
        assert stage is not None
        key = (stage.planned.hash, bare)
        if key not in self._sums:
            sums = Sums(*self._table(stage).parts(bare))
            whole, reported = sums.percent, stage.value(self._split_of(stage), bare)
            if reported is not None and abs(whole - reported) > 0.005:
                raise NoEvidenceError(
                    f"{stage.planned.name}: {bare} is {reported:.2f} in metrics.json, {whole:.2f} in scores.parquet"
                )
            self._sums[key] = whole, sums.without_each()
        return self._sums[key]


def _weights(counted: Mapping[str, int]) -> Weights:
    return tuple(sorted(counted.items()))


def _read(weights: Weights, cell: Cell) -> list[Cell]:
    """The stages of a trial's chain that metrics name."""
    return [stage for metric, _ in weights if (stage := cell.of(metric)[0]) is not None]


def _hashes(group: _Group) -> tuple[str, ...]:
    """The trials whose numbers a group reads: of the stages that its metrics name."""
    read = (each for cell in group.cells for each in _read(group.weights, cell))
    return tuple(dict.fromkeys(cell.planned.hash for cell in read))


def _deals_sentences_out(cell: Cell) -> bool:
    """Whether a trial is the level of guessing: each sentence belongs to another reference, maybe of another picture."""
    return bool(cell.planned.config["data"].get("init_args", {}).get("shuffle_sentences"))


def _same(table: Counts, other: Counts, is_dealt: bool) -> bool:
    """Whether two rows can be compared picture by picture: the same expressions of the same pictures.

    Args:
        is_dealt: Whether one of them deals the sentences out to other pictures: then each has to have them all, and the pictures.
    """
    if is_dealt:
        alike = (
            np.array_equal(np.unique(a), np.unique(b))
            for a, b in ((table.units, other.units), (table.pictures, other.pictures))
        )
        return all(alike)
    return np.array_equal(table.units, other.units) and np.array_equal(table.pictures, other.pictures)
