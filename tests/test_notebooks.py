"""The notebooks of docs/ run from the first cell to the last."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.api.checkpoints import write
from tests.methods.every import factories
from tests.report.trials import finish, planned_table
from tests.worlds import ROOT, tiny_table

FOLDER = ROOT / "docs" / "notebooks"


def run(name: str, **parameters: Any) -> str:
    """What the cells print; the values of the cell that is tagged `parameters` are replaced."""
    scope: dict[str, Any] = {}
    out = io.StringIO()
    for number, cell in enumerate(json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]):
        assert not cell.get("outputs"), "a notebook is kept without outputs"
        if cell["cell_type"] != "code":
            continue
        with contextlib.redirect_stdout(out):
            exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {number}", "exec"), scope)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert parameters.keys() <= scope.keys()
            scope |= parameters
    return out.getvalue()


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_segment(tmp_path: Path) -> None:
    write(factories()["cris"], tmp_path / "best.ckpt")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save("photo.jpg")
    printed = run("segment", MODEL="best.ckpt")
    assert printed.startswith("cris on cpu\n")
    assert "[2, 1]" in printed
    assert Path("answers.png").exists()
    assert len(json.loads(Path("answers.json").read_text())) == 2


def test_score() -> None:
    printed = run("score")
    assert "Scored(" in printed
    ious = [float(line.split()[1]) for line in printed.splitlines()[-5:]]
    assert ious == sorted(ious)
    assert 0 < ious[0] < 1
    assert "miou_expr 100.00" in run("score", SHIFT=0)


def test_results(tmp_path: Path) -> None:
    (tmp_path / "ablations").mkdir()
    rows = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"
    path = tiny_table(tmp_path, rows).rename(tmp_path / "ablations" / "tiny.yaml")
    for cell in planned_table(path, tmp_path / "runs", [0, 1])[1]:
        finish(cell, 0.3 if cell.row.name == "full" else 0.1, pictures=False)
    printed = run("results", TABLE="tiny", ROWS=("base", "full"))
    assert "base" in printed
    assert "±" in printed
    assert "by more than 50 points of IoU" in printed


def test_every_notebook_has_a_test() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {"segment", "score", "results"}
