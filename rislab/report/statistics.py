"""Is a difference real? Paired, clustered bootstrap over images, with what seeds add.

Expressions of one image are not independent, so images are drawn, with all their expressions; rows are compared on the same
draw, so what is hard for all of them cancels. All metrics here are ratios of sums over images (a mean over expressions is a
sum of IoUs over a count), so one matrix of draws serves every row and metric.

Seeds are few. Drawing three of them with replacement gives intervals that miss the truth in one table of five, where one in
twenty was promised (`test_three_seeds_promise_what_they_keep`). So their part is not drawn from themselves: the spread between
seeds is pooled over all rows of the table, which makes it known to many degrees of freedom, and each draw of images gets an
error of a mean over seeds from Student's t. This takes rows to spread alike, and counts nothing for sharing a seed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rislab.ablation.claims import Comparison
from rislab.ablation.table import Claim
from rislab.report.results import Cell, PerClass, PerExpression, Results

Verdict = Literal["replicated", "contradicted", "inconclusive", "not run"]
DRAWS = 2000
LEVEL = 0.05
MOST_SEEDS = 200
"""Nobody runs more; a difference that needs them is not decided by seeds."""


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, sample standard deviation (None for one seed), and how many."""

    mean: float
    sd: float | None
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class SeedSpread:
    """Standard deviation between the seeds of a row, pooled over rows, and its degrees of freedom."""

    sd: float
    freedom: int


def pooled(rows: Iterable[Sequence[float]]) -> SeedSpread | None:
    """From each row's values, one a seed. None when no row has two."""
    repeated = [np.asarray(values) for values in rows if len(values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return None
    return SeedSpread(math.sqrt(sum(float(((v - v.mean()) ** 2).sum()) for v in repeated) / freedom), freedom)


@dataclass(frozen=True)
class Tested:
    """One comparison of a claim, turned so that a positive difference is what the paper says.

    difference: in percent points; low, high: 95 % interval; p: two-sided, adjusted by Holm over the table.
    seeds: how many the rows have in common; covers_seeds: whether the interval says anything about other seeds.
    needed: seeds that would decide an inconclusive one; None when more seeds would hardly do, or when there is one only.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int
    covers_seeds: bool
    needed: int | None


@dataclass(frozen=True)
class Judged:
    claim: Claim
    verdict: Verdict
    tests: tuple[Tested, ...]
    why: str


@dataclass(frozen=True)
class Sums:
    """A metric's numerators and denominators for every image, float64 [images, K], in order of image id.

    The metric is the mean over the K columns of sum / sum, in percent, without columns whose denominator is 0: one column for
    averages over expressions, one a class for those over classes.
    """

    top: NDArray[np.float64]
    bottom: NDArray[np.float64]

    @property
    def percent(self) -> float:
        return float(_mean_ratio(self.top.sum(0), self.bottom.sum(0)))


def _mean_ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., K] and [..., K] -> percent [...]."""
    there = bottom > 1e-12
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=there)
    mean: NDArray[np.float64] = 100 * ratio.sum(-1) / np.maximum(there.sum(-1), 1)
    return mean


class Bootstrap:
    """One set of draws for a whole table; fixed by the sizes, so that a report is the same each time it is made."""

    def __init__(self, images: int, draws: int = DRAWS) -> None:
        self.rng_key = [images, draws]
        rng = np.random.default_rng(self.rng_key)
        self.weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)

    def percent(self, each: Sequence[Sums]) -> NDArray[np.float64]:
        """A metric on every draw of images, meaned over the seeds in `each`: [draws]."""
        drawn = [_mean_ratio(self.weights @ s.top, self.weights @ s.bottom) for s in each]
        mean: NDArray[np.float64] = np.mean(drawn, axis=0)
        return mean

    def seed_errors(self, freedom: int) -> NDArray[np.float64]:
        """Errors of a mean over seeds, in units of its standard error: [draws]."""
        return np.random.default_rng([*self.rng_key, freedom]).standard_t(freedom, len(self.weights))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p values that may be compared with the level of the whole family."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p).tolist()):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def seeds_needed(difference: float, seed_variance: float, image_variance: float, family: int) -> int | None:
    """Seeds at which a normal interval around `difference`, should it stay as large, leaves out 0.

    seed_variance: of the difference of one seed; image_variance: of the mean difference, from the choice of images, which no
    seed makes smaller; family: comparisons that share the level. A rough guide. None when MOST_SEEDS would not do.
    """
    allowed = (difference / NormalDist().inv_cdf(1 - LEVEL / 2 / family)) ** 2 - image_variance
    if allowed <= 0 or seed_variance / allowed > MOST_SEEDS:
        return None
    return math.ceil(seed_variance / allowed)


class NoEvidenceError(Exception):
    """Why a comparison could not be made, for the report."""


class _Evidence:
    """The scores behind a table's claims, each file read once."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.split = results.profile.split
        self.family = sum(len(claim.comparisons) for claim in results.table.claims)
        # Holm multiplies the smallest p that can be seen, 2 / draws, by the family: more claims need more draws.
        self.draws = max(DRAWS, 200 * self.family)
        self._tables: dict[str, PerExpression | PerClass] = {}
        self._sums: dict[tuple[str, str], Sums] = {}
        self._boots: dict[int, Bootstrap] = {}

    def test(self, comparison: Comparison) -> Tested:
        """Raises NoEvidenceError."""
        cells = self._paired(sorted({term.row for term in comparison.terms}))
        seeds = len(next(iter(cells.values())))
        weights: dict[tuple[str, str], int] = {}
        for term in comparison.terms:
            weights[term.row, term.metric] = weights.get((term.row, term.metric), 0) + term.sign
        parts = {(row, metric): [self._sums_of(cell, metric) for cell in cells[row]] for row, metric in weights}
        images = len(next(iter(parts.values()))[0].top)
        boot = self._boots.setdefault(images, Bootstrap(images, self.draws))
        drawn = np.full(self.draws, comparison.margin)
        difference = comparison.margin
        for key, sign in weights.items():
            drawn += sign * boot.percent(parts[key])
            difference += sign * float(np.mean([s.percent for s in parts[key]]))
        image_variance = float(drawn.var())

        spreads = {metric: self._seed_spread(metric) for _, metric in weights}
        known = {metric: s for metric, s in spreads.items() if s is not None}
        covers_seeds = len(known) == len(spreads)
        seed_variance = sum(w**2 * known[m].sd ** 2 for (_, m), w in weights.items()) if covers_seeds else 0.0
        if covers_seeds:
            drawn += math.sqrt(seed_variance / seeds) * boot.seed_errors(min(s.freedom for s in known.values()))
        low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
        tail = min(float(np.mean(drawn <= 0)), float(np.mean(drawn >= 0)))
        return Tested(
            difference,
            float(low),
            float(high),
            min(1.0, 2 * max(tail, 1 / self.draws)),
            seeds,
            covers_seeds,
            seeds_needed(difference, seed_variance, image_variance, self.family) if covers_seeds else None,
        )

    def _paired(self, rows: Sequence[str]) -> dict[str, list[Cell]]:
        """Finished cells of the rows, for the seeds that all of them have."""
        done = {name: {c.seed: c for c in row.done} for name in rows if (row := self.results.row(name)) is not None}
        absent = [name for name in rows if not done.get(name)]
        if absent:
            raise NoEvidenceError(f"no result for {', '.join(absent)}")
        seeds = sorted(set.intersection(*(set(cells) for cells in done.values())))
        if not seeds:
            raise NoEvidenceError("the rows have no seed in common")
        paired = {name: [cells[seed] for seed in seeds] for name, cells in done.items()}
        tables = [self._table(cell) for cells in paired.values() for cell in cells]
        if any(not np.array_equal(table.units, tables[0].units) for table in tables):
            raise NoEvidenceError("the rows were scored on different expressions or pictures")
        return paired

    def _table(self, cell: Cell) -> PerExpression | PerClass:
        if cell.planned.name not in self._tables:
            table = cell.evidence(self.split)
            if table is None or not len(table.units):
                raise NoEvidenceError(f"{cell.planned.name}: no readable scores of split {self.split!r}")
            self._tables[cell.planned.name] = table
        return self._tables[cell.planned.name]

    def _sums_of(self, cell: Cell, metric: str) -> Sums:
        cell, metric = cell.of(metric)
        key = (cell.planned.name, metric)
        if key not in self._sums:
            found = Sums(*self._table(cell).parts(metric))
            reported = cell.value(self.split, metric)
            if reported is not None and abs(found.percent - reported) > 0.005:
                raise NoEvidenceError(
                    f"{cell.planned.name}: {metric} is {reported:.2f} in metrics.json, {found.percent:.2f} in scores.parquet"
                )
            self._sums[key] = found
        return self._sums[key]

    def _seed_spread(self, metric: str) -> SeedSpread | None:
        # Rows that resolve to one config share their trials, which count once.
        rows = {tuple(cell.planned.hash for cell in row.done): row for row in self.results.rows}
        return pooled([row.values(self.split, metric) for row in rows.values()])


def judge(results: Results) -> list[Judged]:
    """A verdict for every claim of the table."""
    evidence = _Evidence(results)
    raw: list[list[Tested] | str] = []
    for claim in results.table.claims:
        try:
            raw.append([evidence.test(comparison) for comparison in claim.comparisons])
        except NoEvidenceError as problem:
            raw.append(str(problem))
    everything = [t for tests in raw if not isinstance(tests, str) for t in tests]
    adjusted = iter(holm([t.p for t in everything]))
    judged = []
    for claim, outcome in zip(results.table.claims, raw, strict=True):
        if isinstance(outcome, str):
            judged.append(Judged(claim, "not run", (), outcome))
            continue
        final = tuple(replace(tested, p=next(adjusted)) for tested in outcome)
        judged.append(Judged(claim, _verdict(final), final, _why(final)))
    return judged


def _verdict(tests: Sequence[Tested]) -> Verdict:
    if any(t.p < LEVEL and t.difference < 0 for t in tests):
        return "contradicted"
    if all(t.p < LEVEL and t.difference > 0 for t in tests):
        return "replicated"
    return "inconclusive"


def _why(tests: Sequence[Tested]) -> str:
    """What a reader must know beside the numbers."""
    notes = []
    if not all(t.covers_seeds for t in tests):
        notes.append("one seed: the interval covers images only")
    undecided = [t for t in tests if t.p >= LEVEL and t.covers_seeds]
    if undecided and _verdict(tests) == "inconclusive":
        if any(t.needed is None for t in undecided):
            notes.append("more seeds would hardly decide it: the difference is too small for this many images")
        else:
            most = max(max(t.needed or 0, t.seeds + 1) for t in undecided)
            notes.append(f"about {most} seeds would decide it, if difference and spread stay")
    return "; ".join(notes)
