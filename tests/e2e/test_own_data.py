"""docs/own-data.md, command by command, in a folder with nothing but what the page names."""

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rislab.data import decoding, masks
from rislab.data.refer import Refer
from rislab.files import read_json
from tests.documents import blocks
from tests.worlds import ROOT, rislab, untrained

PAGE = ROOT / "docs" / "own-data.md"


def commands() -> list[str]:
    """The lines of the page's blocks."""
    return [command.text for block in blocks(PAGE) if block.language == "bash" for command in block.commands()]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(folder, output by command) after the whole page; the trunk is random, since pretraining it is most of the time."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("docs", "ablations"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "experiments" / "cris").mkdir(parents=True)
    Path(untrained(folder, "cris/own")).rename(folder / "experiments" / "cris" / "own.yaml")
    found = {}
    for line in commands():
        program, *arguments = shlex.split(line)
        assert program == "rislab", line
        done = rislab(*arguments, cwd=folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        found[line] = done.stdout
    return folder, found


def test_the_page_is_run_as_it_stands(said: tuple[Path, dict[str, str]]) -> None:
    folder, found = said
    actions = {
        " ".join(re.findall(r"^rislab (\S+ ?(?:import|check|show|export|run|report)?)", line)[0].split())
        for line in found
    }
    assert actions == {
        "data import", "data check", "data show", "data export", "fit", "predict", "score", "ablate run", "ablate report",
    }  # fmt: skip
    assert (folder / "sheet.png").stat().st_size > 10_000
    report = (folder / "reports" / "cris-components-own" / "report.md").read_text()
    assert "own pictures, the tiny network" in report
    assert "not the paper's benchmark" in report


def test_the_pages_python_runs(said: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    with contextlib.chdir(said[0]):
        for block in blocks(PAGE):
            if block.language == "python":
                exec(compile(block.text, block.where, "exec"), scope)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows if row[1] == "1"] == [("base", "1"), ("con", "1")]
    assert scope["model"].method == "cris"


def test_fit_ends_with_the_scores_and_the_folder_and_score_gives_the_same_digits(
    said: tuple[Path, dict[str, str]],
) -> None:
    folder, found = said
    (fit,) = (text for line, text in found.items() if line.startswith("rislab fit"))
    metrics = read_json(folder / "runs" / "fit" / "mine" / "metrics.json")["splits"]
    *_, head, val, test, where = fit.splitlines()
    assert head.split()[:3] == ["percent", "miou_expr", "oiou"]
    assert val.split()[:3] == ["val", *(f"{metrics['val'][name]:.2f}" for name in ("miou_expr", "oiou"))]
    assert test.split()[:3] == ["test", *(f"{metrics['test'][name]:.2f}" for name in ("miou_expr", "oiou"))]
    assert where == "runs/fit/mine" or where == str(folder / "runs/fit/mine")
    again = rislab("score", "masks.json", "--data", "DATA/mine", "--split", "test", "--json", cwd=folder)
    scored = json.loads(again.stdout)
    assert {name: scored[name] for name in ("miou_expr", "oiou")} == pytest.approx(
        {name: metrics["test"][name] for name in ("miou_expr", "oiou")}
    )


def test_all_exports_hold_the_predicted_pixels(said: tuple[Path, dict[str, str]]) -> None:
    folder, _ = said
    refer = Refer(folder / "DATA", "mine", "own")
    predicted = {each["sent_id"]: each["segmentation"] for each in json.loads((folder / "masks.json").read_text())}
    coco = {
        each["sent_id"]: each["segmentation"]
        for each in json.loads((folder / "answers.json").read_text())["annotations"]
    }
    sentences = {e.sent_id: refer.images[ref.image_id] for ref in refer.split("test") for e in ref.expressions}
    assert len(sentences) == 9
    for sent_id, image in sentences.items():
        mask = masks.decode(masks.from_segmentation(predicted[sent_id], image.height, image.width)).astype(bool)
        path = folder / "answers-png" / f"{sent_id}.png"
        expected = decoding.Expected(image.height, image.width, "the picture has")
        assert (decoding.mask(path.read_bytes(), str(path), expected) == mask).all()
        if mask.any():
            assert (masks.decode(masks.from_segmentation(coco[sent_id], image.height, image.width)) == mask).all()
    shapes = [
        (shape["sent_id"], np.array(shape["points"], int), content["imagePath"])
        for path in (folder / "answers-labelme").glob("*.json")
        for content in [json.loads(path.read_text())]
        for shape in content["shapes"]
    ]
    assert {sent_id for sent_id, _, _ in shapes} == coco.keys()
    assert all((folder / "answers-labelme" / name).is_file() for _, _, name in shapes)
