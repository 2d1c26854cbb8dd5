"""Columns of earlier stages name their split, and charts show curves, not single values."""

from rislab.ablation import table
from rislab.report.conventions import title
from rislab.report.figures import Curve, line_chart
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
