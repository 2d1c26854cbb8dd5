"""Folds: a row is one training a fold, its cell their mean, and only seeds with all folds count."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rislab.ablation import plan, sweeps, table
from rislab.ablation.plan import Planned
from rislab.ablation.table import Table
from rislab.cli.main import main
from rislab.errors import ConfigError
from rislab.report.measurements import Evidence
from rislab.report.model import view
from rislab.report.results import collect
from rislab.report.write import build
from tests.report.trials import finish
from tests.worlds import ROOT, tiny_table

ROWS = "base: {decoder_layers: 0}\nbetter: {decoder_layers: 1}"
FOLDS = {"one": {"data.split_by": "unc"}, "two": {"data.split_by": "google"}}


def written(folder: Path, **changes: Any) -> Path:
    path = tiny_table(folder, ROWS)
    raw = yaml.safe_load(path.read_text())
    raw["profiles"]["toy"] |= {"folds": FOLDS} | changes
    raw["rows"][0]["paper"] = {"refcoco": {"miou_expr": 40.0, "one:miou_expr": 41.5}}
    raw["claims"] = [{"name": "up", "text": "better", "holds": "miou_expr[better] > miou_expr[base]", "source": "s"}]
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def planned(folder: Path, seeds: tuple[int, ...] = (0,), **changes: Any) -> tuple[Table, list[Planned]]:
    loaded = table.load(written(folder, **changes))
    return loaded, plan.plan(loaded, loaded.profile("toy"), seeds, folder / "runs")


def test_a_row_is_a_training_a_fold_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, cells = planned(tmp_path, (0, 1), switches={"better": {"model.decoder_layers": 2}})
    assert [cell.name for cell in cells if cell.row.name == "base"] == [
        f"base s{seed} {fold}" for seed in (0, 1) for fold in FOLDS
    ]
    assert [cell.config["data"]["init_args"]["split_by"] for cell in cells[:2]] == ["unc", "google"]
    assert {cell.config["model"]["init_args"]["decoder_layers"] for cell in cells if cell.row.name == "better"} == {2}
    assert len({cell.hash for cell in cells}) == 8
    assert cells[1].directory.name == f"base--two--s0--{cells[1].hash[:8]}"
    finish(cells[0], 0.0, pictures=False)
    # What was measured of a fold with one seed is expected of the same fold with another.
    known = plan.expected_seconds(cells)
    assert known["base s1 one"] == known["base s0 one"] == 66.0
    assert known["base s1 two"] is None
    assert main(["ablate", "plan", str(loaded.path), "--runs", str(tmp_path / "runs"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["trials"]
    assert [(one["fold"], one["state"]) for one in shown[:2]] == [("one", "done"), ("two", "pending")]
    profile = loaded.profile("toy")
    parameters = yaml.safe_load(sweeps.export(loaded, profile, ["base"], [0], ["tiny"], []))["parameters"]
    assert parameters["fold"] == {"values": ["one", "two"]}
    assert sweeps.fold_of(profile, ["row=base", "fold=two"]) == ("two", ["row=base"])
    (mine,) = sweeps.chain(loaded, profile, "base", 1, "two", runs=tmp_path / "runs")
    assert (mine.name, mine.directory) == ("base s1 two", cells[3].directory)
    for given, said in (
        ([], "fold=NAME is missing; .* one, two"),
        (["fold=on"], "no such fold.*did you mean 'one'"),
        (["fold=one"] * 2, "twice"),
    ):
        with pytest.raises(ConfigError, match=said):
            sweeps.fold_of(profile, given)


def test_a_cell_is_the_mean_over_folds_of_seeds_that_have_them_all(tmp_path: Path) -> None:
    loaded, cells = planned(tmp_path, (0, 1))
    gains = {"base": {"one": 0.0, "two": 0.1}, "better": {"one": 0.1, "two": 0.3}}
    for cell in cells:
        if cell.name != "base s1 two":
            finish(
                cell, gains[cell.row.name][cell.fold], f"picture of {cell.fold}", pictures=cell.name != "base s0 one"
            )
    profile = loaded.profile("toy")
    results = collect(loaded, profile, [0, 1], cells)
    base, better = results.rows
    assert (base.finished_seeds, better.finished_seeds) == (1, 2)
    of_folds = [cell.value("val", "miou_expr") for cell in base.cells[:2]]
    assert base.values("val", "miou_expr") == [pytest.approx(np.mean(of_folds))]
    assert better.of_fold("two", "val", "miou_expr") == pytest.approx(
        np.mean([cell.value("val", "miou_expr") for cell in better.cells if cell.planned.fold == "two"])
    )
    # One fold's pictures are shown, in every row.
    shown = {label: cell.planned.fold for label, cell in results.first_that(lambda c: c.predictions()) if cell}
    assert len(set(shown.values())) == 1
    line = view(results).lines[0]
    assert (line.n, line.state) == ("1/2", "")
    (measurement,) = [Evidence(results).measure(each) for each in loaded.claims[0].comparisons]
    assert measurement.difference == pytest.approx(better_minus(results))
    assert measurement.pictures == 2 * 60
    assert measurement.least == 1
    files = {path.name: path.read_text() for path in build(loaded, profile, [0, 1], cells, tmp_path / "reports")}
    mean, one, two = (f"{value:.2f}" for value in (base.values("val", "miou_expr")[0], *folds_of(base)))
    assert f"{mean} ({one}, {two})" in files["report.md"]
    assert "| 40.00 (41.50, –) |" in files["report.md"]
    assert "A cell is the mean over 2 folds; in brackets: one, two." in files["report.md"]
    assert f"({one}, {two})" in files["report.html"]
    assert f"({one}, {two})" in files["report.tex"]
    read = list(csv.DictReader(files["report.csv"].splitlines()))
    means = [float(r["value"]) for r in read if (r["row"], r["metric"], r["source"]) == ("base", "miou_expr", "ours")]
    assert means == base.values("val", "miou_expr")
    assert {"one:miou_expr", "two:miou_expr"} <= {r["metric"] for r in read}


def better_minus(results: Any) -> float:
    base, better = results.rows
    return float(np.mean(better.values("val", "miou_expr")) - np.mean(base.values("val", "miou_expr")))


def folds_of(row: Any) -> list[float]:
    return [row.of_fold(fold, "val", "miou_expr") for fold in FOLDS]


def test_an_error_of_a_fold_is_that_of_its_own_pictures(tmp_path: Path) -> None:
    """Two equal folds: the difference stays, and the variance of the mean of two independent ones is half of one's."""
    loaded, cells = planned(tmp_path)
    for cell in cells:
        finish(cell, 0.1 if cell.row.name == "better" else 0.0, pictures=False)
    (comparison,) = loaded.claims[0].comparisons
    both = Evidence(collect(loaded, loaded.profile("toy"), [0], cells)).measure(comparison)
    single, alone = planned(tmp_path, folds={"one": FOLDS["one"]})
    one = Evidence(collect(single, single.profile("toy"), [0], alone)).measure(comparison)
    assert both.difference == pytest.approx(one.difference)
    assert both.images.value == pytest.approx(one.images.value / 2)
    assert both.images.freedom == pytest.approx(2 * one.images.freedom)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": {"a": {"data.splitby": "unc"}}}, r"fold 'a': data\.splitby .*did you mean 'split_by'"),
        ({"folds": {"a--b": {}}}, r"fold 'a--b': a name may not hold '--'"),
        ({"folds": {"a": {"model.decoder_layers": 1}}}, r"row 'base' sets model\.init_args\.decoder_layers, which the folds"),
        ({"switches": {"bast": {}}}, r"switches of 'bast', which is no row.*did you mean 'base'"),
        ({"switches": {"base": {"model.decoder_layers": "x"}}}, r"row 'base': .*decoder_layers"),
        ({"folds": {"first": {}}}, r"row 'base': no stage or fold 'one'.*folds are first"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, **changes)


def test_the_toy_table_chooses_on_classes_that_it_does_not_report() -> None:
    loaded = table.load(ROOT / "ablations" / "lseg-zero-shot.yaml")
    toy = loaded.profile("toy")
    cells = plan.plan(loaded, toy, [0], Path("none"))
    assert len(cells) == len(plan.distinct(cells)) == 12
    assert {cell.config["data"]["init_args"]["val_split"] for cell in cells} == {"other_folds"} != {toy.split}
    assert {cell.config["data"]["init_args"]["fold"] for cell in cells} == {0, 1, 2, 3}
