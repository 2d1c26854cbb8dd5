"""Training on label maps: labels lie on their pixels, processes share out an epoch, and nothing depends on how it is loaded."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rislab.data.benchmark_trees import benchmark
from rislab.data.geometry import Letterbox, Stretch
from rislab.data.required_files import label_maps
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.data.transforms import LongSideScaleCrop, Transform
from rislab.datamodules.label_maps import LabelMapsData, placed_labels
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.errors import DataError
from tests.data.small import Recorder, trainer

CROP = LongSideScaleCrop((48, 48), (40, 90))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "world"
    ToyVocabulary(scenes=45, pairs=2, size=64).write(folder)
    return folder


def ready(root: Path, transform: Transform | None = None, **options: Any) -> LabelMapsData:
    """The data module as a Trainer has it before its loaders are made."""
    module = LabelMapsData(SemanticData(str(root), "toy_voc", SemanticProtocol.toy), batch_size=2, **options)
    module.trainer = trainer()
    method = Recorder(48, transform)
    method.geometry = Stretch(48)  # type: ignore[assignment]  # labels fill the frame
    module.trainer.strategy.connect(method)
    module.setup("fit")
    return module


def batches(module: LabelMapsData) -> list[tuple[bytes, bytes]]:
    loader = module.train_dataloader()
    found = [(batch.images.numpy().tobytes(), batch.labels.numpy().tobytes()) for batch in loader]
    loader.close()
    return found


@pytest.mark.parametrize("transform", [None, CROP], ids=["frame", "crop"])
def test_loader_processes_and_a_resume_change_no_byte(root: Path, transform: Transform | None) -> None:
    alone = batches(ready(root, transform))
    assert len(alone) == 4
    assert batches(ready(root, transform, num_workers=2)) == alone
    assert batches(ready(root, transform, seed=1)) != alone
    loader = ready(root, transform).train_dataloader()
    loader.load_state_dict({"epoch": 0, "given": 1, "of": 4})
    assert [batch.images.numpy().tobytes() for batch in loader] == [images for images, _ in alone[1:]]


@pytest.mark.parametrize("transform", [None, CROP], ids=["frame", "crop"])
def test_a_batch_is_pictures_with_the_labels_of_the_vocabulary(root: Path, transform: Transform | None) -> None:
    module = ready(root, transform)
    (batch, *_) = module.train_dataloader()
    assert batch.images.shape == (2, 3, 48, 48)
    assert batch.labels.shape == (2, 48, 48)
    assert batch.labels.dtype == torch.uint8
    assert batch.has_background
    assert batch.names == module.scored.names
    labels = set(batch.labels.unique().tolist())
    assert len(labels - {0, 255}) > 1
    assert labels <= {*range(len(batch.names) + 1), 255}


def test_processes_share_out_an_epoch_equally(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = []
    for rank in range(3):
        monkeypatch.setattr(LabelMapsData, "rank_and_world_size", property(lambda _, rank=rank: (rank, 3)))
        shards.append([image_id for batch in ready(root).train_dataloader() for image_id in batch.image_ids])
    assert [len(shard) for shard in shards] == [2, 2, 2]
    assert len({image_id for shard in shards for image_id in shard}) == 6
    monkeypatch.setattr(LabelMapsData, "rank_and_world_size", property(lambda _: (0, 30)))
    with pytest.raises(DataError, match="do not fill one batch of 2 on each of 30 processes"):
        ready(root).train_dataloader()


@pytest.mark.parametrize("geometry", [Stretch(96), Letterbox(96)], ids=["stretch", "letterbox"])
def test_labels_lie_where_their_pixels_lie(geometry: Stretch | Letterbox) -> None:
    """Squares of 24 pixels with their number in both: whatever the frame, a label is that of its pixel."""
    numbers = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(24, 0).repeat(24, 1)
    picture = np.stack([numbers * 40] * 3, axis=-1)
    placement = geometry.place(*numbers.shape)
    labels, seen = placed_labels(numbers, placement), geometry.image(picture, placement)[..., 0]
    inside = labels != 255
    assert inside.all() == placement.is_stretched
    exact = inside & (seen % 40 == 0)  # not between two squares, where pictures are interpolated
    assert exact.mean() > 0.5
    assert np.array_equal(labels[exact], seen[exact] // 40)


def test_a_plan_names_the_training_split_too(tmp_path: Path) -> None:
    inner = {"root": str(tmp_path), "name": "voc21", "val_split": "val", "generate": None}
    missing = [each.path for each in label_maps({"benchmark_data": {"init_args": inner}, "train_split": "train_aug"})]
    assert any(path.endswith("Segmentation/train_aug.txt") for path in missing)
    assert not list(label_maps({"benchmark_data": {"init_args": inner | {"generate": {}}}, "train_split": "train"}))


def write_tree(root: Path, name: str, stored: list[int], is_raw: bool) -> list[Path]:
    """A benchmark as its release lays it out: two pictures of each split, whose columns have stored values. The training maps."""
    of, maps = benchmark(name), []
    folder = root / of.folders[0]
    pattern = of.raw if is_raw and of.raw is not None else of.labels
    for split in ("train", "val"):
        on_disk = of.split_folders.get(split, split)
        names = [f"aachen/aachen_{split}_{n}" if name == "cityscapes" else f"{split}_{n}" for n in range(2)]
        for each in names:
            image, label = (folder / one.format(each, split=on_disk) for one in (of.images, pattern))
            for path, mode, values in (
                (image, "RGB", np.full((16, 8 * len(stored), 3), 99)),
                (label, "L", np.array([stored]).repeat(8, 1).repeat(16, 0)),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8), mode).save(path)
            maps += [label] if split == "train" else []
        if of.list_file is not None:
            listed = folder / of.list_file.format(split=split)
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("".join(f"{each}\n" for each in names))
    return maps


@pytest.mark.parametrize(
    ("name", "is_raw", "stored", "meant", "wrong"),
    [
        ("ade20k", False, [0, 1, 150], [255, 0, 149], 151),
        ("voc21", False, [0, 20, 255], [0, 20, 255], 21),
        ("coco_stuff", True, [0, 181, 255], [0, 170, 255], 11),
        ("coco_object", True, [0, 89, 91], [1, 80, 0], 11),
        ("cityscapes", True, [0, 7, 33], [255, 0, 18], None),
        ("cityscapes", False, [255, 0, 18], [255, 0, 18], 19),
    ],
)
@pytest.mark.filterwarnings("ignore:.* pictures, published")
def test_training_reads_the_official_trees_and_names_a_wrong_map(
    tmp_path: Path, name: str, is_raw: bool, stored: list[int], meant: list[int], wrong: int | None
) -> None:
    maps = write_tree(tmp_path, name, stored, is_raw)

    def first() -> torch.Tensor:
        module = LabelMapsData(SemanticData(str(tmp_path), name), batch_size=2)
        module.trainer = trainer()
        method = Recorder(48)
        method.geometry = Stretch(48)  # type: ignore[assignment]  # labels fill the frame
        module.trainer.strategy.connect(method)
        module.setup("fit")
        (batch,) = module.train_dataloader()
        return batch.labels

    assert first()[:, 24, 8::16].tolist() == [meant] * 2
    if wrong is not None:
        Image.fromarray(np.full((16, 24), wrong, np.uint8)).save(maps[1])
        with pytest.raises(
            DataError, match=rf"{maps[1].name}: value {wrong} is no label of {re.escape(benchmark(name).title)}"
        ):
            first()
    Image.fromarray(np.zeros((16, 23), np.uint8)).save(maps[1])
    with pytest.raises(DataError, match=rf"{maps[1].name}: 23x16 pixels, its picture .* has 24x16"):
        first()
