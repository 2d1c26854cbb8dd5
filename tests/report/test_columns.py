"""Columns of earlier stages name their split, and charts show curves, not single values."""

from types import SimpleNamespace
from typing import Any, cast

from rislab.ablation import table
from rislab.report.conventions import title
from rislab.report.figures import Curve, curves, line_chart
from tests.worlds import ROOT


def test_a_column_names_a_split_that_is_not_the_tables() -> None:
    profile = table.load(ROOT / "ablations" / "clims.yaml").profile("voc")
    assert (profile.split_of("cam:miou_class"), profile.split_of("miou_class")) == ("train", "val")
    assert title("cam:miou_class", profile) == "cam: mIoU (class), train"
    assert title("miou_class", profile) == "mIoU (class)"
    assert title("cam:miou_class") == "cam: mIoU (class)"


def test_a_chart_of_single_values_is_left_out() -> None:
    single, curve = Curve("one", [(10, 50.0)]), Curve("two", [(10, 50.0), (20, 60.0)])
    assert line_chart([single, single], "score") == ""
    assert line_chart([], "score") == ""
    drawn = line_chart([single, curve], "score")
    assert (drawn.count("<polyline"), drawn.count("<circle")) == (2, 3)


def test_curves_of_folds_are_averaged_point_by_point() -> None:
    """Epochs of folds have other lengths; a mean over the folds that reached a step would jump from one to the other."""

    def cell(fold: str, *points: tuple[int, float]) -> Any:
        made = SimpleNamespace(planned=SimpleNamespace(fold=fold), curve=lambda name: list(points))
        made.of = lambda metric: (made, metric)
        return made

    def drawn(*cells: Any) -> list[tuple[int, float]]:
        row = SimpleNamespace(row=SimpleNamespace(label="full"), cells=cells)
        (found,) = curves(cast(Any, SimpleNamespace(rows=[row])), "miou_fold", "val/")
        return list(found.points)

    first, other = cell("fold0", (50, 40.0), (100, 60.0)), cell("fold1", (54, 20.0), (108, 30.0), (162, 35.0))
    assert drawn(first, other) == [(52, 30.0), (104, 45.0)]
    assert drawn(first, cell("fold0", (50, 50.0))) == [(50, 45.0), (100, 60.0)]  # seeds of one fold
    assert drawn(first, cell("fold1")) == [(50, 40.0), (100, 60.0)]
