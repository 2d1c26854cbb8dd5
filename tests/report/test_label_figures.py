"""Label maps: which are kept, how, and what a report shows of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rislab.data.batch import LabelledPictures, Viewing
from rislab.evaluation.label_examples import LabelExamples
from rislab.report.figures import colour_of
from rislab.report.label_figures import BACKGROUND
from rislab.report.write import build
from tests.report.trials import finish, planned_table
from tests.worlds import tiny_table

CLASSES = ("background", "dog", "<b>cat</b>", "sky")
ROWS = "base: {decoder_layers: 0}\nbetter: {decoder_layers: 1}\nsame: {decoder_layers: 2}"


def offered(numbers: range, count: int = 3, size: tuple[int, int] = (30, 40)) -> LabelExamples:
    found = LabelExamples(count, CLASSES)
    for number in numbers:
        rng = np.random.default_rng(number)
        label = rng.integers(0, 3, size).astype(np.uint8)
        label[:5] = 255
        image: NDArray[np.uint8] = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        picture = torch.from_numpy(image.transpose(2, 0, 1))
        view = Viewing(60, 80, 60, 60, "mmseg")
        batch = LabelledPictures([picture], [label], CLASSES[1:], True, view, [number])
        found.offer(batch, [np.where(label == 2, 3, label)])
    return found


def test_which_pictures_are_kept_depends_on_their_numbers_only(tmp_path: Path) -> None:
    whole, backwards, halves = offered(range(20)), offered(range(19, -1, -1)), offered(range(0))
    halves.gather([offered(range(0, 20, 2)).kept, offered(range(1, 20, 2)).kept])
    for name, each in (("a", whole), ("b", backwards), ("c", halves)):
        each.write(tmp_path / name, None)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert len(files) == 3 * 3 + 1
    for other in ("b", "c"):
        assert {path.name: path.read_bytes() for path in (tmp_path / other).iterdir()} == files
    assert not offered(range(5), count=0).kept


def test_maps_hold_labels_and_are_small(tmp_path: Path) -> None:
    found = offered(range(1), size=(300, 1000))
    found.write(tmp_path, None)
    (entry,) = json.loads((tmp_path / "label_maps.json").read_text())
    assert entry["classes"] == {"0": "background", "1": "dog", "2": "<b>cat</b>", "3": "sky"}
    target, said = (np.asarray(Image.open(tmp_path / entry[what])) for what in ("target", "prediction"))
    assert target.shape == said.shape == (77, 256)
    assert set(np.unique(target)) == {0, 1, 2, 255}
    assert set(np.unique(said)) == {0, 1, 3, 255}
    assert entry["right"] == pytest.approx(66.7, abs=1)
    assert Image.open(tmp_path / entry["image"]).size == (256, 77)


def test_a_report_shows_them_beside_the_truth(tmp_path: Path) -> None:
    table, planned = planned_table(tiny_table(tmp_path, ROWS), tmp_path / "runs", [0])
    for cell in planned:
        finish(cell, 0.0, pictures=False)
        if cell.row.name != "same":
            offered(range(20)).write(cell.trial.path / "predictions", None)
    page = build(table, table.profile("toy"), [0], planned, tmp_path / "reports")[-1]
    text = page.read_text()
    assert "What the rows see" in text
    assert text.count("<img") == text.count("alt=") == 3 * (2 + 2)
    assert text.count("none kept") == 3
    assert text.count("</i>dog</span>") == 3
    assert "</i>&lt;b&gt;cat&lt;/b&gt;</span>" in text
    before = page.read_bytes()
    build(table, table.profile("toy"), [0], planned, tmp_path / "reports")
    assert page.read_bytes() == before
    folder = planned[0].trial.path / "predictions"
    first, second, third = json.loads((folder / "label_maps.json").read_text())
    (folder / first["image"]).unlink()
    (folder / second["prediction"]).write_bytes(b"no picture")
    Image.new("L", (3, 3)).save(folder / third["prediction"])
    build(table, table.profile("toy"), [0], planned, tmp_path / "reports")
    assert page.read_text().count("none kept") == 2 + 2, "a damaged file costs its own cell, a lost picture its line"


class Halves:
    """A method that divides a picture into its left and its right."""

    def groups_of(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"halves": torch.tensor([[0, 1]]), "<i>none</i>": torch.zeros(1, 1, dtype=torch.int64)}


def test_groups_of_a_method_that_has_them_are_kept_and_shown(tmp_path: Path) -> None:
    table, planned = planned_table(tiny_table(tmp_path, ROWS), tmp_path / "runs", [0])
    for cell in planned:
        finish(cell, 0.0, pictures=False)
        found, picture = offered(range(2)), torch.zeros(3, 60, 80, dtype=torch.uint8)
        if cell.row.name != "base":
            label = [np.zeros((30, 40), np.uint8)] * 2
            view = Viewing(60, 80, 60, 60, "mmseg")
            found.inspect(Halves(), LabelledPictures([picture] * 2, label, CLASSES[1:], True, view, [0, 7]))  # type: ignore[arg-type]
        found.write(cell.trial.path / "predictions", None)
    folder = planned[1].trial.path / "predictions"
    entries = {one["image_id"]: one for one in json.loads((folder / "label_maps.json").read_text())}
    assert entries[1].keys() == {"image_id", "image", "target", "prediction", "classes", "right"}, "7 is not kept"
    halves = np.asarray(Image.open(folder / entries[0]["groups"]["halves"]))
    assert halves.shape == (30, 40)
    assert (halves == np.repeat([0, 1], 20)).all()
    page = build(table, table.profile("toy"), [0], planned, tmp_path / "reports")[-1].read_text()
    assert page.count('alt="halves of') == page.count("&lt;i&gt;none&lt;/i&gt; of") == 2
    assert "a colour a group" in page


def test_no_two_classes_share_a_colour() -> None:
    """Of the largest benchmark's 171, and nowhere the grey of the background."""
    colours = [colour_of(number) for number in range(171)]
    assert len({*colours, BACKGROUND}) == 172
    assert all(re.fullmatch("#[0-9A-F]{6}", each) for each in colours)
