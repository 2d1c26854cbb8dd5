"""`rislab data check|leaks|show` and `rislab score`, as typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rislab.data.toy.world import ToyWorld
from tests.data.small import SmallSet
from tests.worlds import rislab, rislab_here


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands") / "toy"
    ToyWorld(60, 64, 5).write(root)
    return root


def test_check_of_a_sound_world(world: Path) -> None:
    done = rislab("data", "check", str(world), "--json", "--strict")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["is_sound"]
    assert [one["dataset"] for one in found["data_sets"]] == ["refcoco", "grefcoco", "ref-zom", "refcoco+", "refcocog"]
    zero = {one["dataset"]: sum(s["zero_target"] for s in one["splits"].values()) for one in found["data_sets"]}
    assert zero["grefcoco"] > 10 < zero["ref-zom"]
    assert zero["refcoco"] == 0
    assert found["absent"] == []


def test_check_of_a_damaged_set_lists_what_is_wrong(tmp_path: Path) -> None:
    small = SmallSet({"train": 4, "val": 2})
    small.refs[2]["ann_id"] = 7
    small.instances["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    root = small.write(tmp_path)
    next((root / "images" / "train2014").iterdir()).unlink()
    done = rislab("data", "check", str(root))
    assert done.returncode == 0, done.stderr
    for said in (
        "1 x dangling annotation id", "ann_id 7 is not in", "1 x zero-area mask", "pictures 1 are missing",
        "(published: 42404)", "splits of the release that are missing: testA, testB", "RefCOCOg is not there",
        "github.com/lichengunc/refer", "1 polygons dropped",
    ):  # fmt: skip
        assert said in done.stdout, said
    assert rislab_here("data", "check", str(root), "--strict").returncode == 2


def test_leaks(world: Path) -> None:
    clean = rislab("data", "leaks", str(world), "--train", "refcoco:train", "--eval", "refcoco+:unc:val", "--strict")
    assert clean.returncode == 0, clean.stdout
    shared = ["data", "leaks", str(world), "--train", "refcoco:unc:val", "--eval", "refcoco+:val", "refcocog:umd:test"]
    done = rislab(*shared, "--json", "--strict")
    assert done.returncode == 2
    first, second = json.loads(done.stdout)
    assert first["images"] == first["evaluated"]["images"] > 0
    assert 0 < first["objects"] <= first["evaluated"]["objects"]
    assert second["images"] == 0
    wrong = rislab_here("data", "leaks", str(world), "--train", "refcoco", "--eval", "refcoco:val")
    assert wrong.returncode == 2
    assert "expected DATASET:PARTITION:SPLIT" in wrong.stderr


def test_show_draws_what_is_chosen(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    done = rislab("data", "show", str(world), "--dataset", "grefcoco", "--split", "val", "--n", "5", "--out", str(out))
    assert done.returncode == 0, done.stderr
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] == 4 * 412 + 12
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000
    done = rislab_here("data", "show", str(world), "--split", "vall", "--out", str(out))
    assert done.returncode == 2
    assert "did you mean 'val'" in done.stderr


def test_score_prints_every_convention_and_what_is_missing(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "masks.json"
    entry = {"sent_id": 1, "segmentation": {"size": [64, 64], "counts": [0, 64 * 64]}}
    file.write_text(json.dumps([entry, entry | {"sent_id": 10**7}]))
    done = rislab("score", str(file), "--data", str(world), "--split", "val", "--dataset", "refcoco")
    assert done.returncode == 0, done.stderr
    for said in (
        "native",
        "cris",
        "lavt",
        "dmmi",
        "rela",
        "have no mask",
        "1 sentence ids are unknown",
        "position words",
    ):
        assert said in done.stdout, said
    assert (tmp_path / "masks.json.scores.parquet").exists()
    wrong = rislab_here("score", str(file), "--data", str(world), "--split", "nowhere")
    assert wrong.returncode == 2
    assert "no split 'nowhere'" in wrong.stderr
    file.write_text(json.dumps([entry | {"sent_id": 10**7}, entry | {"sent_id": 10**8}]))
    strange = rislab_here("score", str(file), "--data", str(world), "--split", "val", "--dataset", "refcoco")
    assert strange.returncode == 2
    assert "none of its 2 ids (10000000, 100000000) is a sent_id of" in strange.stderr
    assert strange.stdout == ""
