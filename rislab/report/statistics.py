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

BORROW = (0.0, 0.1, 0.25, 0.6)
"""The pooled spread is used while the compared rows' own variance is at most this share of the other rows', by the degrees of
freedom of the compared rows; 1 from four on. With few a row of large spread looks like one of small spread too often."""


@dataclass(frozen=True)
class RowSpread:
    """A row of a comparison.

    Attributes:
        variance: between its seeds, of what is read of it.
        seeds: how many.
        pool: the spread pooled over all rows of the table.
        rest: over those that are not compared, if there are any.
    """

    variance: float
    seeds: int
    pool: SeedSpread
    rest: SeedSpread | None


def seed_variance(rows: Sequence[RowSpread]) -> Variance:
    """Variance of a weighted difference of rows' means, as far as seeds make it.

    The pooled spread has many degrees of freedom, and is wrong for rows that spread more than the others. So it is used only
    where the compared rows do not spread more than the rest; else, and where there is no rest, their own spread is.

    Args:
        rows: the compared rows that other seeds would change, with two seeds at least each.
    """
    if not rows:
        return NOTHING
    parts = [row.variance / row.seeds for row in rows]
    freedoms = [row.seeds - 1 for row in rows]
    rest = [row.rest.sd**2 / row.seeds for row in rows if row.rest is not None]
    if len(rest) == len(rows):
        alike = _welch([1 / row.seeds for row in rows], freedoms)
        enough = int(alike + 1e-9)
        share = BORROW[enough] if enough < len(BORROW) else 1.0
        if sum(parts) <= share * sum(rest):
            common = sum(row.pool.sd**2 / row.seeds for row in rows)
            return Variance(common, min(row.pool.freedom for row in rows)) if common > 0 else NOTHING
    if not sum(parts):
        return NOTHING
    # Welch's number is itself estimated, and too large where the row that spreads most seems not to. So each row in turn is
    # taken at the end of what its variance may be, and the least number counts.
    doubted = (
        _welch([part * (_most(freedom) if n == at else 1.0) for n, part in enumerate(parts)], freedoms)
        for at, freedom in enumerate(freedoms)
    )
    return Variance(sum(parts), min(doubted))


def total_error(images: Variance, seeds: Variance) -> Variance:
    """Both variances together. The degrees of freedom are the fewer of those with the seeds' variance as estimated, and at the
    end of what it may be: where few seeds agree by chance, the pictures' many degrees of freedom would count for too much."""
    plain = images + seeds
    doubted = images + Variance(seeds.value * _most(seeds.freedom), seeds.freedom)
    return Variance(plain.value, min(plain.freedom, doubted.freedom))


def _welch(parts: Sequence[float], freedoms: Sequence[int]) -> float:
    """Degrees of freedom of a sum of estimated variances (Welch, Satterthwaite)."""
    return sum(parts) ** 2 / sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))


def _most(freedom: float) -> float:
    """How many times its estimate a variance may be, at the upper end of a one-sided interval of 75 % (Wilson, Hilferty)."""
    part = 2 / (9 * freedom)
    return float((1 - part - NormalDist().inv_cdf(0.75) * math.sqrt(part)) ** -3)


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

    Args:
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
    """The t that Student's t exceeds, on either side, with probability `level`.

    Abramowitz and Stegun 26.7.5 for many degrees of freedom; for few it is where Newton's method starts, on log p over log t.
    """
    z = NormalDist().inv_cdf(1 - level / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    if freedom > 500:
        return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
    u = math.log(z + sum(term / freedom**power for power, term in enumerate(terms[: 1 + (freedom > 10) * 3], 1)))
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    for _ in range(100):
        t = math.exp(u)
        p = two_sided(t, freedom)
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (math.log(p) - math.log(level)) * p / (2 * density * t)
        u += max(-2.0, min(2.0, step))
        if abs(step) < 1e-9:
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
        if abs(c * d - 1) < 1e-13:
            break
    return value
