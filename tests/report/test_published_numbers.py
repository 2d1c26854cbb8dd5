"""The papers' numbers that the project ships, in the comparison: each under its own protocol, and as the tables have them."""

from rislab.ablation import published, table
from rislab.report.comparison.panels import Known, protocol_panels
from rislab.report.comparison.scores import Score, Weights
from tests.worlds import ROOT


def shipped() -> published.Published:
    return published.load(ROOT / "ablations" / "papers")


def test_no_column_holds_numbers_of_two_protocols() -> None:
    """Of the files that we ship: every number of a paper stands in grids of its own protocol, and nowhere else."""
    known = Known(shipped(), (), _scores_of_all(), ())
    grids = protocol_panels(known)
    expected = {}
    for paper in known.published.methods:
        for result in paper.results:
            for where, values in result.values.items():
                for metric, value in values.items():
                    key = (paper.title, f"paper: {result.name}", where.split("/")[0], where.split("/")[1], metric)
                    expected[key, f"protocol {result.protocol}"] = value
    found = {}
    for grid in grids:
        names = {column.soft[2] for column in grid.columns if column.kind == "number"}
        assert len(names) == 1, f"{grid.name}: {names}"
        for row in grid.rows:
            for column, cell in list(zip(grid.columns, row.cells, strict=True))[2:]:
                assert cell.text or cell.reason
                if cell.value is not None and row.cells[1].text.startswith("paper: "):
                    metric = next(name for name in SHORT if SHORT[name] == column.soft[1])
                    key = (row.cells[0].text, row.cells[1].text, column.title, column.soft[0], metric)
                    found[key, column.soft[2]] = cell.value
                elif cell.value is not None:
                    assert f"protocol {OURS[cell.value]}" == column.soft[2], "ours, too, by its own protocol"
    assert found == expected


OURS = {11.0: "tcl", 22.0: "maskclip"}
SHORT = {
    "miou_expr": "mIoU (expr)", "oiou": "oIoU", "acc": "Acc", "miou_class": "mIoU (class)", "aacc": "aAcc",
    "miou_fold": "mIoU (fold)", "fb_iou": "FB-IoU",
}  # fmt: skip


def _scores_of_all() -> list[Score]:
    weights = Weights("ours", "no training", "key")
    return [
        Score("maskclip", weights, "voc20", "val", protocol, {"miou_class": value}, "", protocol)
        for value, protocol in OURS.items()
    ]


def test_a_paper_that_shows_each_benchmark_in_its_own_way_has_our_protocol_of_each() -> None:
    """ReCo: pictures by the nearest pixel for Cityscapes, bilinear for PASCAL Context."""
    weights = Weights("ours", "no training", "key")
    scores = [
        Score("reco", weights, benchmark, "val", protocol, {"miou_class": value, "aacc": value + 30}, "", protocol)
        for benchmark, protocol, value in (
            ("cityscapes27", "reco_nearest", 1.0),
            ("cityscapes27", "reco", 2.0),
            ("context59", "reco", 3.0),
            ("context59", "reco_nearest", 4.0),
        )
    ]
    grid = next(grid for grid in protocol_panels(Known(shipped(), (), scores, ())) if grid.name == "reco")
    ours = next(row for row in grid.rows if row.cells[0].text == "ReCo" and row.cells[1].text.startswith("ours"))
    found = {
        (column.title, column.soft[1]): cell.value
        for column, cell in zip(grid.columns, ours.cells, strict=True)
        if cell.value is not None
    }
    assert found == {
        ("cityscapes27", "mIoU (class)"): 1.0,
        ("cityscapes27", "aAcc"): 31.0,
        ("context59", "mIoU (class)"): 3.0,
        ("context59", "aAcc"): 33.0,
    }


def test_rows_that_papers_of_one_protocol_copied_from_another_are_not_in_it() -> None:
    """MaskCLIP, GroupViT, ReCo and TCL in SCLIP's table were scored by TCL's protocol, or by several."""
    methods = {p.method for p in shipped().methods for r in p.results if r.protocol == "sclip"}
    assert methods == {"clip"}


def test_numbers_of_whole_methods_agree_with_the_tables_that_hold_them_too() -> None:
    """Where a table's row has the paper's number of a benchmark and split that the file has, they are one number."""
    compared = 0
    for paper in shipped().methods:
        if paper.full is None:
            continue
        loaded = table.load(ROOT / "ablations" / f"{paper.full.table}.yaml")
        row = loaded.row(paper.full.row)
        for name, benchmark in paper.full.measured.items():
            profile = loaded.profile(name)
            for metric, value in row.paper.get(profile.column, {}).items():
                theirs = [
                    values[metric]
                    for result in paper.results
                    for where, values in result.values.items()
                    if where == f"{benchmark}/{profile.split}" and metric in values
                ]
                if theirs:
                    assert value in theirs, f"{paper.method}, {benchmark}, {metric}: {value} and {theirs}"
                    compared += 1
    assert compared >= 15
