"""`rislab score --against OTHER --browse DIR`: two files of masks side by side."""

import json
from pathlib import Path

import numpy as np
import pytest

from rislab.data.refer import Refer
from rislab.data.toy.world import ToyWorld
from tests.browse.test_browse import called
from tests.scoring.test_score import as_json, moved
from tests.worlds import rislab_here


@pytest.fixture
def scored(tmp_path: Path) -> tuple[str, ...]:
    ToyWorld(60, 64, 5).write(tmp_path / "world")
    refer = Refer(tmp_path / "world", "refcoco", "unc")
    for name, by in (("near", 2), ("far", 7)):
        as_json(moved(refer, "val", by), tmp_path / f"{name}.json")
    data = ("--data", str(tmp_path / "world"), "--dataset", "refcoco", "--split", "val")
    return "score", str(tmp_path / "near.json"), "--against", str(tmp_path / "far.json"), *data


@pytest.mark.parametrize("protocol", ["native", "lavt"])
def test_two_files_side_by_side(scored: tuple[str, ...], tmp_path: Path, protocol: str) -> None:
    folder = tmp_path / "pages"
    done = rislab_here(*scored, "--protocol", protocol, "--json", "--browse", str(folder))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (given,) = called(folder / "data" / "index.js")
    assert [row["label"] for row in given["rows"]] == ["near.json", "far.json"]
    means = [np.mean([score for score in entry["scores"] if score >= 0]) / 100 for entry in given["entries"]]
    assert means == pytest.approx([printed["miou_expr"], printed["against"]["miou_expr"]], abs=0.01)
    found = printed["against"]["differences"]["miou_expr"]
    assert found["difference"] == pytest.approx(means[0] - means[1], abs=0.02)
    assert 0 < found["interval"][0] < found["difference"] < found["interval"][1]
    assert given["sizes"] == ([[64, 64]] if protocol == "native" else [[480, 480]])


def test_the_screen_says_the_difference_and_the_page(scored: tuple[str, ...], tmp_path: Path) -> None:
    done = rislab_here(*scored, "--browse", str(tmp_path / "pages"))
    assert done.returncode == 0, done.stderr
    assert "against far.json" in done.stdout
    assert str(tmp_path / "pages" / "index.html") in done.stdout.replace("\n", "")


def test_masks_that_cannot_be_compared_are_one_line(scored: tuple[str, ...], tmp_path: Path) -> None:
    strangers = json.loads((tmp_path / "far.json").read_text())
    (tmp_path / "strange.json").write_text(
        json.dumps([each | {"sent_id": each["sent_id"] + 10**6} for each in strangers])
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    for arguments, said in (
        ((*scored[:3], str(tmp_path / "strange.json"), *scored[4:]), "strange.json: none of its"),
        ((*scored, "--no-target-min-pixels", "0"), "--no-target-min-pixels 0: expected 1 or more"),
        ((*scored, "--browse", str(tmp_path / "mine")), "holds other files: nothing was written"),
        ((*scored, "--browse", str(tmp_path / "mine" / "file" / "pages")), f"rislab: {tmp_path}/mine/file"),
    ):
        done = rislab_here(*arguments)
        assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr
        assert "unfinished" not in done.stderr


def test_the_same_masks_do_not_differ_and_one_file_can_be_shown_alone(scored: tuple[str, ...], tmp_path: Path) -> None:
    same = [*scored[:3], scored[1], *scored[4:]]
    done = rislab_here(*same, "--json", "--browse", str(tmp_path / "pages"))
    found = json.loads(done.stdout)["against"]["differences"]
    assert all(each == {"difference": 0.0, "interval": [0.0, 0.0]} for each in found.values())
    (given,) = called(tmp_path / "pages" / "data" / "index.js")
    assert [row["label"] for row in given["rows"]] == ["near.json", "near.json (2)"]
    alone = rislab_here(*scored[:2], *scored[4:], "--browse", str(tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    (given,) = called(tmp_path / "alone" / "data" / "index.js")
    assert len(given["rows"]) == 1
