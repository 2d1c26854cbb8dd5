"""Masks that other code made: read in both forms, scored like our own, faults named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from rislab.data import masks
from rislab.data.locate import data_folders, locate
from rislab.data.refer import Refer
from rislab.data.toy.world import ToyWorld
from rislab.errors import DataError
from rislab.metrics.protocols import Protocol
from rislab.scoring.foreign import Predictions
from rislab.scoring.score import breakdown, score, write_table
from tests.data.small import SmallSet
from tests.worlds import rislab, rislab_here, tiny_config

ALL = list(Protocol.__members__)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored") / "toy"
    ToyWorld(120, 64, 5).write(root)
    return root


def moved(refer: Refer, split: str, by: int = 3) -> dict[int, np.ndarray]:
    """Answers that are near the truth: each target moved sideways."""
    return {
        expression.sent_id: np.roll(masks.decode(refer.target(reference)), by, 1).astype(bool)
        for reference in refer.split(split)
        for expression in reference.expressions
    }


def as_json(answers: dict[int, np.ndarray], path: Path) -> Path:
    entries = [{"sent_id": k, "segmentation": masks.to_json(masks.encode(v))} for k, v in answers.items()]
    path.write_text(json.dumps(entries))
    return path


def as_pictures(answers: dict[int, np.ndarray], folder: Path) -> Path:
    folder.mkdir()
    for number, (sent_id, mask) in enumerate(answers.items()):
        pixels = Image.fromarray(mask) if number % 2 else Image.fromarray(mask.astype(np.uint8) * 255)
        pixels.save(folder / f"{sent_id}.png")
    return folder


def test_both_forms_give_the_same_digits(world: Path, tmp_path: Path) -> None:
    refer = locate(world, "grefcoco").read()
    answers = moved(refer, "val")
    one = score(refer, "val", Predictions(as_json(answers, tmp_path / "m.json")), ALL)
    other = score(refer, "val", Predictions(as_pictures(answers, tmp_path / "m")), ALL)
    assert {name: one.averages(name) for name in ALL} == {name: other.averages(name) for name in ALL}
    assert 20 < one.averages("native")["miou_expr"] < 80
    assert one.averages("native")["n_acc"] == 100


def test_against_pycocotools_and_plain_numpy(world: Path, tmp_path: Path) -> None:
    """native on RefCOCO-like data, from the files alone: pycocotools' own COCO reader and sums by hand."""
    from pycocotools.coco import COCO

    refer = Refer(world, "refcoco", "unc")
    answers = moved(refer, "val")
    found = score(refer, "val", Predictions(as_json(answers, tmp_path / "m.json")), ["native"])
    coco = COCO(str(world / "refcoco" / "instances.json"))
    intersections, unions, ious = 0, 0, []
    for reference in refer.split("val"):
        target = coco.annToMask(coco.anns[reference.ann_ids[0]]).astype(bool)
        for expression in reference.expressions:
            both, either = (f(answers[expression.sent_id], target).sum() for f in (np.logical_and, np.logical_or))
            intersections, unions = intersections + both, unions + either
            ious.append(both / either)
    ours = found.averages("native")
    assert ours["oiou"] == pytest.approx(100 * intersections / unions, abs=1e-9)
    assert ours["miou_expr"] == pytest.approx(100 * np.mean(ious), abs=1e-9)
    assert len(refer.images) == len(coco.imgs)


def test_lavt_sees_holes_where_polygons_overlap(tmp_path: Path) -> None:
    small = SmallSet({"val": 1}, 480, 480)
    left, right = ([x, 100, x + 200, 100, x + 200, 300, x, 300] for x in (50, 150))
    small.instances["annotations"][0]["segmentation"] = [left, right]
    refer = Refer(small.write(tmp_path), "refcoco", "unc")
    (reference,) = refer.references
    whole = masks.area(refer.target(reference))
    holes = refer.target(reference, Protocol.lavt.convention)
    parts = [coco_mask.decode(coco_mask.frPyObjects([p], 480, 480))[..., 0] for p in (left, right)]
    np.testing.assert_array_equal(masks.decode(holes), (parts[0] + parts[1]) == 1)
    assert masks.area(refer.target(reference, Protocol.dmmi.convention)) == whole > masks.area(holes)
    small.instances["annotations"][0]["segmentation"] = [left, left]
    twice = Refer(small.write(tmp_path / "twice"), "refcoco", "unc")
    assert masks.area(twice.target(twice.references[0], Protocol.lavt.convention)) == 0


def test_rela_draws_polygons_at_480_and_leaves_crowds_out(tmp_path: Path) -> None:
    small = SmallSet({"val": 2}, 100, 200)
    triangle = [20.5, 10.2, 180.3, 40.7, 60.1, 90.9]
    small.instances["annotations"][0]["segmentation"] = [triangle]
    small.instances["annotations"][1]["iscrowd"] = 1
    refer = Refer(small.write(tmp_path), "refcoco", "unc")
    placed = [v * (480 / 200, 480 / 100)[i % 2] for i, v in enumerate(triangle)]
    wanted = coco_mask.decode(coco_mask.frPyObjects([placed], 480, 480))[..., 0]
    convention = Protocol.rela.convention
    np.testing.assert_array_equal(masks.decode(refer.target(refer.references[0], convention)), wanted)
    assert masks.area(refer.target(refer.references[1], convention)) == 0


def test_missing_unknown_and_elsewhere(world: Path, tmp_path: Path) -> None:
    refer = Refer(world, "refcoco", "unc")
    answers = moved(refer, "val")
    first = min(answers)
    other_split = refer.split("train")[0].expressions[0].sent_id
    given = {k: v for k, v in answers.items() if k != first} | {10**6: answers[first], other_split: answers[first]}
    found = score(refer, "val", Predictions(as_json(given, tmp_path / "m.json")), ["native"])
    assert (found.missing, found.unknown, found.elsewhere) == ((first,), (10**6,), 1)
    table = found.tables["native"]
    at = table["sent_id"].tolist().index(first)
    assert table["prediction"][at] == table["intersection"][at] == 0
    assert table["union"][at] == table["target"][at] > 0


BROKEN: list[tuple[Any, str]] = [
    ({}, "expected a list of masks, found dict"),
    ([], "holds no masks"),
    ([5], r'entry 0: expected \{"sent_id": int'),
    ([{"sent_id": "1"}], r'entry 0: expected \{"sent_id": int'),
    ([{"sent_id": 1}, {"sent_id": 1}], "entry 1: sent_id 1 occurs more than once"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[message[:25] for _, message in BROKEN])
def test_files_that_are_no_answers(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        Predictions(path)
    assert str(path) in str(caught.value)


WRONG_MASKS: list[tuple[Any, str]] = [
    (None, "segmentation is no RLE"),
    ([[1, 1, 2, 2, 3, 3]], "segmentation is no RLE"),
    ({"size": [64, 63], "counts": "abc"}, r"RLE of size \[64, 63\], image of \[64, 64\]"),
    ({"size": [64, 64], "counts": "PPPP"}, "damaged"),
    ({"size": [64, 64], "counts": [1, 2]}, "do not add up"),
]


@pytest.mark.parametrize(("segmentation", "message"), WRONG_MASKS, ids=[message[:25] for _, message in WRONG_MASKS])
def test_masks_that_are_none(world: Path, tmp_path: Path, segmentation: Any, message: str) -> None:
    refer = Refer(world, "refcoco", "unc")
    sent_id = refer.split("val")[0].expressions[0].sent_id
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"sent_id": sent_id, "segmentation": segmentation}]))
    with pytest.raises(DataError, match=message) as caught:
        score(refer, "val", Predictions(path), ["native"])
    assert f"sent_id {sent_id}" in str(caught.value)


def test_pictures_that_are_no_answers(world: Path, tmp_path: Path) -> None:
    refer = Refer(world, "refcoco", "unc")
    sent_id = refer.split("val")[0].expressions[0].sent_id
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(DataError, match=r"holds no masks; expected <sent_id>\.png"):
        Predictions(folder)
    for content, message in ((b"", "not a readable picture"), (b"text", "not a readable picture")):
        (folder / f"{sent_id}.png").write_bytes(content)
        with pytest.raises(DataError, match=message):
            score(refer, "val", Predictions(folder), ["native"])
    Image.new("L", (10, 20)).save(folder / f"{sent_id}.png")
    with pytest.raises(DataError, match="10x20 pixels, the image has 64x64"):
        score(refer, "val", Predictions(folder), ["native"])
    Image.new("L", (64, 64)).save(folder / "mask_1.png")
    with pytest.raises(DataError, match=r"mask_1\.png: its name is no sent_id"):
        Predictions(folder)


def test_the_parts_of_a_breakdown_are_the_whole(world: Path, tmp_path: Path) -> None:
    refer = locate(world, "ref-zom").read()
    found = score(refer, "test", Predictions(as_json(moved(refer, "test"), tmp_path / "m.json")), ["native"])
    parts = breakdown(found, "native")
    assert set(parts) == {
        "sentence length", "object size", "distractors of the same class", "position words", "objects meant",
    }  # fmt: skip
    everything = len(found.features.sentence)
    assert sum(part["expressions"] for part in parts["sentence length"].values()) == everything
    assert sum(part["expressions"] for part in parts["objects meant"].values()) == everything
    assert set(parts["objects meant"]) == {"none", "one", "several"}
    assert parts["objects meant"]["none"]["n_acc"] == 100
    assert sum(part["expressions"] for part in parts["position words"].values()) == everything
    for by in ("object size", "distractors of the same class"):
        assert (
            sum(p["expressions"] for p in parts[by].values())
            == everything - parts["objects meant"]["none"]["expressions"]
        )
    write_table(tmp_path / "t.parquet", found, "native")
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert {"sent_id", "image_id", "intersection", "union", "target", "no_target", "iou", "sentence"} <= table.keys()
    assert len(table["sent_id"]) == everything


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30))
def test_run_lengths_survive_the_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
    text = json.loads(json.dumps(masks.to_json(masks.encode(mask))))
    back = masks.from_segmentation(text, *mask.shape)
    np.testing.assert_array_equal(masks.decode(back).astype(bool), mask)
    uncompressed = {"size": list(mask.shape), "counts": _runs(mask)}
    np.testing.assert_array_equal(masks.decode(masks.from_segmentation(uncompressed, *mask.shape)), mask)


def _runs(mask: np.ndarray) -> list[int]:
    runs, value, length = [], False, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs, value, length = [*runs, length], pixel, 0
        length += 1
    return [*runs, length]


def test_places(world: Path) -> None:
    assert next(iter(data_folders(world))).dataset == "refcoco"
    assert locate(world / "refcocog").split_by == "umd"
    assert locate(world).title == "toy world, RefCOCO (unc)-like"
    with pytest.raises(DataError, match=r"no data set .refcocogg., found .*did you mean .refcocog."):
        locate(world, "refcocogg")
    with pytest.raises(DataError, match=r"refcoco has no partition 'umd', found \['unc'\]"):
        locate(world, "refcoco", "umd")


@pytest.mark.parametrize(
    ("dataset", "split_by", "split", "protocol"),
    [("refcoco", "unc", "val", "cris"), ("grefcoco", "unc", "testA", "native")],
)
def test_an_exported_run_scores_like_the_run(
    world: Path, tmp_path: Path, dataset: str, split_by: str, split: str, protocol: str
) -> None:
    """`predict --export`, then `score`, gives the digits of `test`, under protocols that score at the original size."""
    import yaml

    folder = tmp_path / protocol
    config = tiny_config(
        trainer__default_root_dir=str(folder),
        data__init_args__root=str(world),
        data__init_args__dataset=dataset,
        data__init_args__split_by=split_by,
        data__init_args__protocol=protocol,
        data__init_args__test_splits=[split],
        data__init_args__limit_val_images=None,
    )
    del config["data"]["init_args"]["generate"]
    config["model"]["init_args"]["threshold"] = 0.3
    path = tmp_path / f"{protocol}.yaml"
    path.write_text(yaml.safe_dump(config))
    for command in (("test",), ("predict", "--export", str(tmp_path / f"{protocol}.json"))):
        done = rislab(command[0], "--config", str(path), *command[1:])
        assert done.returncode == 0, done.stderr
        assert "no --ckpt_path: CRISTask has the weights that its training starts from" in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / f"{protocol}.json")
    done = rislab(
        "score", str(tmp_path / f"{protocol}.json"), "--data", str(world), "--dataset", dataset,
        "--split", split, "--protocol", protocol, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    tested = json.loads((folder / "metrics.json").read_text())["splits"][split]
    shared = [name for name in Protocol[protocol].convention.averages if name in tested]
    assert shared
    assert {name: scored[name] for name in shared} == {name: tested[name] for name in shared}
    assert not scored["missing"]


def test_the_numbers_are_printed_although_the_file_cannot_be_written(world: Path, tmp_path: Path) -> None:
    refer = Refer(world, "refcoco", "unc")
    given = as_json(moved(refer, "val", 0), tmp_path / "m.json")
    (tmp_path / "file").write_text("")
    command = (
        "score",
        str(given),
        "--data",
        str(world),
        "--split",
        "val",
        "--out",
        str(tmp_path / "file" / "x.parquet"),
    )
    done = rislab_here(*command, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["miou_expr"] == 100
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"rislab: {tmp_path / 'file' / 'x.parquet'}: could not be written (")
    )
    done = rislab_here(*command)
    assert (done.returncode, "100.00" in done.stdout, "per expression" in done.stdout) == (2, True, False)


def test_what_else_lies_in_a_folder_of_masks_is_counted(world: Path, tmp_path: Path) -> None:
    refer = Refer(world, "refcoco", "unc")
    folder = as_pictures(moved(refer, "val", 0), tmp_path / "m")
    first = sorted(folder.iterdir())[0]
    for name in (f"._{first.name}", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\26\7")
    first.rename(first.with_suffix(".PNG"))
    (folder / "notes.txt").write_text("")
    (folder / "7.jpg").write_text("")
    (folder / "old").mkdir()
    found = Predictions(folder)
    assert found.others == ["7.jpg", "notes.txt", "old"]
    done = rislab_here("score", str(folder), "--data", str(world), "--split", "val", "--json")
    shown = json.loads(done.stdout)
    assert (shown["miou_expr"], shown["missing"], shown["other_files"]) == (100.0, [], 3)
    done = rislab_here("score", str(folder), "--data", str(world), "--split", "val")
    assert "3 files that are no PNG were left alone (7.jpg, notes.txt, old)" in done.stdout


def test_ids_that_a_tool_wrote_as_floats_are_whole_numbers(tmp_path: Path) -> None:
    rle = {"size": [2, 2], "counts": [4]}
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"sent_id": 5.0, "segmentation": rle}]))
    assert list(Predictions(path)) == [5]
    for wrong in ("5", 5.5, True, None, [5], float("nan"), float("inf")):
        path.write_text(json.dumps([{"sent_id": wrong, "segmentation": rle}]))
        with pytest.raises(DataError, match=r'entry 0: expected \{"sent_id": int'):
            Predictions(path)
