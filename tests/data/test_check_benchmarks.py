"""`rislab data check` of label maps and image-text shards, as typed: official trees written small, whole and damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rislab.data.toy.vocabulary import ToyVocabulary
from tests.data.small import SmallSet
from tests.data.test_pairs import picture, shard
from tests.data.test_vocabulary import CLASSES, put, tree
from tests.worlds import rislab


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))


def checked(root: Path, *options: str) -> dict[str, Any]:
    done = rislab("data", "check", str(root), "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def faults(one: dict[str, Any]) -> dict[str, int]:
    return {fault["kind"]: fault["count"] for fault in one["faults"]}


def voc(root: Path, names: list[str]) -> Path:
    """VOC2012 with these pictures in val."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in names:
        put(folder / "JPEGImages" / f"{name}.jpg", np.random.default_rng(0).integers(0, 256, (9, 12, 3)))
        put(
            folder / "SegmentationClass" / f"{name}.png",
            np.array([[0, 1, 255]]).repeat(4, 1).repeat(9, 0),
            palette=True,
        )
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_every_benchmark_is_found_and_counted(tmp_path: Path) -> None:
    for name in CLASSES:
        if name not in ("voc20", "context59"):  # the same files
            tree(tmp_path / "data", name, np.array([[0, 1, 2]]) if name != "cityscapes" else np.array([[0, 18, 255]]))
    found = checked(tmp_path / "data")
    assert {tuple(one["benchmarks"]) for one in found["benchmarks"]} == {
        ("ade20k",), ("cityscapes",), ("coco_object",), ("coco_stuff",), ("context59", "context60"), ("voc20", "voc21"),
    }  # fmt: skip
    for one in found["benchmarks"]:
        assert not one["faults"], one
        assert one["splits"].keys() == {"val"}
        assert one["splits"]["val"]["deviates"] == f"1 pictures (published: {one['splits']['val']['published']})"
        assert one["pictures"] == {"expected": 1, "missing": 0, "unreadable": 0, "examples": []}
    published = {one["benchmarks"][0]: one["splits"]["val"]["published"] for one in found["benchmarks"]}
    assert published == {
        "ade20k": 2000, "cityscapes": 500, "coco_object": 5000, "coco_stuff": 5000, "context59": 5104, "voc20": 1449,
    }  # fmt: skip
    assert [one["dataset"] for one in found["absent"]] == ["kitti_step"], "a set of 27 classes is none of its own"
    assert not found["is_sound"]


def test_what_is_wrong_with_a_tree_is_listed(tmp_path: Path) -> None:
    names = [f"2007_{n:06d}" for n in range(8)]
    folder = voc(tmp_path, names)
    pictures, maps = ([folder / part / f"{name}{end}" for name in names] for part, end in
                      (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")))  # fmt: skip
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:-12])
    maps[2].unlink()
    maps[3].write_bytes(maps[3].read_bytes()[:-30])
    put(maps[4], np.zeros((9, 12, 3)))
    put(maps[5], np.zeros((12, 9)), palette=True)
    put(maps[6], np.array([[0] * 10 + [21, 99]] * 9), palette=True)
    lists = folder / "ImageSets" / "Segmentation" / "val.txt"
    lists.write_text(lists.read_text() + f"{names[7]}\n")
    (one,) = checked(tmp_path)["benchmarks"]
    assert faults(one) == {
        "missing label map": 1, "name listed twice": 1, "sizes differ": 1, "unreadable label map": 2, "value that is no label": 2,
    }  # fmt: skip
    assert (one["pictures"]["missing"], one["pictures"]["unreadable"]) == (1, 1)
    assert one["notes"]["classes that occur in no label map"] == 19
    done = rislab("data", "check", str(tmp_path), "--strict")
    assert done.returncode == 2
    for said in (
        "PASCAL VOC (20) and PASCAL VOC (21)", "8 pictures (published: 1449)", "of 8 pictures 1 are missing, 1 unreadable",
        f"{names[0]}.jpg: not found", f"{names[1]}.jpg: not a readable picture (", f"{names[2]}.png: not found",
        f"{names[3]}.png: not a readable label map", "one byte a pixel, this one is RGB",
        f"{names[5]}.png: 9x12 pixels, its picture has 12x9", f"{names[6]}.png: 21 in 9 pixels",
        "val: 1 of 9 names", "COCO-Stuff (171) is not there. Needed:", "coco_stuff164k/images/val2017/NAME.jpg",
        "benchmark: cocodataset.org, val2017; stuffthingmaps_trainval2017.zip",
    ):  # fmt: skip
        assert said in done.stdout, said
    quick = checked(tmp_path, "--no-pictures")["benchmarks"][0]
    assert quick["pictures"]["unreadable"] is None, "its header is whole"
    assert faults(quick) == faults(one)


def test_maps_of_the_release_and_values_in_a_gap(tmp_path: Path) -> None:
    tree(tmp_path, "coco_stuff", np.array([[0, 11, 91, 255]]), raw=True)
    found = {one["benchmarks"][0]: one for one in checked(tmp_path)["benchmarks"]}
    assert found.keys() == {"coco_stuff", "coco_object"}
    for name in ("coco_stuff", "coco_object"):
        assert found[name]["notes"] == {"label maps in the release's values, translated on the way": 1}
        (fault,) = found[name]["faults"]
        assert "000000000139.png: 11 in 1 pixels" in fault["examples"][0]


def test_a_list_that_is_missing_and_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = voc(tmp_path, ["2007_000001", "2007_000002"])
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000002\n")
    found = checked(folder)
    assert [one["splits"].keys() for one in found["benchmarks"]] == [{"train", "val"}]
    assert found["benchmarks"][0]["pictures"]["expected"] == 2
    assert found["absent"] == [], "the others were not named"
    (folder / "ImageSets" / "Segmentation" / "val.txt").unlink()
    done = rislab("data", "check", str(tmp_path))
    assert "splits of the release that are missing: val" in done.stdout


def test_other_data_is_no_benchmark(tmp_path: Path) -> None:
    root = SmallSet({"train": 2}).write(tmp_path / "ris")
    found = checked(root)
    assert found["benchmarks"] == found["shards"] == []
    assert {entry["dataset"] for entry in found["absent"]} == {"refcoco+", "refcocog", "ref-zom", "grefcoco"}
    empty = rislab("data", "check", str(tmp_path / "ris" / "images"))
    assert empty.returncode == 2
    assert "no referring data set, no benchmark of label maps and no image-text shards" in empty.stderr


def test_the_toy_world_is_sound(tmp_path: Path) -> None:
    ToyVocabulary(scenes=5, pairs=7, size=64).write(tmp_path / "toy")
    found = checked(tmp_path / "toy", "--strict")
    assert [one["benchmarks"] for one in found["benchmarks"]] == [["toy_voc", "toy_voc16"]]
    assert {name: split["images"] for name, split in found["benchmarks"][0]["splits"].items()} == {
        "train": 1,
        "val": 1,
        "test": 3,
    }
    (shards,) = found["shards"]
    assert (shards["shards"], shards["pairs"], shards["decoded"]) == (1, 7, 7)
    assert found["is_sound"]


def test_shards_say_what_training_would_skip(tmp_path: Path) -> None:
    good = {"jpg": picture(3), "txt": b"a text"}
    shard(
        tmp_path / "cc3m" / "cc-000000.tar",
        [("0", good), ("1", good), ("2", {"jpg": picture(1, kind="PNG"), "txt": b"x"})],
    )
    shard(
        tmp_path / "cc3m" / "cc-000002.tar",
        [("4", {"jpg": b"no picture", "text": b"t"}), ("5", {"jpg": picture(1), "txt": b""}), ("6", {"txt": b"t"}),
         ("7", {"png": picture(2, kind="PNG")}), ("8", {"jpg": picture(9), "txt": b"  "})],
    )  # fmt: skip
    whole = shard(tmp_path / "cc3m" / "cc-000003.tar", [(str(n), good) for n in range(4)])
    whole.write_bytes(whole.read_bytes()[:5000])
    shard(tmp_path / "VOCtrainval_11-May-2012.tar", [("0", good)])
    (one,) = checked(tmp_path)["shards"]
    assert (one["shards"], one["missing"]) == (3, [1])
    assert one["skipped"] == {"empty text": 1, "no picture": 1, "no text": 1, "truncated shard": 1}
    assert one["unreadable"] == {"unreadable picture": 1, "empty text": 1}
    assert one["decoded"] == one["pairs"] > 5
    done = rislab("data", "check", str(tmp_path), "--strict")
    assert done.returncode == 2
    for said in (
        "pairs in 3 shards", "1 numbers have no shard: 1", "1 x truncated shard, by the headers", "1 x unreadable picture, of ",
        "cc-000003.tar: 1 x truncated shard",
    ):  # fmt: skip
        assert said in done.stdout, said
