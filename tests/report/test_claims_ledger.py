"""`rislab claims`: verdicts as the report gives them, seeds, pages, and what is never counted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rislab.ablation import plan, table
from rislab.report.results import collect
from rislab.report.verdicts import judge
from rislab.report.write import build
from tests.report.trials import finish
from tests.test_layers import HEAVY
from tests.worlds import ROOT, rislab_here, tiny_table

ROWS = "base: {decoder_layers: 0}\nbetter: {decoder_layers: 1}\nnever: {decoder_layers: 3}"
CLAIMS = """claims:
- {name: up, text: better, holds: "miou_expr[better] > miou_expr[base]", source: table 3}
- {name: down, text: worse, holds: "miou_expr[better] < miou_expr[base]", source: table 3}
- {name: recalled, text: from memory, holds: "miou_expr[better] > miou_expr[base] + 1", source: memory, judged: false}
- {name: open, text: unknown, holds: "pr@50[never] > pr@50[base]", source: table 4}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of which two rows are finished with three seeds."""
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    path = tiny_table(tmp_path, ROWS)
    path.write_text(path.read_text().replace("claims: []", CLAIMS))
    (tmp_path / "ablations").mkdir()
    path.rename(tmp_path / "ablations" / "tiny.yaml")
    add_seeds(tmp_path, [0, 1, 2])
    return tmp_path


def planned(folder: Path, seeds: list[int]) -> tuple[table.Table, list[plan.Planned]]:
    loaded = table.load(folder / "ablations" / "tiny.yaml")
    return loaded, plan.plan(loaded, loaded.profile("toy"), seeds, folder / "runs")


def add_seeds(folder: Path, seeds: list[int]) -> None:
    for cell in planned(folder, seeds)[1]:
        if cell.row.name != "never":
            finish(cell, 0.12 if cell.row.name == "better" else 0.0, pictures=False)


def claims(folder: Path, *options: str) -> dict[str, Any]:
    said = rislab_here("claims", *options, "--json", cwd=folder)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_verdicts_are_the_reports_and_recalled_claims_count_for_nothing(world: Path) -> None:
    found = claims(world)
    entries = {line["claim"]: line["profiles"][0] for line in found["claims"]}
    assert {name: entry["verdict"] for name, entry in entries.items()} == {
        "up": "replicated", "down": "contradicted", "recalled": "source not read", "open": "not run",
    }  # fmt: skip
    assert found["counts"] == {
        "toy": {"replicated": 1, "contradicted": 1, "not run": 1, "source not read": 1},
        "paper": {},
    }
    loaded, cells = planned(world, [0, 1, 2])
    judged = {each.claim.name: each for each in judge(collect(loaded, loaded.profile("toy"), [0, 1, 2], cells))}
    (test,), (ours,) = judged["up"].tests, entries["up"]["tests"]
    assert (ours["difference"], ours["low"], ours["high"], ours["p"]) == (test.difference, test.low, test.high, test.p)
    assert entries["up"]["seeds"] == {"better": [0, 1, 2], "base": [0, 1, 2]}
    assert entries["open"]["seeds"] == {"never": [], "base": [0, 1, 2]}
    assert "no result for never" in entries["open"]["note"]
    assert entries["recalled"]["tests"] == []
    line = next(line for line in found["claims"] if line["claim"] == "recalled")
    assert (line["source"], line["source_read"], line["paper"]["venue"]) == ("memory", False, "CVPR")
    only = claims(world, "tiny", "--verdict", "contradicted")
    assert [line["claim"] for line in only["claims"]] == ["down"]


def test_a_claim_that_is_declared_unread_later_loses_its_verdict(world: Path) -> None:
    """Also where the verdict lies in the cache: what is counted is the table's word of today."""
    claims(world)
    path = world / "ablations" / "tiny.yaml"
    path.write_text(path.read_text().replace("source: table 3}", "source: table 3, judged: false}"))
    assert claims(world)["counts"]["toy"] == {"not run": 1, "source not read": 3}


def test_the_page_that_shows_a_verdict_is_named_and_one_of_other_trials_is_not_passed_for_it(world: Path) -> None:
    def of_up() -> dict[str, Any]:
        entry: dict[str, Any] = claims(world)["claims"][0]["profiles"][0]
        return entry

    assert (of_up()["report"], of_up()["report_note"]) == (
        "", "no report: rislab ablate report tiny --profile toy --seeds 0,1,2",
    )  # fmt: skip
    loaded, cells = planned(world, [0, 1, 2])
    build(loaded, loaded.profile("toy"), [0, 1, 2], cells, world / "reports")
    assert (of_up()["report"], of_up()["report_note"]) == ("reports/tiny/report.html", "")
    before = of_up()["tests"]
    add_seeds(world, [5])
    later = of_up()
    assert later["seeds"]["base"] == [0, 1, 2, 5]
    assert later["tests"] != before, "a new seed is counted, not what the cache had"
    assert later["report_note"].startswith("it shows other trials: ")
    victim = next((world / "runs" / "tiny").glob("better--s0--*")) / "scores.parquet"
    victim.write_bytes(victim.read_bytes()[:-7])
    assert of_up()["seeds"]["better"] == [1, 2, 5], "a damaged trial shows no number, cached or not"


def test_text_names_what_json_holds(world: Path) -> None:
    said = rislab_here("claims", cwd=world)
    assert "  up: better\n    miou_expr[better] > miou_expr[base]; source: table 3\n" in said.stdout
    assert "    toy (a world of a few scenes, val): replicated, +1" in said.stdout
    assert "; 3 seeds; " in said.stdout
    assert "seeds: never 0, base 3; no result for never" in said.stdout
    assert "(a world of a few scenes, val): source not read\n" in said.stdout
    assert "1 replicated, 1 contradicted, 1 not run, 1 source not read" in said.stdout


def test_mistakes_are_one_line_and_a_broken_table_hides_no_other(world: Path) -> None:
    said = rislab_here("claims", "--verdict", "replicate", cwd=world)
    assert said.returncode == 2
    assert "(did you mean 'replicated'?)" in said.stderr
    assert "(did you mean 'toy'?)" in rislab_here("claims", "--profile", "tos", cwd=world).stderr
    assert "(did you mean 'tiny'?)" in rislab_here("claims", "tint", cwd=world).stderr
    (world / "ablations" / "bad.yaml").write_text("name: bad\n")
    said = rislab_here("claims", cwd=world)
    assert said.returncode == 2
    assert "bad.yaml is left out: " in said.stderr
    assert "1 replicated" in said.stdout


def test_all_tables_are_answered_without_what_takes_long_to_import(world: Path) -> None:
    """A second time, too, with verdicts at hand: torch is never imported, scipy and pyarrow only to compute a verdict."""
    claims(world)
    code = (
        "import sys\nfrom rislab.cli.main import main\ncode = main(sys.argv[1:])\n"
        f"print([name for name in {(*HEAVY, 'scipy', 'pyarrow')} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    for folder in (world, ROOT):
        done = subprocess.run(
            [sys.executable, "-c", code, "claims", "--runs", str(world / "runs")],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip().endswith("[]"), done.stderr
