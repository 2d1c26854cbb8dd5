"""Reports of tables in every state, and the statistics under them."""

import html as html_module
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rislab.report.build import build
from rislab.report.results import PerExpression, collect
from rislab.report.statistics import Bootstrap, holm, judge, sums
from rislab.report.text import latex_escape
from rislab.report.view import view
from tests.report.trials import finish, planned_table
from tests.worlds import tiny_table

ROWS = "base: {decoder_layers: 0}\nbetter: {decoder_layers: 1}\nsame: {decoder_layers: 2}\nbroken: {decoder_layers: 3}"
CLAIMS = """claims:
- {name: up, text: "better & <b>bolder</b> 100%_$", holds: "miou_expr[better] > miou_expr[base]", source: s}
- {name: down, text: worse, holds: "miou_expr[better] < miou_expr[base]", source: s}
- {name: even, text: a little, holds: "oiou[same] > oiou[base]", source: s}
- {name: never, text: unknown, holds: "pr@50[broken] > pr@50[base]", source: s}
"""
EVIL = '<script>alert("x")</script> & co'


@pytest.fixture(params=[1, 3], ids=["one seed", "three seeds"])
def seeds(request: pytest.FixtureRequest) -> list[int]:
    return list(range(request.param))


@pytest.fixture
def campaign(tmp_path: Path, seeds: list[int]):
    path = tiny_table(tmp_path, ROWS)
    path.write_text(path.read_text().replace("claims: []", CLAIMS))
    table, planned = planned_table(path, tmp_path / "runs", seeds)
    gains = {"base": 0.0, "better": 0.12, "same": 0.0}
    for cell in planned:
        if cell.row.name in gains:
            finish(cell, gains[cell.row.name], EVIL, missing_pictures=cell.row.name == "same")
        else:
            cell.write()
            cell.trial.update_status(state="diverged", error="loss term mask is not finite at step 7 <here>")
    return table, planned


def test_verdicts(campaign, seeds: list[int]) -> None:
    table, planned = campaign
    verdicts = {j.claim.name: j for j in judge(collect(table, table.profile("toy"), seeds, planned))}
    assert {name: j.verdict for name, j in verdicts.items()} == {
        "up": "replicated",
        "down": "contradicted",
        "even": "inconclusive",
        "never": "not run",
    }
    up, down = verdicts["up"].tests[0], verdicts["down"].tests[0]
    assert up.difference == pytest.approx(12, abs=1)
    assert up.low < up.difference < up.high
    assert down.difference == -up.difference
    assert ("one seed" in verdicts["up"].why) == (len(seeds) == 1)
    caution = view(collect(table, table.profile("toy"), seeds, planned)).caution
    assert (caution is not None) == (len(seeds) == 1)
    assert "no result for broken" in verdicts["never"].why


def test_all_forms_say_the_same_and_are_repeatable(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    files = build(table, table.profile("toy"), seeds, planned, tmp_path / "reports")
    first = {path.name: path.read_bytes() for path in files}
    assert set(first) == {"report.md", "report.csv", "report.tex", "report.html"}
    build(table, table.profile("toy"), seeds, planned, tmp_path / "reports")
    assert {path.name: path.read_bytes() for path in files} == first
    mean = f"{view(collect(table, table.profile('toy'), seeds, planned)).lines[1].ours[0].spread.mean:.2f}"
    for name in ("report.md", "report.tex", "report.html"):
        text = first[name].decode()
        assert mean in text
        assert "diverged" in text or name == "report.tex"
        assert "Compare the order of the rows, never the level" in text
    assert first["report.csv"].decode().count("\n") > 10


def test_page_is_self_contained_and_escaped(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    build(table, table.profile("toy"), seeds, planned, tmp_path)
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert EVIL not in page
    assert html_module.escape(EVIL, quote=False) in page or "&lt;script&gt;" in page
    assert "<b>bolder</b>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page), "everything is inside"
    assert "<script" not in page
    assert page.count("<img") == page.count("alt=")


def test_a_table_of_which_nothing_has_run(tmp_path: Path) -> None:
    table, planned = planned_table(tiny_table(tmp_path, ROWS), tmp_path / "runs", [0])
    (markdown, *_) = build(table, table.profile("toy"), [0], planned, tmp_path / "reports")
    assert "pending" in markdown.read_text()
    assert "0 of 4 trials done" in markdown.read_text()


def test_changed_code_is_marked(campaign, seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, planned = campaign
    monkeypatch.setattr("rislab.ablation.identity.sources", lambda _: {"rislab/data/x.py": "other"})
    (markdown, *_) = build(table, table.profile("toy"), seeds, planned, tmp_path)
    assert "† made with code that has changed since" in markdown.read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    build(table, table.profile("toy"), seeds, planned, tmp_path)
    run = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "report.tex"],
        cwd=tmp_path / "tiny",
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:]


def test_latex_escapes_what_tex_would_read() -> None:
    assert latex_escape(r"100%_$\{x}") == r"100\%\_\$\textbackslash{}\{x\}"


def table_of(rng: np.random.Generator, images: int) -> PerExpression:
    image = np.sort(rng.integers(0, images, images * 3))
    union = rng.integers(50, 500, len(image))
    intersection = (union * rng.random(len(image))).astype(np.int64)
    return PerExpression(np.arange(len(image)), image, intersection, union, intersection / union)


def test_sums_give_the_metrics_of_the_definition() -> None:
    table = table_of(np.random.default_rng(0), 12)
    for metric, wanted in (
        ("miou_expr", table.iou.mean()),
        ("oiou", table.intersection.sum() / table.union.sum()),
        ("pr@70", (table.iou > 0.7).mean()),
    ):
        top, bottom = sums(table, metric)
        assert top.sum() / bottom.sum() == pytest.approx(wanted)


def test_bootstrap_is_that_of_images_drawn_one_by_one() -> None:
    """The matrix form against a loop that draws images and gathers their expressions."""
    table = table_of(np.random.default_rng(1), 25)
    top, bottom = sums(table, "miou_expr")
    images = len(top)
    fast = Bootstrap(images, 1).metric(top[None], bottom[None])[:, 0]
    rng = np.random.default_rng(5)
    groups = [table.iou[table.image_id == i] for i in np.unique(table.image_id)]
    slow = [100 * np.concatenate([groups[i] for i in rng.integers(0, images, images)]).mean() for _ in range(2000)]
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.4)
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        difference = rng.normal(1.0, 6.0, (1, 80))
        drawn = Bootstrap(80, 1, 400).metric(difference / 100, np.ones((1, 80)))[:, 0]
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
