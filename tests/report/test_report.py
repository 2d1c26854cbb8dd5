"""Reports of tables in every state: unfinished, failed, damaged, with one seed and with several."""

import html as html_module
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rislab.report.formatting import headline
from rislab.report.latex import latex_escape
from rislab.report.model import view
from rislab.report.results import collect
from rislab.report.verdicts import judge
from rislab.report.write import build
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
            finish(cell, gains[cell.row.name], EVIL, pictures=cell.row.name != "same")
        else:
            cell.write()
            cell.trial.update_status(state="diverged", error="loss term mask is not finite at step 7 <here>")
    return table, planned


def test_verdicts(campaign, seeds: list[int]) -> None:
    table, planned = campaign
    results = collect(table, table.profile("toy"), seeds, planned)
    judged = {j.claim.name: j for j in judge(results)}
    several = len(seeds) > 1
    assert {name: j.verdict for name, j in judged.items()} == {
        "up": "replicated" if several else "single seed",
        "down": "contradicted" if several else "single seed",
        "even": "inconclusive" if several else "single seed",
        "never": "not run",
    }
    up, down = judged["up"].tests[0], judged["down"].tests[0]
    assert up.difference == pytest.approx(12, abs=2)
    assert up.low < up.difference < up.high
    assert (down.difference, down.low, down.high) == pytest.approx((-up.difference, -up.high, -up.low))
    assert (up.p is not None) == several
    assert ("one seed" in judged["up"].why) == (not several)
    assert ("seeds would" in judged["even"].why) == several
    assert (view(results).caution is not None) == (not several)
    assert "no result for broken" in judged["never"].why
    if not several:
        assert re.fullmatch(r"single seed: \+1\d\.\d\d, as claimed", headline(judged["up"]))
        assert re.fullmatch(r"single seed: -1\d\.\d\d, not as claimed", headline(judged["down"]))


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
        assert "diverged" in text
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


@pytest.mark.parametrize("row", ["base", "better"])
def test_a_report_of_a_single_row(campaign, row: str, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    some = [cell for cell in planned if cell.row.name == row]
    for path in build(table, table.profile("toy"), seeds, some, tmp_path / "reports"):
        if path.suffix in (".md", ".html"):
            assert (", which was not chosen" in path.read_text()) == (row != "base")
            assert f"--rows {row}" in path.read_text()


def test_changed_code_is_marked(campaign, seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, planned = campaign
    monkeypatch.setattr("rislab.ablation.sources.sources", lambda _: {"rislab/data/x.py": "other"})
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
    assert latex_escape("\u05d0 \U0001f600 Müller – [a]") == "? ? Müller – {[}a]"
    assert latex_escape("compare --run") == "compare -{}-run", "LaTeX makes a dash of two hyphens"


def test_rows_without_a_result_say_why(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    broken = [cell for cell in planned if cell.row.name == "broken"]
    broken[0].trial.update_status(state="failed", error="12.jpg: cut | short", kind="data")
    markdown, _, tex, page = (f.read_text() for f in build(table, table.profile("toy"), seeds, planned, tmp_path))
    state = "failed" if len(seeds) == 1 else "1 failed, 2 diverged"
    assert f'<td class="state" colspan="2">{state}</td>' in page
    assert f"| *{state}* |" in markdown
    assert rf"\multicolumn{{6}}{{c}}{{\emph{{{state}}}}}" in tex
    assert (
        f"broken s0: failed (data): 12.jpg: cut | short (`tiny/{broken[0].trial.path.name}/log/stdout.txt`)" in markdown
    )
    assert "--retry" in page


def test_damaged_files_cost_what_they_held_and_no_more(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    cells = {cell.name: cell for cell in planned}
    better, same = cells["better s0"].trial, cells["same s0"].trial
    better.scores_file.write_bytes(better.scores_file.read_bytes()[:100])
    cells["base s0"].trial.path.joinpath("predictions", "1.jpg").write_bytes(b"no picture")
    scores = json.loads(same.metrics_file.read_text())
    scores["splits"]["val"]["oiou"] += 1
    same.metrics_file.write_text(json.dumps(scores))
    page = build(table, table.profile("toy"), seeds, planned, tmp_path)[-1].read_text()
    found = {cell.planned.name: cell for cell in collect(table, table.profile("toy"), seeds, planned).cells}
    said = {name: cell.error for name, cell in found.items() if cell.state == "damaged"}
    assert said == {
        "better s0": "scores.parquet is not what the trial wrote",
        "same s0": "metrics.json is not what the trial wrote",
    }
    assert all(found[name].value("val", "oiou") is None for name in said)
    assert all(text in page for text in said.values())
    assert (found["base s0"].state, found["base s0"].changed) == ("done", ("predictions/1.jpg",))
    assert "base s0: predictions/1.jpg" in page, "a picture costs itself, and no number"
    assert page.count("data:image/jpeg") == 0
    assert "Learning curves" in page, "a value cut short by a kill is left out"


def test_repeating_is_said_as_it_is_typed(campaign, seeds: list[int]) -> None:
    table, planned = campaign
    seen = view(collect(table, table.profile("toy"), seeds, planned))
    assert seen.command == f"rislab ablate run table.yaml --profile toy --seeds {len(seeds)}"
    assert view(collect(table, table.profile("toy"), [4], planned)).command.endswith("--seeds 4,")


def test_markup_in_a_table_is_text_in_markdown(campaign, seeds: list[int], tmp_path: Path) -> None:
    table, planned = campaign
    markdown = build(table, table.profile("toy"), seeds, planned, tmp_path)[0].read_text()
    assert "better & &lt;b>bolder&lt;/b> 100%\\_$" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in rows} == {12, 6, 7} | ({5} if len(seeds) > 1 else set()), (
        "one count a table: no cell has leaked"
    )


def test_report_needs_no_torch(tmp_path: Path) -> None:
    heavy = "torch lightning cv2 matplotlib scipy pandas"
    code = f"import sys, rislab.report.write; print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
