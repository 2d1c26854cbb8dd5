"""The statistics of a report, against brute force and against what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rislab.metrics.protocols import Protocol
from rislab.report.results import PerClass, PerExpression
from rislab.report.statistics import SeedSpread, Sums, holm, pooled


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


def test_pooled_spread() -> None:
    assert pooled([[1.0, 3.0], [5.0, 5.0], [9.0]]) == SeedSpread(1.0, 2)
    assert pooled([[1.0], [2.0], []]) is None


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
