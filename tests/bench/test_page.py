"""`rislab bench page`: a piece of work is measured once, its file is kept, and the page says what is not measured."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rislab.ablation import lookup, signature
from rislab.bench import page_text, training_step, works
from rislab.files import read_json
from tests.worlds import ROOT, rislab_here, untrained


def test_every_method_has_a_piece_of_work_and_every_recipe_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert {work.method for work in works.WORKS.values()} == set(signature.methods())
    assert len(works.WORKS) == len(works.WITH_OFFICIAL_FIGURES) + len(works.OTHERS)
    for work in works.WORKS.values():
        assert lookup.find(work.config).is_file()
        assert bool(work.ours) == bool(work.plain) == (work.module != "rislab.bench.method_costs")
        if work.compare:
            assert callable(getattr(importlib.import_module(work.module), work.compare))


def test_a_file_is_kept_and_the_page_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def here(module: str, **options: Any) -> Any:
        calls.append(options)
        return importlib.import_module(module).measure(**options)

    monkeypatch.setattr(training_step, "in_a_process_of_its_own", here)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # which the command sets for the processes that it starts
    small = {"classes": 6, "height": 70, "width": 100}
    labels = replace(works.WORKS["tcl-labels-21"], config=untrained(tmp_path, "tcl/toy_voc"), options=small)
    nothing = replace(
        works.WORKS["clip-classes"],
        config="experiments/clip/toy.yaml",
        options={"work": "train", "count": 1, "repeats": 1},
    )
    few = {"tcl-labels-21": labels, "clip-classes": nothing}
    monkeypatch.setattr(works, "WORKS", few)
    monkeypatch.setattr(page_text, "WORKS", few)
    command = ["bench", "page", "--results", str(tmp_path / "runs"), "--out", str(tmp_path / "bench.md")]
    done = rislab_here(*command, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "tcl-labels-21": "measured",
        "clip-classes": "not measured: CLIPTask has nothing to train",
    }
    found = read_json(tmp_path / "runs" / "tcl-labels-21.json")
    assert found["same_label_percent"] > 99.9
    assert found["bound"] == found["plain"]["gflop"] / found["rislab"]["gflop"] > 1
    text = (tmp_path / "bench.md").read_text()
    assert "1 of 2 pieces of work measured" in text
    assert "| tcl | label map, 448, 21 names |" in text
    assert "(`clip-classes`): not measured: CLIPTask has nothing to train" in text
    count = len(calls)
    again = rislab_here(*command, "tcl-labels-21")
    assert again.returncode == 0, again.stderr
    assert "tcl-labels-21: kept" in again.stdout
    assert len(calls) == count
    assert "clip-classes: not measured" in rislab_here(*command, "--list").stdout
    wrong = rislab_here(*command, "tcl-labels-12")
    assert wrong.returncode == 2
    assert "no piece of work 'tcl-labels-12' (did you mean 'tcl-labels-21'?)" in wrong.stderr
