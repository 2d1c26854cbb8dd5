import os
import pickle
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rislab.data import masks
from rislab.data.batch import MaskQueries
from rislab.data.geometry import Letterbox
from rislab.data.queries import ByteCache
from rislab.data.sampling import Holdout
from rislab.data.toy.world import ToyWorld
from rislab.data.transforms import Transform
from rislab.datamodules.referring import ReferringData
from rislab.errors import ConfigError, DataError
from tests.data.small import Recorder, SmallSet, square, trainer
from tests.forks import forking

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*published.*",  # the sets are small
)


@pytest.fixture
def small() -> SmallSet:
    return SmallSet({"train": 6, "val": 3, "testB": 2, "testA": 2})


def ready(root: Path, size: int = 16, transform: Transform | None = None, **options: Any) -> ReferringData:
    """The data module as a Trainer has it before its loaders are made."""
    module = ReferringData(str(root), **options)
    module.trainer = trainer()
    module.trainer.strategy.connect(Recorder(size, transform))
    module.prepare_data()
    return module


def test_a_training_batch_is_images_and_soft_targets(small: SmallSet, tmp_path: Path) -> None:
    module = ready(small.write(tmp_path), batch_size=6, references_per_image=3)
    batches = list(module.train_dataloader())
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (2, 3, 16, 16)
        assert batch.targets is None
        assert batch.masks is not None
        assert batch.masks.shape == (len(batch), 16, 16)
        assert batch.image_index.tolist() == sorted(batch.image_index.tolist())
        for n, ref_id in enumerate(batch.ref_ids):
            reference = module.refer.references[ref_id]
            row = int(batch.image_index[n])
            assert reference.image_id == batch.image_ids[row]
            frame = Letterbox(16)
            placement = frame.place(24, 32)
            soft = frame.mask(masks.decode(module.refer.target(reference)), placement)
            np.testing.assert_array_equal(batch.masks[n], soft)
            picture = frame.image(module.refer.image(reference.image_id), placement)
            np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0), picture)
            assert batch.texts[n] in {e.sent for e in reference.expressions}
    assert sum(len(batch.image_ids) for batch in batches) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_changes_nothing_but_reading(small: SmallSet, tmp_path: Path, workers: int) -> None:
    module = ready(small.write(tmp_path), batch_size=2, cache_mb=1, num_workers=workers)
    plain, cached = ready(tmp_path, batch_size=2).train_dataloader(), module.train_dataloader()
    list(cached)
    expected = [*plain, *plain][len(plain) :]
    for path in (tmp_path / "images" / "train2014").iterdir():
        path.unlink()  # by now everything is in memory, that of this process and its workers
    for ours, theirs in zip(cached, expected, strict=True):
        assert ours.sent_ids == theirs.sent_ids
        assert torch.equal(ours.images, theirs.images)
        assert ours.masks is not None
        assert theirs.masks is not None
        assert torch.equal(ours.masks, theirs.masks)
    module.teardown("fit")


def test_a_cache_keeps_what_fits_and_survives_pickling() -> None:
    made: list[int] = []

    def make(number: int) -> np.ndarray:
        made.append(number)
        return np.full((2, 3), number, np.uint8)

    cache = ByteCache(5, (2, 3), capacity=3 * 7 + 6)  # six pixels and a mark each: three fit
    out = np.empty((2, 3), np.uint8)
    for number in (0, 4, 2, 0, 4, 2):
        cache.copy_into(out, number, make)
        assert (out == number).all()
    assert made == [0, 4, 2, 4]
    assert cache.size == 21
    other = pickle.loads(pickle.dumps(cache))
    other.copy_into(out, 0, make)
    assert made[-1] == 0


def test_evaluation_is_every_expression_at_the_original_size(small: SmallSet, tmp_path: Path) -> None:
    module = ready(small.write(tmp_path), eval_images=2)
    assert module.test_splits == ["val", "testA", "testB"]
    for split, loader in zip(module.test_splits, module.test_dataloader(), strict=True):
        seen: list[int] = []
        for batch in loader:
            assert batch.masks is None
            assert batch.targets is not None
            assert len(batch.image_ids) == len(set(batch.image_ids)) <= 2
            assert all(target["size"] == [24, 32] for target in batch.targets)
            seen += batch.sent_ids
        assert sorted(seen) == [e.sent_id for ref in module.refer.split(split) for e in ref.expressions]
    limited = ready(tmp_path, limit_val_images=2).val_dataloader()
    assert [batch.image_ids for batch in limited] == [[106, 107]]


ODD = ["", "left " * 300, "🦊 the 狐狸 🍎", "الكرة الحمراء على اليسار", "\u202ered\u202c", "<b>&amp;\x00\n"]


def test_odd_sentences_flow_through_and_none_is_dropped(small: SmallSet, tmp_path: Path) -> None:
    sentences = [s for ref in small.refs if ref["split"] in ("train", "val") for s in ref["sentences"]]
    for sentence, text in zip(sentences, ODD * 9, strict=False):
        sentence["sent"] = sentence["raw"] = text
    module = ready(small.write(tmp_path), batch_size=1, cache_mb=1)
    kept = {text for batch in module.train_dataloader() for text in batch.texts}
    assert kept <= {text.strip() for text in ODD}
    total = Counter(text for batch in module.val_dataloader() for text in batch.texts)
    assert total.total() == sum(len(ref["sentences"]) for ref in small.refs if ref["split"] == "val")
    assert total[""] > 0


def test_empty_masks_are_scored_but_never_trained_on(small: SmallSet, tmp_path: Path) -> None:
    for annotation in small.instances["annotations"]:
        if annotation["image_id"] in (101, 106):
            annotation["segmentation"] = [[1, 1, 5, 5]]
    gone = [ref["ref_id"] for ref in small.refs if ref["image_id"] == 101]
    module = ready(small.write(tmp_path), batch_size=1)
    with pytest.warns(UserWarning, match=r"2 of 12 training references have empty masks: left out") as caught:
        loader = module.train_dataloader()
    assert len(caught) == 1
    assert not set(gone) & {ref_id for batch in loader for ref_id in batch.ref_ids}
    areas = {
        batch.image_ids[0]: masks.area(batch.targets[0]) for batch in ready(tmp_path, eval_images=1).val_dataloader()
    }
    assert areas[106] == 0 < areas[107]


def test_shuffled_sentences_reach_training_and_evaluation(small: SmallSet, tmp_path: Path) -> None:
    module = ready(small.write(tmp_path), batch_size=1, shuffle_sentences=True)
    loaders = [module.train_dataloader(), module.val_dataloader(), *module.test_dataloader()]
    for batch in (batch for loader in loaders for batch in loader):
        for ref_id, text in zip(batch.ref_ids, batch.texts, strict=True):
            assert text not in {e.sent for e in module.refer.references[ref_id].expressions}


def test_everything_the_run_needs_is_looked_at_before_it_starts(small: SmallSet, tmp_path: Path) -> None:
    root = small.write(tmp_path)
    with pytest.raises(DataError, match=r"no split 'test', it has .* \(did you mean 'test[AB]'\?\)"):
        ready(root, test_splits=["test"]).setup("fit")
    with pytest.raises(DataError, match=r"no split 'training'.* \(did you mean 'train'\?\)"):
        ready(root, train_split="training").setup("fit")
    with pytest.warns(UserWarning, match=r"split val has 6 references \(published: 3811\)"):
        ready(root).setup("validate")
    ready(root).refer.image_file(112).unlink()  # of testA
    ready(root).setup("validate")
    with pytest.raises(DataError, match=r"1 of 2 images not found"):
        ready(root).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2, "references_per_image": 3}, r"batch_size is 2, expected 3 \(references_per_image\) or more"),
        ({"references_per_image": 0}, "references_per_image is 0, expected 1 or more"),
        ({"eval_images": 0}, "eval_images is 0"),
        ({"cache_mb": -1}, "cache_mb is -1"),
        ({"limit_val_images": 0}, "limit_val_images is 0"),
    ],
)
def test_impossible_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReferringData("somewhere", **options)


def test_missing_data_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as caught:
        ReferringData(str(tmp_path / "none")).prepare_data()
    for wanted in ("none/refcoco/instances.json", "none/refcoco/refs(unc).p", "none/images/train2014"):
        assert wanted in str(caught.value)


def test_a_generated_world_is_written_once_and_called_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    world = ToyWorld(scenes=20, size=48)
    module = ready("toy", generate=world)  # type: ignore[arg-type]
    assert module.root == tmp_path / "toy"
    written = (tmp_path / "toy" / "refcoco" / "instances.json").stat().st_mtime_ns
    again = ready("toy", generate=world)  # type: ignore[arg-type]
    again.setup("fit")
    assert (tmp_path / "toy" / "refcoco" / "instances.json").stat().st_mtime_ns == written
    assert again.benchmark == "toy world, RefCOCO (unc)-like"
    assert ReferringData(str(tmp_path / "toy")).benchmark == "toy world, RefCOCO (unc)-like"
    assert ReferringData(str(tmp_path / "real"), "refcocog", "umd").benchmark == "RefCOCOg (umd)"
    with pytest.raises(DataError, match="holds the toy world"):
        ready("toy", generate=ToyWorld(scenes=21, size=48))  # type: ignore[arg-type]


def test_collating_from_memory_is_fast(tmp_path: Path) -> None:
    small = SmallSet({"train": 48, "val": 1}, 96, 96)
    for annotation in small.instances["annotations"]:
        annotation["segmentation"] = [square(20, 20, 50)]
    module = ready(small.write(tmp_path), 96, batch_size=48, references_per_image=3, cache_mb=64)
    loader = module.train_dataloader()
    list(loader)
    began = time.process_time()
    batches = list(loader)
    assert len(batches) == 3
    assert (time.process_time() - began) / len(batches) < 0.005 * 4  # 0.0005 on an idle core; capacity for a busy one


class _Counting(Recorder):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_validation_epoch_end(self) -> None:
        (self.folder / f"{self.trainer.global_rank}.txt").write_text(" ".join(map(str, self.evaluated.get(0, []))))

    def training_step(self, batch: MaskQueries, batch_idx: int) -> torch.Tensor:
        with (self.folder / f"train{self.trainer.global_rank}.txt").open("a") as file:
            file.write(" ".join(map(str, batch.ref_ids)) + "\n")
        return super().training_step(batch, batch_idx)


def _one_of_two(rank: int, port: int, root: Path, folder: Path) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
    }
    fit = trainer(strategy="ddp", devices=2, num_sanity_val_steps=0)
    fit.fit(_Counting(folder), datamodule=ReferringData(str(root), batch_size=2, eval_images=1))


def test_two_processes_share_the_work_without_padding(small: SmallSet, tmp_path: Path, free_port: int) -> None:
    root, folder = small.write(tmp_path / "data"), tmp_path / "seen"
    folder.mkdir()
    processes = [forking().Process(target=_one_of_two, args=(rank, free_port, root, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    evaluated = [[int(i) for i in (folder / f"{rank}.txt").read_text().split()] for rank in range(2)]
    assert {len(part) for part in evaluated} != {len(evaluated[0])}  # three images for two processes
    expected = [s["sent_id"] for ref in small.refs if ref["split"] == "val" for s in ref["sentences"]]
    assert sorted(evaluated[0] + evaluated[1]) == expected
    trained = [(folder / f"train{rank}.txt").read_text().split("\n") for rank in range(2)]
    assert len(trained[0]) == len(trained[1])
    refs = [ref for part in trained for line in part for ref in line.split()]
    assert len(refs) == len(set(refs)) == 12


def test_a_holdout_stands_in_for_a_validation_split(tmp_path: Path) -> None:
    root = SmallSet({"train": 10, "test": 2}).write(tmp_path)
    options = {"holdout": Holdout(images=0.3), "sampling": "per_sentence", "batch_size": 2}
    module = ready(root, **options)
    module.setup("fit")
    seen = {image_id for batch in module.train_dataloader() for image_id in batch.image_ids}
    held = {image_id for batch in module.val_dataloader() for image_id in batch.image_ids}
    assert len(held) == 3
    assert not seen & held
    assert len(seen | held) == 10
    with pytest.raises(
        ConfigError, match=r"val_split is 'test': checkpoints would be chosen .*holdout: \{split: train"
    ):
        ready(root, val_split="test").setup("fit")
    with pytest.raises(ConfigError, match=r"holdout.split is 'test': checkpoints would be chosen"):
        ready(root, holdout=Holdout(split="test", images=0.5)).setup("fit")
    ready(root, val_split="test").setup("validate")
    with pytest.raises(ConfigError, match=r"holdout.images is 1, expected more than 0 and less than 1"):
        ready(root, holdout=Holdout(images=1))
    with pytest.raises(ConfigError, match="every sentence brings its image"):
        ready(root, sampling="per_sentence", references_per_image=2)
