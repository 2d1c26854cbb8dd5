"""The report's provenance: one value where trials agree, and who differs where they do not."""

from pathlib import Path
from typing import Any

import pytest

from rislab.ablation.integrity import seal
from rislab.ablation.plan import Planned
from rislab.files import read_json, write_json
from rislab.report.markdown import markdown
from rislab.report.model import view
from rislab.report.provenance import _packages, provenance
from rislab.report.results import Results, collect
from tests.report.trials import finish, planned_table
from tests.worlds import tiny_table

ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, list[Planned]]:
    loaded, cells = planned_table(tiny_table(tmp_path, ROWS), tmp_path / "runs", [0, 1, 2])
    for cell in cells:
        finish(cell, 0.1, pictures=False)
        (cell.directory / "packages.txt").write_text("einops==0.8\ntorch==2.9\n")
    return loaded, cells


def results(made: tuple[Any, list[Planned]]) -> Results:
    loaded, cells = made
    return collect(loaded, loaded.profile("toy"), [0, 1, 2], cells)


def change(cell: Planned, **values: Any) -> None:
    write_json(cell.trial.provenance_file, read_json(cell.trial.provenance_file) | values)


def test_trials_that_agree_are_told_once(made: tuple[Any, list[Planned]]) -> None:
    assert provenance(results(made)) == [
        ("commit", "000000000000"),
        ("packages", "torch 2.9"),
        ("Python", "3.11"),
        ("hardware", "a processor, no GPU"),
        ("threads a trial", "1"),
    ]


def test_each_trial_is_read_for_a_package_once(made: tuple[Any, list[Planned]]) -> None:
    calls: list[str] = []

    class Packages(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            calls.append(name)
            return super().get(name, default)

    cells = results(made).cells
    for cell in cells:
        cell.provenance["packages"] = Packages(torch="2.9", numpy="2.1")
    assert _packages(cells) == "numpy 2.1, torch 2.9"
    assert len(calls) == 2 * len(cells), "not with the square of the trials: a report has thousands"


def test_what_differs_is_named_with_its_trials(made: tuple[Any, list[Planned]]) -> None:
    cells = {cell.name: cell for cell in made[1]}
    change(cells["full s1"], code={"commit": "1" * 40, "dirty": "abcdefabcdef"}, packages={"torch": "2.8"}, threads=2)
    (cells["full s1"].directory / "packages.txt").write_text("einops==0.7\nextra==1.0\ntorch==2.8\n")
    change(cells["base s0"], hardware={"gpus": ["H100", "H100"], "processor": "p", "gpu_driver": "570.1"})
    (cells["base s0"].directory / "packages.txt").unlink()  # of an earlier release: what it had is not known
    change(
        cells["base s2"],
        starts=[{"code": {"commit": "2" * 40, "dirty": None}}, {"code": {"commit": "0" * 40, "dirty": None}}],
    )
    change(cells["full s0"], starts=[{"code": {"commit": "0" * 40, "dirty": None}}] * 2)
    cells["full s2"].trial.attempts.start_small(4)
    found = dict(provenance(results(made)))
    assert found["batches in 4 parts, for want of memory"] == "full s2"
    assert found["commit"] == "000000000000 (5 trials); 111111111111 + changes abcdefabcdef (full s1)"
    assert found["packages"] == (
        "torch 2.9 (5 trials); 2.8 (full s1), einops 0.8 (4 trials); 0.7 (full s1), extra none (4 trials); 1.0 (full s1)"
    )
    assert found["hardware"] == "a processor, no GPU (5 trials); H100, H100, driver 570.1 (base s0)"
    assert found["threads a trial"] == "1 (5 trials); 2 (full s1)"
    assert found["started more than once"] == "base s2, full s0"
    assert found["begun with other code"] == "base s2: see starts in provenance.json"
    assert "full s1" in next(line for line in markdown(view(results(made))).splitlines() if line.startswith("- commit"))


def test_a_row_of_other_code_is_marked(made: tuple[Any, list[Planned]]) -> None:
    cell = next(cell for cell in made[1] if cell.name == "full s1")
    recorded = read_json(cell.trial.identity)
    recorded["sources"]["rislab/methods/cris/model.py"] = "of yesterday"
    write_json(cell.trial.identity, recorded)
    seal(cell.directory, read_json(cell.trial.metrics_file))
    report = markdown(view(results(made)))
    assert "| full † |" in report
    assert "| base |" in report
    assert "† made with code that has changed since." in report
    assert report.count("done (code changed since)") == 1
