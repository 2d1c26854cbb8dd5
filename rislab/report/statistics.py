"""Arithmetic of a comparison: spread between seeds, error from the choice of pictures, Student's t, Holm's adjustment.

Nothing here reads a file. How the parts make a verdict is written in docs/conventions.md ("Verdicts").
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


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
class Variance:
    """An estimated variance and its degrees of freedom (Satterthwaite's for sums; infinite for a variance of 0)."""

    value: float
    freedom: float

    def __add__(self, other: "Variance") -> "Variance":
        total = self.value + other.value
        parts = [part.value**2 / part.freedom for part in (self, other) if part.value > 0]
        return Variance(total, total**2 / sum(parts) if parts and sum(parts) > 0 else math.inf)


NOTHING = Variance(0.0, math.inf)

LEAST_SHARE = (0.0, 0.15, 0.4, 0.7)
"""The pooled spread is used while the compared rows' own variance is at most this share of it, by their degrees of freedom;
1 from four on. With few of them a row of large spread looks like one of small spread too often."""

CAUTION = 0.8
"""Share of Welch's degrees of freedom above the least of one row that is counted: Welch's number is itself estimated, and is
too large too often when one of two rows spreads much more."""


@dataclass(frozen=True)
class RowSpread:
    """A row of a comparison: variance between its seeds, and how many seeds; the row's weight is in the values."""

    variance: float
    seeds: int


def seed_variance(rows: Sequence[RowSpread], pool: Sequence[SeedSpread]) -> Variance:
    """Variance of a weighted difference of rows' means, as far as seeds make it.

    The pooled spread has many degrees of freedom, and is wrong for rows that spread more than the others. So it is used only
    where the compared rows do not spread more than it says; else their own spread is, with Welch's degrees of freedom.

    Args:
        rows: the rows with more than one possible value, at least two seeds each.
        pool: what the table's rows say of each of them, in the same order.
    """
    if not rows:
        return NOTHING
    freedoms = [row.seeds - 1 for row in rows]
    parts = [row.variance / row.seeds for row in rows]
    own = sum(parts)
    common = sum(p.sd**2 / row.seeds for p, row in zip(pool, rows, strict=True))
    enough = sum(freedoms)
    share = LEAST_SHARE[enough] if enough < len(LEAST_SHARE) else 1.0
    if own <= share * common:
        return Variance(common, min(p.freedom for p in pool)) if common > 0 else NOTHING
    welch = own**2 / sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    least = min(freedoms)
    return Variance(own, least + CAUTION * (welch - least))


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

    def without_each(self) -> NDArray[np.float64]:
        """The metric without one image, for each image: [images]."""
        return _mean_ratio(self.top.sum(0) - self.top, self.bottom.sum(0) - self.bottom)


def _mean_ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., K] and [..., K] -> percent [...]."""
    there = bottom > 1e-12
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=there)
    mean: NDArray[np.float64] = 100 * ratio.sum(-1) / np.maximum(there.sum(-1), 1)
    return mean


def image_variance(without_each: NDArray[np.float64]) -> Variance:
    """The jackknife's variance of a difference, from its value without each image, [images].

    Expressions of one image are not independent, so images are left out, with all their expressions; rows are compared on the
    same images, so what is hard for all of them cancels. For a plain mean this is the paired t test's variance.
    """
    images = len(without_each)
    centred = without_each - without_each.mean()
    return Variance((images - 1) / images * float(centred @ centred), images - 1)


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Holm's step-down adjustment: p values that may be compared with the level of the whole family.

    family: size of the family, where some of its members have no p yet; they count as the largest.
    """
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable").tolist()):
        highest = max(highest, min(1.0, ((family or len(p)) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def two_sided(t: float, freedom: float) -> float:
    """Probability that Student's t lies further from 0 than `t`."""
    t = abs(t)
    if math.isinf(t):
        return 0.0
    if freedom > 1e6:
        return math.erfc(t / math.sqrt(2))
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


@lru_cache(maxsize=4096)
def critical(level: float, freedom: float) -> float:
    """The t that Student's t exceeds, on either side, with probability `level`. Newton's method on log p over log t."""
    u = math.log(NormalDist().inv_cdf(1 - level / 2))
    if freedom > 1e6:
        return math.exp(u)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    for _ in range(100):
        t = math.exp(u)
        p = two_sided(t, freedom)
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (math.log(p) - math.log(level)) * p / (2 * density * t)
        u += max(-2.0, min(2.0, step))
        if abs(step) < 1e-13:
            break
    return math.exp(u)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
