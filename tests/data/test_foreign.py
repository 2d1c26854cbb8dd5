"""What other tools write: values of another type, names that leave the folder, numpy's numbers, files that exhaust memory."""

import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rislab.data import masks
from rislab.data.benchmark_trees import Tree, benchmark
from rislab.data.check.referring import check
from rislab.data.locate import data_folders, locate
from rislab.data.plain_pickle import unpickled
from rislab.data.refer import Refer
from rislab.errors import DataError, brief
from tests.data.small import SmallSet
from tests.data.test_vocabulary import put, tree
from tests.worlds import rislab_here


@pytest.fixture
def small() -> SmallSet:
    return SmallSet({"train": 4, "val": 2})


@pytest.mark.parametrize(
    ("value", "is_crowd"),
    [
        (0, False),
        (1, True),
        (0.0, False),
        (True, True),
        (False, False),
        ("0", False),
        ("1", True),
        (" False", False),
        ("TRUE", True),
    ],
)
def test_crowds_are_read_by_type(small: SmallSet, tmp_path: Path, value: Any, is_crowd: bool) -> None:
    small.instances["annotations"][0]["iscrowd"] = value
    assert Refer(small.write(tmp_path), "refcoco", "unc").annotations[1000].is_crowd is is_crowd


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        *(("annotations", "iscrowd", value) for value in ("", "no", "crowd", 2, -1, 0.5, None, [], [1], {})),
        *(("annotations", "category_id", value) for value in ("1", True, None, 1.5, 10**30)),
        *(("annotations", "image_id", value) for value in ("100", True)),
        *(("images", "height", value) for value in ("24", True, 24.5, None, [24])),
        *(("images", "width", value) for value in ("32", 10**9)),
        *(("images", "file_name", value) for value in (b"x".decode("latin-1") * 256, "a\0b", "", " ")),
        *(("images", "file_name", f"{start}etc/passwd") for start in ("../../", "/", "a/../../", "..\\", "C:\\")),
    ],
)
def test_other_types_and_names_are_faults_of_their_record(
    small: SmallSet, tmp_path: Path, where: str, field: str, value: Any
) -> None:
    small.instances[where][0][field] = value
    root = small.write(tmp_path)
    with pytest.raises(DataError, match=rf"instances\.json: {where[:-1]} .*100") as caught:
        Refer(root, "refcoco", "unc")
    assert field in str(caught.value) or field in ("height", "width")
    counted = {fault.kind: fault.count for fault in check(root).data_sets[0].faults}
    assert counted[f"unreadable {where[:-1]}"] == 1


def test_an_outside_picture_is_never_opened(small: SmallSet, tmp_path: Path) -> None:
    root = small.write(tmp_path / "data")
    inside = root / "images" / "train2014" / small.pictures[100]
    outside = inside.rename(tmp_path / "secret.jpg")
    small.instances["images"][0]["file_name"] = str(outside)
    (root / "refcoco" / "instances.json").write_text(json.dumps(small.instances))
    done = rislab_here("data", "show", str(root), "--split", "train", "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 2
    assert "leaves the folder: never opened" in done.stderr


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "a" * 260, "a\x1b[2J", "..", "x/../../y"])
def test_names_of_a_list_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    found = tree(tmp_path, "voc21", np.zeros((4, 4)))
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    lists.write_bytes(b"\xef\xbb\xbf" + lists.read_bytes().replace(b"\n", b"\r\n") + name.encode() + b"\r\n")
    with pytest.raises(DataError, match=r"val\.txt: the name .* (leaves the folder|control characters|longer)"):
        found.items("val")
    (one,) = check(tmp_path).benchmarks
    assert [(fault.kind, fault.count) for fault in one.faults] == [("name that is no file of the folder", 1)]
    assert one.splits["val"].images == 1


def test_lists_of_other_systems(tmp_path: Path) -> None:
    found = tree(tmp_path, "voc21", np.zeros((4, 4)))
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    lists.write_bytes(b"\xef\xbb\xbf" + lists.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert [item.name for item in found.items("val")] == ["000000000139"]
    lists.write_bytes("größer".encode("latin-1"))
    with pytest.raises(DataError, match=r"val\.txt: not text in UTF-8"):
        found.items("val")
    (one,) = check(tmp_path).benchmarks
    assert [fault.kind for fault in one.faults] == ["unreadable list"]


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    root = SmallSet({"val": 2}).write(tmp_path / "set")
    (root / "._refcoco").write_bytes(b"\0\5\26\7")
    (root / "refcoco" / "._refs(unc).p").write_bytes(b"\0\5\26\7")
    assert [place.split_by for place in data_folders(root)] == ["unc"]
    found = tree(tmp_path / "city", "cityscapes", np.zeros((4, 4)))
    (item,) = found.items("val")
    for path in (item.image, item.label):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    (item.image.parents[1] / "__MACOSX").mkdir()
    (item.image.parents[1] / "__MACOSX" / item.image.name).write_bytes(b"\0")
    assert [one.name for one in found.items("val")] == [item.name]


def test_a_set_s_folder_keeps_the_name_that_was_given(
    small: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small.write(tmp_path / "data")
    (root / "refcoco").rename(tmp_path / "store-2024-03")
    (root / "refcoco").symlink_to(tmp_path / "store-2024-03")
    for folder in (root, root / "refcoco"):
        place = locate(folder)
        assert (place.root, place.dataset, place.title) == (root, "refcoco", "RefCOCO (unc)")
    monkeypatch.chdir(root / "refcoco")
    monkeypatch.setenv("PWD", str(root / "refcoco"))
    assert locate(Path()).dataset == "refcoco"
    monkeypatch.setenv("PWD", str(tmp_path))
    assert locate(Path()).dataset == "store-2024-03"
    assert locate(root / "refcoco" / ".." / "store-2024-03").dataset == "store-2024-03"


def test_references_that_ask_nothing_are_left_out_with_a_count(small: SmallSet, tmp_path: Path) -> None:
    whole = len(small.refs)
    for number in (1, 2, whole - 1):
        small.refs[number]["sentences"] = []
    root = small.write(tmp_path, "grefcoco")
    (root / "grefcoco" / "refs(unc).p").rename(root / "grefcoco" / "grefs(unc).p")
    refer = Refer(root, "grefcoco", "unc")
    assert len(refer.references) + refer.without_sentences.total() == whole
    assert refer.without_sentences == {"train": 2, "val": 1}
    (one,) = check(root).data_sets
    assert one.notes["references without a sentence, left out of every split"] == 3
    assert not one.faults
    perfect = [
        {"sent_id": e.sent_id, "segmentation": masks.to_json(refer.target(ref))}
        for ref in refer.split("val")
        for e in ref.expressions
    ]
    (tmp_path / "perfect.json").write_text(json.dumps(perfect))
    done = rislab_here("score", str(tmp_path / "perfect.json"), "--data", str(root), "--split", "val", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["miou_expr"], found["missing"], found["references_without_sentences"]) == (100.0, [], 1)
    for command in (["leaks", str(root), "--train", "grefcoco:train", "--eval", "grefcoco:val"],
                    ["show", str(root), "--split", "train", "--out", str(tmp_path / "s.png")]):  # fmt: skip
        done = rislab_here("data", *command)
        assert "2 references without a sentence left out" in done.stderr, done.stderr


NUMPY = [
    np.int64(-7), np.int32(5), np.uint8(200), np.int16(-3), np.float64(0.25), np.float32(1.5), np.float16(2.0), np.bool_(True),
    np.str_("größer 🙂"), np.array([9], ">i4")[0],
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_s_numbers_are_plain_values(protocol: int) -> None:
    found = unpickled(pickle.dumps([{"ref_id": value} for value in NUMPY], protocol))
    for value, one in zip(NUMPY, found, strict=True):
        assert one["ref_id"] == value.item()
        assert type(one["ref_id"]) is type(value.item())


def test_numpy_s_other_objects_are_refused_with_a_hint() -> None:
    for value in (np.arange(3), np.datetime64("2020-01-01"), np.complex64(1)):
        with pytest.raises(DataError, match=r"x\.tolist\(\)|write plain values"):
            unpickled(pickle.dumps([value]))


def test_what_stands_in_for_numpy_cannot_be_changed() -> None:
    # BUILD sets attributes: of a function or a class it could replace what the next file is read with.
    for module, name in (("numpy", "dtype"), ("numpy._core.multiarray", "scalar"), ("_codecs", "encode")):
        program = f"c{module}\n{name}\n".encode() + b"(N(dS'__call__'\nI1\nstb."
        with pytest.raises(DataError, match="not a readable pickle"):
            unpickled(program)
    assert unpickled(pickle.dumps(np.int64(3))) == 3


def shared(depth: int) -> Any:
    value: Any = [1, 1]
    for _ in range(depth):
        value = [value, value]
    return value


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [shared(40), 10**5000, b"x" * 10**6], ids=["shared", "number", "bytes"])
@pytest.mark.parametrize("field", ["ref_id", "ann_id", "sentences", "split", "image_id"])
def test_a_message_costs_what_it_shows(small: SmallSet, tmp_path: Path, field: str, value: Any) -> None:
    small.refs[0][field] = value
    root = small.write(tmp_path)
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        Refer(root, "refcoco", "unc")
    assert len(str(caught.value)) < 600
    assert time.process_time() - began < 2


def test_values_of_any_depth_are_shown_briefly() -> None:
    assert brief(nested(20_000)) == "[[[[...]]]]"
    assert len(brief({"a": shared(40), "b": "x" * 1000}, 80)) <= 83
    assert brief({"id": 3, "b": [1, 2]}) == "{'id': 3, 'b': [1, 2]}"
    # A list in a list in a list ..., as only a pickle can hold it.
    assert brief(unpickled(b"]" * 20_000 + b"a" * 19_999 + b".")) == "[[[[...]]]]"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**30))
def test_sane_polygons_are_drawn_as_pycocotools_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(4, 60, 2).tolist()
    polygons = [
        np.round(rng.uniform(-0.3, 1.3, (int(rng.integers(3, 40)), 2)) * [width, height], 2).ravel().tolist()
        for _ in range(int(rng.integers(1, 4)))
    ]
    expected = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    assert masks.from_segmentation(polygons, height, width) == expected


@pytest.mark.parametrize("points", [1000, 4000])
def test_polygons_of_endless_edges_are_refused(points: int) -> None:
    far = np.where(np.arange(2 * points) % 4 < 2, -99_999, 99_999).tolist()
    near = [1, 1, 9, 1, 9, 9]
    for segmentation in ([far], [near, far], [far[: points // 2]] * 4):
        with pytest.raises(DataError, match=r"edges of \d+ pixels together"):
            masks.from_segmentation(segmentation, 40, 40)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [24, 32], "counts": "o" * 2_000_000}, "do not add up"),
        ({"size": [24, 32], "counts": "b'PPPP'"}, r"write counts\.decode\(\)"),
        ({"size": [24, 32], "counts": "é" * 4}, "not ASCII"),
        ({"size": [24, 32], "counts": [700.5, 67.5]}, "700.5, which is no whole number"),
        ({"size": [24, 32], "counts": ["768"]}, "'768', which is no whole number"),
        ({"size": [24, 32], "counts": [True, 767]}, "True, which is no whole number"),
        ({"size": [24, 32], "counts": [700.0, 60.0]}, "do not add up"),
        ({"size": "24x32", "counts": [768]}, "RLE of size '24x32'"),
        ([[1, 1, 9, 1, 9, 9], [1, 1, float("nan"), 1, 9, 9]], "no pixel positions"),
        ([["1", "1", "9", "1", "9", "9"]], "no flat list of numbers"),
        ([[10**400, 1, 9, 1, 9, 9]], "no flat list of numbers"),
        ([[None, 1, 9, 1, 9, 9]], "no flat list of numbers"),
        ([[[1, 1], [9, 1], [9, 9], [1, 9], [1, 5], [2, 3]]], "no flat list of numbers"),
    ],
)
def test_masks_are_refused_with_the_right_reason_at_once(segmentation: Any, message: str) -> None:
    began = time.process_time()
    with pytest.raises(DataError, match=message):
        masks.from_segmentation(segmentation, 24, 32)
    assert time.process_time() - began < 1


def test_runs_that_a_tool_wrote_as_floats_are_whole_numbers() -> None:
    whole = masks.from_segmentation({"size": [4, 5], "counts": [5, 7, 8]}, 4, 5)
    assert masks.from_segmentation({"size": [4, 5], "counts": [5.0, 7.0, 8.0]}, 4, 5) == whole


def test_a_label_map_of_another_size_than_its_picture_names_both(tmp_path: Path) -> None:
    found = tree(tmp_path, "voc21", np.zeros((4, 6)))
    (item,) = found.items("val")
    image, label = found.sample(item, 21)
    assert image.shape[:2] == label.shape
    put(item.label, np.zeros((6, 4)), palette=True)
    with pytest.raises(DataError, match=rf"{item.label}: 4x6 pixels, its picture {item.image} has 6x4"):
        found.sample(item, 21)


def test_a_release_that_lies_elsewhere_is_read_through_its_link(tmp_path: Path) -> None:
    tree(tmp_path / "store", "voc21", np.zeros((4, 6)))
    (tmp_path / "data").symlink_to(tmp_path / "store")
    assert len(Tree(tmp_path / "data", benchmark("voc21")).items("val")) == 1
