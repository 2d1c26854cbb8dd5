"""Official trees of the open-vocabulary benchmarks, written small; labels, names and everything that goes wrong with them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from torchvision import transforms

from rislab.data.benchmark_trees import Tree, benchmark, class_names, fitted
from rislab.data.benchmarks.coco_stuff import RAW
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.errors import ConfigError, DataError
from rislab.nn.sliding import NO_MARGINS, boxes, label_map, starts
from tests.worlds import ROOT, rislab

CLASSES = {
    "voc21": 21,
    "voc20": 20,
    "context60": 60,
    "context59": 59,
    "coco_object": 81,
    "coco_stuff": 171,
    "cityscapes": 19,
}
CLASSES["ade20k"] = 150


def put(path: Path, values: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values.astype(np.uint8))
    if palette:
        picture = Image.fromarray(values.astype(np.uint8), mode="P")
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def tree(root: Path, name: str, stored: np.ndarray, raw: bool = False) -> Tree:
    """One picture of a benchmark as its release lays it out."""
    of = benchmark(name)
    split = of.split_folders.get("val", "val")
    picture = "frankfurt/frankfurt_000000_000294" if name == "cityscapes" else "000000000139"
    folder = root / of.folders[0]
    put(folder / of.images.format(picture, split=split), np.zeros((*stored.shape, 3)))
    assert not raw or of.raw is not None
    pattern = of.raw if raw and of.raw is not None else of.labels
    put(folder / pattern.format(picture, split=split), stored, palette=name.startswith("voc"))
    if of.list_file is not None:
        path = folder / of.list_file.format(split=split)
        path.parent.mkdir(parents=True)
        path.write_text(f"{picture}\n")
    return Tree(root, of)


@pytest.mark.parametrize(("name", "count"), CLASSES.items())
def test_published_numbers_of_classes(name: str, count: int) -> None:
    of = benchmark(name)
    names = class_names(of.names, "mmseg")
    assert len(names) + of.has_background == count
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "stored", "meant"),
    [
        ("voc21", [0, 1, 20, 255], [0, 1, 20, 255]),
        ("voc20", [0, 1, 20, 255], [255, 0, 19, 255]),
        ("context60", [0, 59, 255, 3], [0, 59, 255, 3]),
        ("context59", [0, 59, 255, 3], [255, 58, 255, 2]),
        ("coco_object", [0, 80, 1, 2], [0, 80, 1, 2]),
        ("coco_stuff", [0, 170, 255, 80], [0, 170, 255, 80]),
        ("cityscapes", [0, 18, 255, 1], [0, 18, 255, 1]),
        ("ade20k", [0, 1, 150, 2], [255, 0, 149, 1]),
    ],
)
def test_labels(tmp_path: Path, name: str, stored: list[int], meant: list[int]) -> None:
    found = tree(tmp_path, name, np.array([stored]))
    (item,) = found.items("val")
    assert found.label(item, CLASSES[name]).tolist() == [meant]


@pytest.mark.parametrize(
    ("name", "stored", "meant"),
    [
        ("coco_stuff", [0, 12, 91, 181, 255], [0, RAW[12], RAW[91], 170, 255]),
        ("coco_object", [0, 12, 89, 91, 255], [1, RAW[12] + 1, 80, 0, 0]),
        ("cityscapes", [7, 33, 0, 26, 29], [0, 18, 255, 13, 255]),
    ],
)
def test_maps_of_the_release_need_no_conversion(tmp_path: Path, name: str, stored: list[int], meant: list[int]) -> None:
    found = tree(tmp_path, name, np.array([stored]), raw=True)
    (item,) = found.items("val")
    assert item.is_raw
    assert found.label(item, CLASSES[name]).tolist() == [meant]


@pytest.mark.parametrize("size", [(500, 375), (281, 500), (330, 330), (200, 311)])
def test_recos_protocol_shows_and_scores_the_square_in_the_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    """As torchvision makes it: the oracle here."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 60, size)
    found = tree(tmp_path, "context59", stored)
    (item,) = found.items("val")
    picture = Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    picture.save(item.image, "PNG")
    (sample,) = SemanticData(str(tmp_path), "context59", SemanticProtocol.reco).val_dataloader()
    crop = transforms.CenterCrop(320)
    shown = crop(transforms.Resize(320, transforms.InterpolationMode.BILINEAR)(picture))
    scored = crop(
        transforms.Resize(320, transforms.InterpolationMode.NEAREST)(Image.fromarray(stored.astype(np.uint8)))
    )
    assert np.array_equal(sample.images[0].permute(1, 2, 0).numpy(), np.asarray(shown))
    assert np.array_equal(sample.labels[0], np.asarray(scored) - np.uint8(1)), "0 is ignored, names count from 0"


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    found = tree(tmp_path, "voc21", np.array([[0, 21]]))
    (item,) = found.items("val")
    with pytest.raises(DataError, match=r"000000000139.png: value 21 is no label of PASCAL VOC \(21\)"):
        found.label(item, 21)
    put(item.label, np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match="one byte a pixel, this one is RGB"):
        found.label(item, 21)
    item.label.unlink()
    with pytest.raises(DataError, match=r"1 files are missing, the first is .*000000000139\.png"):
        found.items("val")
    with pytest.raises(DataError, match="no list of split 'test'"):
        found.items("test")
    with pytest.raises(DataError, match="no COCO-Stuff"):
        Tree(tmp_path, benchmark("coco_stuff"))
    with pytest.raises(ConfigError, match="did you mean 'voc21'"):
        benchmark("voc12")
    with pytest.raises(ConfigError, match="there are mmseg, groupvit"):
        class_names("voc", "tcl")
    with pytest.raises(ConfigError, match="no names 'groupvit' of coco_stuff were found in a source; there are mmseg"):
        SemanticData(str(tmp_path), "coco_stuff", SemanticProtocol.groupvit)


def test_a_raw_value_in_a_gap_is_an_error(tmp_path: Path) -> None:
    found = tree(tmp_path, "coco_stuff", np.array([[11, 0]]), raw=True)
    with pytest.raises(DataError, match="value 11 is no label"):
        found.label(found.items("val")[0], 171)


def test_renames_keep_the_order() -> None:
    mmseg, groupvit = (class_names("voc", kind) for kind in ("mmseg", "groupvit"))
    assert [(a, b) for a, b in zip(mmseg, groupvit, strict=True) if a != b] == [
        ("diningtable", "table"),
        ("pottedplant", "plant"),
        ("tvmonitor", "monitor"),
    ]
    assert class_names("coco_things", "groupvit") == class_names("coco_stuff", "mmseg")[:80], "GroupViT renames nothing"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (448, 597)), ((1024, 2048), (448, 896)), ((100, 1000), (205, 2048)), ((500, 333), (673, 448))],
)
def test_fitted(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(np.zeros((*size, 3), np.uint8), 448, 2048).shape[:2] == expected


def test_windows_cover_and_end_at_the_border() -> None:
    assert starts(448, 448, 224) == [0]
    assert starts(597, 448, 224) == [0, 149]
    assert starts(2048, 448, 224)[-2:] == [1568, 1600]
    seen = np.zeros((100, 130), int)
    for y1, y2, x1, x2 in boxes(100, 130, 64, 32):
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1


def test_a_label_map_needs_few_classes_at_a_time_and_ties_go_to_the_first() -> None:
    scores = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    scores[:, 5] = scores[:, 2]
    image = torch.zeros(3, 32, 32)
    expected = torch.nn.functional.interpolate(scores, (32, 32), mode="bilinear", align_corners=False)
    for at_once in (1, 4, 9):
        found = label_map(lambda _: (scores, NO_MARGINS), image, (32, 32), 32, 16, at_once)
        assert torch.equal(found, expected[0].argmax(0))


def test_toy_world_is_a_voc_tree(tmp_path: Path) -> None:
    world = ToyVocabulary(scenes=5, pairs=3, size=64)
    world.write(tmp_path / "toy")
    before = {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*") if path.is_file()}
    world.write(tmp_path / "toy")
    world.write(tmp_path / "again")
    after = {
        tmp_path / "toy" / p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*.*")
    }
    assert {path: data for path, data in before.items() if path.suffix} == after, "same recipe, same bytes"
    with pytest.raises(DataError, match="choose another folder"):
        ToyVocabulary(scenes=6, pairs=3, size=64).write(tmp_path / "toy")
    root = str(tmp_path / "toy")
    data = SemanticData(root, "toy_voc", SemanticProtocol.toy, test_splits=["test", "val"])
    assert [len(loader) for loader in data.test_dataloader()] == [3, 1]
    assert len(data.val_dataloader()) == 1
    listed = [item.name for split in ("train", "val", "test") for item in data.items(split)]
    assert sorted(set(listed)) == sorted(listed), "a picture is in one split"
    (batch,) = list(data.test_dataloader()[0])[:1]
    assert batch.has_background
    assert len(data.classes) == 17
    assert {0, 255} < set(np.unique(batch.labels[0]).tolist())


@pytest.mark.parametrize("table", ["tcl", "tcl-choices"])
def test_selection_has_not_seen_the_reported_split(table: str) -> None:
    profile = yaml.safe_load((ROOT / "ablations" / f"{table}.yaml").read_text())["profiles"]["toy"]
    config = yaml.safe_load((ROOT / profile["config"][0]).read_text())
    scored = config["data"]["init_args"]["benchmark_data"]["init_args"]
    assert scored["test_splits"] == [profile["split"]]
    assert profile["split"] != scored.get("val_split", "val")


@pytest.mark.parametrize("method", ["clip", "maskclip", "tcl"])
def test_methods_are_scored_on_it_as_typed(method: str, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "experiments" / method / "toy_voc.yaml").read_text())
    config["trainer"] |= {"default_root_dir": str(tmp_path), "enable_progress_bar": False}
    config["model"]["init_args"]["clip"]["pretrained"] = None
    data = config["data"]["init_args"]
    data["root"], data["generate"]["init_args"] = str(tmp_path / "toy"), {"scenes": 5, "pairs": 3, "size": 64}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = rislab("test", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["benchmark"], found["protocol"], found["names"]) == ("toy world, toy VOC (17)", "toy", "mmseg")
    assert {split: one["images"] for split, one in found["splits"].items()} == {"test": 3}
    kept = json.loads((tmp_path / "predictions" / "label_maps.json").read_text())
    assert sorted(one["image_id"] for one in kept) == [0, 1, 2]
    assert all(
        (tmp_path / "predictions" / one[what]).is_file() for one in kept for what in ("image", "target", "prediction")
    )
    rows = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    union: dict[int, tuple[int, int]] = {}
    for c, i, p, t in zip(rows["class"], rows["intersection"], rows["prediction"], rows["target"], strict=True):
        top, bottom = union.get(c, (0, 0))
        union[c] = (top + i, bottom + p + t - i)
    miou = 100 * np.mean([top / bottom for top, bottom in union.values() if bottom])
    assert miou == pytest.approx(found["splits"]["test"]["miou_class"])
