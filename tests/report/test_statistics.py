"""The statistics of a report, against brute force and against what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rislab.metrics.protocols import Protocol
from rislab.report.results import PerClass, PerExpression
from rislab.report.statistics import Bootstrap, SeedSpread, Sums, holm, pooled, seeds_needed


def table_of(rng: np.random.Generator, images: int) -> PerExpression:
    image = np.sort(rng.integers(0, images, images * 3))
    union = rng.integers(50, 500, len(image))
    intersection = (union * rng.random(len(image))).astype(np.int64)
    ids = np.arange(len(image))
    counts = {"intersection": intersection, "union": union, "target": union, "prediction": union, "no_target": 0 * ids}
    return PerExpression({"sent_id": ids, "ref_id": ids, "image_id": image, **counts}, Protocol.cris.convention)


def column(scores: PerExpression, name: str) -> np.ndarray:
    return scores.table["intersection"] / scores.table["union"] if name == "iou" else scores.table[name]


def test_sums_give_the_metrics_of_the_definition() -> None:
    table = table_of(np.random.default_rng(0), 12)
    for metric, wanted in (
        ("miou_expr", column(table, "iou").mean()),
        ("oiou", column(table, "intersection").sum() / column(table, "union").sum()),
        ("pr@70", (column(table, "iou") > 0.7).mean()),
    ):
        assert Sums(*table.parts(metric)).percent == pytest.approx(100 * wanted)


@pytest.mark.parametrize("metric", ["miou_expr", "oiou", "pr@50"])
def test_bootstrap_is_that_of_images_drawn_one_by_one(metric: str) -> None:
    """The matrix form against a loop that draws images and gathers their expressions."""
    table = table_of(np.random.default_rng(1), 25)
    groups = [np.flatnonzero(table.table["image_id"] == i) for i in np.unique(table.table["image_id"])]
    fast = Bootstrap(len(groups)).percent([Sums(*table.parts(metric))])
    rng = np.random.default_rng(5)
    slow = []
    for _ in range(2000):
        at = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        value = {
            "miou_expr": column(table, "iou")[at].mean(),
            "oiou": column(table, "intersection")[at].sum() / column(table, "union")[at].sum(),
            "pr@50": (column(table, "iou")[at] > 0.5).mean(),
        }[metric]
        slow.append(100 * value)
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.4)
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.1)


def test_intervals_over_images_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    boot = Bootstrap(80, 400)
    covered = 0
    for _ in range(300):
        drawn = boot.percent([Sums(rng.normal(1.0, 6.0, (80, 1)) / 100, np.ones((80, 1)))])
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_three_seeds_promise_what_they_keep() -> None:
    """Rows that do not differ, three seeds each: 95 % intervals find a difference in about 1 of 20 tables, not in 4."""
    rng = np.random.default_rng(3)
    boot = Bootstrap(60, 400)
    wrong = drawn_from_themselves = 0
    for _ in range(400):
        images = rng.normal(0, 8, 60)  # what one row finds easier, and the other does not
        values = rng.normal(0, 2, (5, 3))  # the seeds of five rows
        pairs = values[0] - values[1]
        drawn = boot.percent(
            [Sums((images + p + rng.normal(0, 5, 60))[:, None] / 100, np.ones((60, 1))) for p in pairs]
        )
        spread = pooled(values)
        assert spread is not None
        assert spread.freedom == 10
        whole = drawn + spread.sd * np.sqrt(2 / 3) * boot.seed_errors(spread.freedom)
        naive = drawn - pairs.mean() + rng.choice(pairs, (400, 3)).mean(axis=1)
        for kind, draws in (("whole", whole), ("naive", naive)):
            low, high = np.quantile(draws, [0.025, 0.975])
            if not low <= 0 <= high:
                wrong += kind == "whole"
                drawn_from_themselves += kind == "naive"
    assert 0.02 <= wrong / 400 <= 0.08
    assert drawn_from_themselves / 400 > 0.1, "what the pooled spread is for"


def test_pooled_spread() -> None:
    assert pooled([[1.0, 3.0], [5.0, 5.0], [9.0]]) == SeedSpread(1.0, 2)
    assert pooled([[1.0], [2.0], []]) is None


def test_seeds_needed() -> None:
    assert seeds_needed(2.0, seed_variance=4.0, image_variance=0.0, family=1) == 4  # (1.96 * 2 / 2) ** 2
    more = seeds_needed(2.0, 4.0, 0.5, family=6)
    assert more is not None
    assert more > 4, "images and other claims cost seeds"
    assert seeds_needed(2.0, 4.0, 2.0, family=1) is None, "images alone leave it open"
    assert seeds_needed(0.01, 4.0, 0.0, family=1) is None, "more seeds than anybody runs"
    assert seeds_needed(0.0, 4.0, 0.0, family=1) is None


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert all(a <= min(1.0, len(p) * b) + 1e-12 or a <= max(adjusted) for a, b in zip(adjusted, p, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_classes_are_averaged_on_every_draw() -> None:
    """Mean IoU over classes against a loop over drawn pictures; a class that no drawn picture has is left out."""
    rng = np.random.default_rng(7)
    rows = [(i, c, *rng.integers(1, 9, 3)) for i in range(20) for c in range(4) if rng.random() < 0.6 or c == 0]
    image, c, hits, more, missed = np.array(rows).T
    counts = {"image_id": image, "class": c, "intersection": hits, "prediction": hits + more, "target": hits + missed}
    sums = Sums(*PerClass(counts).parts("miou_class"))
    iou = [hits[c == k].sum() / (hits + more + missed)[c == k].sum() for k in range(4)]
    assert sums.percent == pytest.approx(100 * np.mean(iou))
    fast = Bootstrap(20).percent([sums])
    slow = []
    for _ in range(2000):
        drawn = np.concatenate([np.flatnonzero(image == i) for i in rng.integers(0, 20, 20)])
        each = [drawn[c[drawn] == k] for k in range(4)]
        slow.append(100 * np.mean([hits[at].sum() / (hits + more + missed)[at].sum() for at in each if len(at)]))
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.4)
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.1)
