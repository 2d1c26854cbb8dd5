"""Is a difference real? Paired, clustered bootstrap over images and seeds.

Expressions of one image are not independent, so images are drawn, with all their expressions; rows are compared on the same
draw, so what is hard for all of them cancels. With several seeds, seeds are drawn, too. All metrics here are ratios of sums
over images (a mean over expressions is a sum of IoUs over a count), so one matrix of draws serves every row and metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rislab.ablation.claims import Comparison
from rislab.ablation.table import Claim
from rislab.report.results import PerExpression, Results

Verdict = Literal["replicated", "contradicted", "inconclusive", "not run"]
DRAWS = 2000
LEVEL = 0.05


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
class Tested:
    """One comparison of a claim, turned so that a positive difference is what the paper says.

    difference: in percent points; low, high: 95 % bootstrap interval; p: two-sided, adjusted by Holm over the table.
    seeds: pairs of seeds behind it; needed: seeds that would decide an inconclusive one, None when one cannot tell.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int
    needed: int | None


@dataclass(frozen=True)
class Judged:
    claim: Claim
    verdict: Verdict
    tests: tuple[Tested, ...]
    why: str


def sums(table: PerExpression, metric: str, strict: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of a metric for every image, float64 [images] each, in order of image id."""
    _, image = np.unique(table.image_id, return_inverse=True)
    count = int(image.max()) + 1 if len(image) else 0

    def per_image(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(image, weights=values, minlength=count).astype(np.float64)

    if metric == "oiou":
        return per_image(table.intersection.astype(float)), per_image(table.union.astype(float))
    if metric == "miou_expr":
        return per_image(table.iou), per_image(np.ones(len(image)))
    threshold = np.float32(int(metric.partition("@")[2]) / 100)
    iou = table.iou.astype(np.float32)
    hits = iou > threshold if strict else iou >= threshold
    return per_image(hits.astype(float)), per_image(np.ones(len(image)))


class Bootstrap:
    """One set of draws for a whole table.

    images: how many the split has; seeds: how many are paired. Draws are fixed by the sizes, so that a report is the same
    each time it is made.
    """

    def __init__(self, images: int, seeds: int, draws: int = DRAWS) -> None:
        rng = np.random.default_rng([images, seeds])
        self.weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
        self.seeds = rng.integers(0, seeds, (draws, seeds)) if seeds > 1 else np.zeros((draws, 1), np.int64)

    def metric(self, numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
        """Percent, [draws, seeds], from sums [seeds, images]."""
        value: NDArray[np.float64] = (
            100 * (self.weights @ numerator.T) / np.maximum(self.weights @ denominator.T, 1e-12)
        )
        return value

    def over_seeds(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the drawn seeds: [draws, seeds] -> [draws]."""
        return np.take_along_axis(values, self.seeds, axis=1).mean(axis=1)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p values that may be compared with the level of the whole family."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p).tolist()):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def judge(results: Results) -> list[Judged]:
    """A verdict for every claim of the table."""
    split = results.profile.split
    raw: list[list[Tested] | str] = []
    loaded: dict[tuple[str, int], PerExpression | None] = {}
    boots: dict[tuple[int, int], Bootstrap] = {}

    def test(comparison: Comparison) -> Tested | str:
        rows = {term.row: results.row(term.row) for term in comparison.terms}
        absent = [name for name, row in rows.items() if row is None or not row.done]
        if absent:
            return f"no result for {', '.join(absent)}"
        done = [{cell.seed: cell for cell in row.done} for row in rows.values() if row is not None]
        seeds = sorted(set.intersection(*(set(cells) for cells in done)))
        if not seeds:
            return "the rows have no seed in common"
        tables: dict[str, list[PerExpression]] = {}
        for name, cells in zip(rows, done, strict=True):
            for seed in seeds:
                if (name, seed) not in loaded:
                    loaded[name, seed] = cells[seed].per_expression(split)
                table = loaded[name, seed]
                if table is None or not len(table.sent_id):
                    return f"{name}, seed {seed}: no scores of split {split!r}"
                tables.setdefault(name, []).append(table)
        reference = next(iter(tables.values()))[0].sent_id
        if any(not np.array_equal(t.sent_id, reference) for parts in tables.values() for t in parts):
            return "the rows were scored on different expressions"
        images = len(np.unique(next(iter(tables.values()))[0].image_id))
        boot = boots.setdefault((images, len(seeds)), Bootstrap(images, len(seeds)))
        drawn = np.full((DRAWS, len(seeds)), comparison.margin)
        measured = np.full(len(seeds), comparison.margin)
        for term in comparison.terms:
            pairs = [sums(t, term.metric) for t in tables[term.row]]
            top, bottom = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
            drawn += term.sign * boot.metric(top, bottom)
            measured += term.sign * 100 * top.sum(1) / np.maximum(bottom.sum(1), 1e-12)
        differences = boot.over_seeds(drawn)
        low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2])
        tail = min(float(np.mean(differences <= 0)), float(np.mean(differences >= 0)))
        p = min(1.0, 2 * max(tail, 1 / DRAWS))
        return Tested(float(measured.mean()), float(low), float(high), p, len(seeds), _needed(measured))

    for claim in results.table.claims:
        tests = [test(comparison) for comparison in claim.comparisons]
        problem = next((t for t in tests if isinstance(t, str)), None)
        raw.append(problem if problem is not None else [t for t in tests if isinstance(t, Tested)])

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


def _needed(per_seed: NDArray[np.float64]) -> int | None:
    """Seeds after which a normal interval of the mean difference would leave out 0, if it stays as large: (1.96 sd / mean)^2.

    A rough guide; it leaves the choice of images aside. None with one seed, and when more than 200 would be needed.
    """
    if len(per_seed) < 2 or not per_seed.mean():
        return None
    needed = int(np.ceil((1.96 * per_seed.std(ddof=1) / per_seed.mean()) ** 2))
    return max(2, needed) if needed <= 200 else None


def _why(tests: Sequence[Tested]) -> str:
    notes = []
    if min(t.seeds for t in tests) == 1:
        notes.append("one seed: the interval covers images only")
    open_ones = [t for t in tests if t.p >= LEVEL]
    if open_ones and all(t.seeds > 1 for t in open_ones):
        needed = [t.needed for t in open_ones]
        known = [n for n in needed if n is not None and n > tests[0].seeds]
        if any(n is None for n in needed):
            notes.append("more seeds are unlikely to decide it")
        elif known:
            notes.append(f"about {max(known)} seeds would decide it")
    return "; ".join(notes)
