"""The arithmetic of a comparison, against scipy, statsmodels and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from rislab.evaluation.arithmetic import ClassArithmetic, ExpressionArithmetic
from rislab.metrics.protocols import Protocol
from rislab.report.results import Counts
from rislab.report.statistics import (
    NOTHING,
    RowSpread,
    SeedSpread,
    Sums,
    Variance,
    _most,
    critical,
    holm,
    image_variance,
    pooled,
    seed_variance,
    total_error,
    two_sided,
)


def table_of(rng: np.random.Generator, images: int, per_image: int = 3) -> Counts:
    image = np.arange(images).repeat(rng.integers(1, 2 * per_image, images) if per_image > 1 else 1)
    union = rng.integers(50, 500, len(image))
    easy = rng.random(images)[image]
    intersection = (union * (0.7 * easy + 0.3 * rng.random(len(image)))).astype(np.int64)
    ids = np.arange(len(image))
    counts = {"intersection": intersection, "union": union, "target": union, "prediction": union, "no_target": 0 * ids}
    table = {"sent_id": ids, "ref_id": ids, "image_id": image, **counts}
    return Counts(table, ExpressionArithmetic(Protocol.cris.convention))


def column(scores: Counts, name: str) -> np.ndarray:
    return scores.table["intersection"] / scores.table["union"] if name == "iou" else scores.table[name]


def value_of(table: Counts, metric: str, at: np.ndarray) -> float:
    """A metric of some expressions, by its definition."""
    return (
        100
        * {
            "miou_expr": column(table, "iou")[at].mean(),
            "oiou": column(table, "intersection")[at].sum() / column(table, "union")[at].sum(),
            "pr@50": (column(table, "iou")[at] > 0.5).mean(),
        }[metric]
    )


@pytest.mark.parametrize("metric", ["miou_expr", "oiou", "pr@50"])
def test_sums_give_the_metric_with_and_without_each_picture(metric: str) -> None:
    table = table_of(np.random.default_rng(1), 25)
    image, sums = table.table["image_id"], Sums(*table.parts(metric))
    assert sums.percent == pytest.approx(value_of(table, metric, np.arange(len(image))), abs=1e-4)
    slow = [value_of(table, metric, np.flatnonzero(image != i)) for i in range(25)]
    assert sums.without_each() == pytest.approx(slow, abs=1e-4)


def test_the_error_from_pictures_is_that_of_the_paired_t_test_for_one_expression_a_picture() -> None:
    rng = np.random.default_rng(2)
    one, other = table_of(rng, 40, per_image=1), table_of(rng, 40, per_image=1)
    sums = [Sums(*table.parts("miou_expr")) for table in (one, other)]
    error = image_variance(sums[0].without_each() - sums[1].without_each())
    difference = sums[0].percent - sums[1].percent
    reference = stats.ttest_rel(*(column(table, "iou") for table in (one, other)))
    assert error.freedom == 39
    assert two_sided(difference / math.sqrt(error.value), error.freedom) == pytest.approx(reference.pvalue, rel=1e-4)


def test_the_error_from_pictures_is_that_of_clusters() -> None:
    """Of a mean over expressions, pictures having one to five: statsmodels' cluster-robust standard error."""
    table = table_of(np.random.default_rng(3), 200)
    iou = 100 * column(table, "iou")
    fitted = OLS(iou, np.ones(len(iou))).fit(cov_type="cluster", cov_kwds={"groups": table.table["image_id"]})
    error = image_variance(Sums(*table.parts("miou_expr")).without_each())
    assert math.sqrt(error.value) == pytest.approx(float(fitted.bse[0]), rel=0.02)


@pytest.mark.parametrize("metric", ["miou_expr", "oiou", "pr@50"])
def test_the_error_from_pictures_is_that_of_drawing_them_again(metric: str) -> None:
    table = table_of(np.random.default_rng(4), 120)
    top, bottom = (part[:, 0] for part in table.parts(metric))
    again = stats.bootstrap(
        (top, bottom),
        lambda t, b, axis: 100 * t.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    error = image_variance(Sums(*table.parts(metric)).without_each())
    assert math.sqrt(error.value) == pytest.approx(again.standard_error, rel=0.06)


def test_classes_are_averaged_without_each_picture() -> None:
    """Mean IoU over classes against a loop; a class that only the picture left out has is left out, too."""
    rng = np.random.default_rng(7)
    rows = [(i, c, *rng.integers(1, 9, 3)) for i in range(20) for c in range(4) if rng.random() < 0.6 or c == 0]
    rows += [(19, 4, 3, 1, 1)]
    image, c, hits, more, missed = np.array(rows).T
    counts = {"image_id": image, "class": c, "intersection": hits, "prediction": hits + more, "target": hits + missed}
    sums = Sums(*Counts(counts, ClassArithmetic()).parts("miou_class"))

    def mean(at: np.ndarray) -> float:
        each = [at & (c == k) for k in range(5)]
        return 100 * float(np.mean([hits[e].sum() / (hits + more + missed)[e].sum() for e in each if e.any()]))

    assert sums.percent == pytest.approx(mean(np.full(len(c), True)))
    assert sums.without_each() == pytest.approx([mean(image != i) for i in range(20)])


def test_pooled_spread() -> None:
    assert pooled([[1.0, 3.0], [5.0, 5.0], [9.0]]) == SeedSpread(1.0, 2)
    assert pooled([[1.0], [2.0], []]) is None


def test_sums_of_variances_have_satterthwaites_freedom() -> None:
    total = Variance(2.0, 4) + Variance(1.0, 10)
    assert (total.value, total.freedom) == (3.0, pytest.approx(9 / (4 / 4 + 1 / 10)))
    assert Variance(2.0, 4) + NOTHING == Variance(2.0, 4)


UNIT = SeedSpread(1.0, 14)


def row(variance: float, seeds: int, rest: SeedSpread | None = UNIT) -> RowSpread:
    return RowSpread(variance, seeds, SeedSpread(1.1, 18), rest)


def test_few_seeds_are_doubted_beside_many_pictures() -> None:
    images, seeds = Variance(1.0, 100), Variance(1.0, 2)
    both = total_error(images, seeds)
    assert both.value == 2.0
    assert 2 < both.freedom < (images + seeds).freedom
    assert total_error(images, NOTHING) == images


def test_rows_that_spread_as_the_others_are_compared_with_the_pooled_spread() -> None:
    found = seed_variance([row(1.05, 3), row(0.9, 3)])
    assert (found.value, found.freedom) == (pytest.approx(1.1**2 * 2 / 3), 18)


def test_rows_that_spread_more_are_compared_by_welch() -> None:
    """The variance is Welch's; its degrees of freedom are fewer, but not below the smaller row's."""
    rng = np.random.default_rng(5)
    one, other = rng.normal(0, 8, 3), rng.normal(0, 3, 5)
    reference = stats.ttest_ind(one, other, equal_var=False)
    for rest in (UNIT, None):
        found = seed_variance([row(float(np.var(v, ddof=1)), len(v), rest) for v in (one, other)])
        assert (one.mean() - other.mean()) / math.sqrt(found.value) == pytest.approx(reference.statistic)
        assert 2 <= found.freedom < reference.df


def test_a_single_row_has_its_own_degrees_of_freedom() -> None:
    assert seed_variance([row(9.0, 4)]) == Variance(9 / 4, 3)


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.25), (3, 1.0)])
def test_few_seeds_make_the_pooled_spread_rarer(seeds: int, share: float) -> None:
    below, above = ([row(share * factor, seeds)] * 2 for factor in (0.99, 1.01))
    assert seed_variance(below).freedom == 18
    assert seed_variance(above).freedom < 18
    assert seed_variance([]) == NOTHING
    assert seed_variance([row(0.0, 3, None)] * 2) == NOTHING


@pytest.mark.parametrize("freedom", [1, 2, 4, 9])
def test_how_far_a_variance_may_be_off(freedom: int) -> None:
    assert _most(freedom) == pytest.approx(freedom / stats.chi2.ppf(0.25, freedom), rel=0.05)


@given(st.floats(1e-3, 60), st.floats(1, 5000))
def test_students_t_is_scipys(t: float, freedom: float) -> None:
    wanted = 2 * stats.t.sf(t, freedom)
    assert two_sided(t, freedom) == pytest.approx(wanted, rel=1e-8, abs=1e-300)
    assert two_sided(-t, freedom) == two_sided(t, freedom)


@given(st.floats(1e-8, 0.9), st.floats(1, 5000))
def test_critical_values_are_scipys(level: float, freedom: float) -> None:
    assert critical(level, freedom) == pytest.approx(stats.t.isf(level / 2, freedom), rel=1e-7)


def test_certainty_and_many_degrees_of_freedom() -> None:
    assert two_sided(math.inf, 3) == 0.0
    assert two_sided(0.0, 3) == 1.0
    assert two_sided(1.96, math.inf) == pytest.approx(2 * stats.norm.sf(1.96))
    assert critical(0.05, math.inf) == pytest.approx(stats.norm.isf(0.025))


def test_holm_is_statsmodels_with_what_has_not_been_run_at_its_largest() -> None:
    rng = np.random.default_rng(6)
    for more in (0, 5):
        p = (rng.random(rng.integers(1, 13)) ** 3).round(3).tolist()  # some are equal
        wanted = multipletests(p + [1.0] * more, method="holm")[1][: len(p)]
        assert holm(p, len(p) + more) == pytest.approx(wanted.tolist())


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01], family=6) == pytest.approx([0.06])
    assert holm([]) == []
