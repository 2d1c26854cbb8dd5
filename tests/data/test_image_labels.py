"""Image-level labels: where they come from, what is refused, what training and scoring get of them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rislab.data.batch import ImageLabels
from rislab.data.benchmark_trees import read_labels
from rislab.data.geometry import Stretch
from rislab.data.image_labels import WeakPictures, from_npy, from_xml, objects
from rislab.data.toy.image_labels import ToyImageLabels
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.data.transforms import LongSideScaleCrop, Transform
from rislab.datamodules.image_labels import ImageLabelsData
from rislab.errors import ConfigError, DataError
from rislab.evaluation.activation_maps import ActivationMapEvaluation
from rislab.evaluation.arithmetic import SweptArithmetic, arithmetic_of
from rislab.evaluation.semantic import class_counts
from tests.data.small import Recorder, trainer

NAMES = ("cat", "dog", "tree")
WORLD = ToyImageLabels(scenes=40, size=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weak") / "world"
    WORLD.write(folder)
    return folder


def voc(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def ready(root: Path, transform: Transform | None = None, **options: Any) -> ImageLabelsData:
    """The data module as a Trainer has it before its loaders are made."""
    module = ImageLabelsData(
        str(root), "toy_voc", **({"batch_size": 4, "threshold": 0.3, "sweep": (0.1, 0.5)} | options)
    )
    module.trainer = trainer()
    method = Recorder(48, transform)
    method.geometry = Stretch(48)  # type: ignore[assignment]
    module.trainer.strategy.connect(method)
    module.setup("fit")
    return module


def annotation(folder: Path, name: str, *classes: str, extra: str = "") -> None:
    (folder / "Annotations").mkdir(exist_ok=True)
    parts = "".join(
        f"<object><name>{each}</name><difficult>1</difficult><part><name>head</name></part></object>"
        for each in classes
    )
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{extra}{parts}</annotation>")


def test_objects_of_an_annotation_difficult_ones_too_and_no_parts(tmp_path: Path) -> None:
    annotation(tmp_path, "2007_000001", "dog", "dog", "unicorn")
    annotation(tmp_path, "2007_000002", "tree", "cat")
    annotation(tmp_path, "2007_000003")
    found = from_xml(tmp_path, ["2007_000001", "2007_000002", "2007_000003"], NAMES)
    assert found.tolist() == [[False, True, False], [True, False, True], [False] * 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"2007_000001\.xml: not readable as XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
        ("<image/>", "begins with <image>, expected <annotation>"),
        ("<annotation><object/></annotation>", "an object without a name"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "2007_000001.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        objects(tmp_path / "2007_000001.xml")
    with pytest.raises(DataError, match="no such file"):
        objects(tmp_path / "absent.xml")


def saved(path: Path, value: Any, protocol: int) -> Path:
    """As np.save writes an object, with any protocol."""
    array = np.empty((), object)
    array[()] = value
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_saved_labels_are_read_by_name_or_number(tmp_path: Path, protocol: int) -> None:
    rows = {20070001: np.array([0, 1, 0], np.float32), 2007000032: np.array([1, 0, 1], np.float32)}
    path = saved(tmp_path / "cls_labels.npy", rows, protocol)
    assert from_npy(path, ["2007_000032", "2007_0001"], 3).tolist() == [[True, False, True], [False, True, False]]
    named = saved(tmp_path / "named.npy", {"a_1": np.array([0, 1, 0], np.float32)}, protocol)
    assert from_npy(named, ["a_1"], 3).tolist() == [[False, True, False]]


def test_saved_labels_as_python_2_wrote_them(tmp_path: Path) -> None:
    header = tmp_path / "header.npy"
    saved(header, {}, 2)
    start = header.read_bytes().index(b"\x80")
    # Protocol 2 of Python 2: bytes are BINSTRINGs.
    raw = np.array([0.0, 1.0], np.float32).tobytes()
    body = (
        b"\x80\x02}(I2007000032\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(U\x02f4I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x08" + raw + b"tbu."
    )
    path = tmp_path / "old.npy"
    path.write_bytes(header.read_bytes()[:start] + body)
    assert from_npy(path, ["2007_000032"], 2).tolist() == [[False, True]]


class Malicious:
    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Malicious, "ran", True))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "cls_labels.npy", {20070001: Malicious()}, 4)
    with pytest.raises(DataError, match=r"cls_labels\.npy: picture '2007_0001' has Placeholder"):
        from_npy(path, ["2007_0001"], 3)
    assert not Malicious.ran


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({20070001: np.zeros(20, np.float32)}, r"has an array of shape \(20,\), expected 3 numbers"),
        ({20070001: np.full(3, 0.5, np.float32)}, "each 0 or 1"),
        ({7: np.zeros(3, np.float32)}, "has no labels of picture '2007_0001'; its first key is 7"),
        ({}, "holds no dict"),
    ],
)
def test_other_saved_files_are_named(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_npy(saved(tmp_path / "x.npy", value, 4), ["2007_0001"], 3)
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("labels")
    for name, wrong in (("numbers", "holds an array of float64"), ("text", "no file of numpy's")):
        with pytest.raises(DataError, match=wrong):
            from_npy(tmp_path / f"{name}.npy", ["2007_0001"], 3)


def test_the_toy_world_has_labels_for_what_its_maps_show(root: Path) -> None:
    module = ready(root)
    for split, count in (("train", 4), ("train_aug", 28), ("val", 4), ("test", 8)):
        items = module.tree().items(split)
        assert len(items) == count
        for item, row in zip(items, module.present(items), strict=True):
            drawn = set(np.unique(read_labels(item.label)).tolist()) - {0, 255}
            assert drawn == set((np.flatnonzero(row) + 1).tolist())
    trained = {item.name for item in module.tree().listed("train_aug")}
    assert {item.name for item in module.tree().listed("train")} < trained
    assert not {item.name for split in ("val", "test") for item in module.tree().listed(split)} & trained


def test_a_world_of_another_kind_is_not_written_over(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose another folder"):
        ToyVocabulary(scenes=40, pairs=1, size=64).write(root)
    ToyVocabulary(scenes=5, pairs=1, size=64).write(tmp_path / "plain")
    with pytest.raises(DataError, match="choose another folder"):
        WORLD.write(tmp_path / "plain")


CROP = LongSideScaleCrop((48, 48), (40, 90), fill=(1, 2, 3), cubic=True, pad_at="random")


@pytest.mark.parametrize("transform", [None, CROP], ids=["frame", "crop"])
def test_loader_processes_and_a_resume_change_no_byte(root: Path, transform: Transform | None) -> None:
    def batches(module: ImageLabelsData) -> list[ImageLabels]:
        loader = module.train_dataloader()
        found = list(loader)
        loader.close()
        assert all(isinstance(batch, ImageLabels) for batch in found)
        return found  # type: ignore[return-value]

    def same(a: list[ImageLabels], b: list[ImageLabels]) -> bool:
        return all(
            torch.equal(x.images, y.images) and torch.equal(x.present, y.present) for x, y in zip(a, b, strict=True)
        )

    alone = batches(ready(root, transform))
    assert len(alone) == 7
    assert alone[0].images.shape == (4, 3, 48, 48)
    assert alone[0].present.shape == (4, 16)
    assert alone[0].present.any(1).all()
    assert same(batches(ready(root, transform, num_workers=2)), alone)
    assert not same(batches(ready(root, transform, seed=1)), alone)
    loader = ready(root, transform).train_dataloader()
    loader.load_state_dict({"epoch": 0, "given": 5, "of": 7})
    assert same(list(loader), alone[5:])  # type: ignore[arg-type]


def test_processes_share_out_pictures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, scored = [], []
    for rank in range(3):
        monkeypatch.setattr(ImageLabelsData, "rank_and_world_size", property(lambda _, rank=rank: (rank, 3)))
        trained.append([number for batch in ready(root).train_dataloader() for number in batch.image_ids])
        scored.append([number for batch in ready(root).val_dataloader() for number in batch.ids])
    assert [len(part) for part in trained] == [8, 8, 8]
    assert len({number for part in trained for number in part}) == 24
    assert sorted(number for part in scored for number in part) == [0, 1, 2, 3]


def test_training_reads_no_label_map(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "world"
    WORLD.write(copy)
    scored = {item.name for item in ready(copy).tree().items("train")}
    for path in (voc(copy) / "SegmentationClass").iterdir():
        if path.stem not in scored:
            path.unlink()
    assert len(list(ready(copy).train_dataloader())) == 7
    (voc(copy) / "JPEGImages" / "2026_000003.jpg").unlink()
    with pytest.raises(DataError, match=r"train_aug: 1 files are missing, the first is .*2026_000003\.jpg"):
        ready(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "voc20"}, "has no background"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"threshold": 1.0}, "threshold and sweep"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageLabelsData("x", **options)


class Answering:
    """Maps that are given."""

    mask_threshold = 0.5
    vocabulary = None

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        self.maps = maps

    def activation_maps(self, image: torch.Tensor, names: list[str]) -> Any:
        full = torch.stack([self.maps[name] for name in names]) if names else torch.zeros(0, *image.shape[1:])
        return type("Maps", (), {"full": full})


EVALUATION = ActivationMapEvaluation(("background", *NAMES), 0.15, (0.05, 0.15, 0.5))


def pictures(*present: tuple[int, ...]) -> WeakPictures:
    label = np.array([[0, 1, 1, 255], [0, 0, 3, 3]], np.uint8)
    count = len(present)
    images = [torch.zeros(3, 2, 4, dtype=torch.uint8)] * count
    viewing: Any = None
    return WeakPictures(images, [label] * count, NAMES, True, viewing, list(range(count)), present=list(present))


def test_only_the_classes_of_the_label_are_answered_at_every_threshold() -> None:
    cat = torch.tensor([[0.1, 0.6, 0.2, 0.0], [0.0, 0.0, 0.3, 0.1]])
    tree = torch.tensor([[0.15, 0.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.4]])
    method: Any = Answering({"cat": cat, "dog": torch.ones(2, 4), "tree": tree})
    batch = pictures((0, 2), ())
    assert EVALUATION.refuse(method) is None
    both, none = EVALUATION.answers(method, batch, EVALUATION.predict(method, batch))
    assert EVALUATION.thresholds == [150, 50, 500]
    assert both.tolist() == [
        [[0, 1, 1, 0], [0, 0, 3, 3]],
        [[3, 1, 1, 0], [0, 0, 3, 3]],
        [[0, 1, 0, 0], [0, 0, 3, 0]],
    ], "a value that is equal to the background's is background"
    assert not none.any()
    rows = EVALUATION.rows(batch, [both, none])
    table = dict(zip(EVALUATION.arithmetic.columns, rows.T, strict=True))
    for number, answers in enumerate((both, none)):
        for threshold, answer in zip(EVALUATION.thresholds, answers, strict=True):
            mine = rows[(rows[:, 0] == number) & (rows[:, 1] == threshold)]
            assert np.array_equal(np.delete(mine, 1, 1), class_counts(answer, batch.labels[0], 4, number))
    scores, summary = EVALUATION.arithmetic.scores(table), EVALUATION.arithmetic.summary(table)
    # Of 7 scored pixels a picture: background 3 of 3 + 4 more where nothing was answered, cat and tree 2 of 4 each.
    assert scores["miou_class"] == pytest.approx(100 * np.mean([6 / 10, 2 / 4, 2 / 4]))
    assert scores["miou_class_best"] == scores["miou_class"] == summary["miou_class@0.15"]
    assert summary["best_threshold"] == 0.15
    assert summary["miou_class@0.5"] < summary["miou_class@0.05"] < summary["miou_class@0.15"]


def test_the_best_threshold_is_reported_beside_the_fixed_one_and_again_from_a_file() -> None:
    method: Any = Answering({"cat": torch.full((2, 4), 0.1), "tree": torch.zeros(2, 4)})
    batch = pictures((0, 2))
    batch.labels[0][:] = 1
    rows = EVALUATION.rows(batch, EVALUATION.answers(method, batch, EVALUATION.predict(method, batch)))
    table = dict(zip(EVALUATION.arithmetic.columns, rows.T, strict=True))
    scores = EVALUATION.arithmetic.scores(table)
    assert (scores["miou_class"], scores["miou_class_best"]) == (0.0, 100.0)
    again = arithmetic_of(EVALUATION.facts() | {"protocol": "cam"})
    assert isinstance(again, SweptArithmetic)
    for name in again.metrics:
        top, bottom = (part.sum(0) for part in again.parts(table, name))
        assert 100 * (top[bottom > 0] / bottom[bottom > 0]).mean() == pytest.approx(scores[name]), name


def test_methods_without_maps_and_with_other_names_are_refused() -> None:
    assert EVALUATION.refuse(Recorder(16)) == "it makes no activation maps"  # type: ignore[arg-type]
    method: Any = Answering({})
    method.vocabulary = ("background", "cat", "tree")
    assert EVALUATION.refuse(method) == "it answers its own class names only, and not 'dog'"
