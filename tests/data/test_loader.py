"""A run that stops anywhere and goes on sees the very batches of one that never stopped, through a real Trainer."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from rislab.data.loader import ResumableLoader
from rislab.datamodules.referring import ReferringData
from rislab.errors import ConfigError, DataError
from tests.data.small import Recorder, SmallSet, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*ended before the epoch ended.*",
    "ignore:.*published.*",  # the set is small
    "ignore:.*callbacks used to create the checkpoint.*",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SmallSet({"train": 5, "val": 3, "testA": 2}).write(tmp_path_factory.mktemp("data"))


def data(root: Path, workers: int = 0, **changes: int) -> ReferringData:
    return ReferringData(str(root), **{"batch_size": 2, "num_workers": workers, "seed": 3, "cache_mb": 1} | changes)


def run(root: Path, workers: int, start: Path | None = None, stop: int = 12, **options: Any) -> Recorder:
    method = Recorder()
    fit = trainer(max_epochs=-1, max_steps=stop, **options)
    fit.fit(method, datamodule=data(root, workers), ckpt_path=start)
    return method


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_at_any_step(root: Path, tmp_path: Path, workers: int) -> None:
    whole = run(root, 0).seen
    assert len(whole) == 12
    assert sorted(i for ids in whole[:4] for i in ids) != sorted(i for ids in whole[4:8] for i in ids)  # drawn anew
    assert run(root, workers).seen == whole
    # With workers, a few stops will do: early in an epoch, at the end of one, after one.
    for stop in range(1, 12) if workers == 0 else (1, 4, 6):
        method = Recorder()
        first = trainer(max_epochs=-1, max_steps=stop)
        first.fit(method, datamodule=data(root, workers))
        first.save_checkpoint(tmp_path / f"{stop}.ckpt")
        assert method.seen == whole[:stop]
        assert run(root, workers, tmp_path / f"{stop}.ckpt").seen == whole[stop:], f"stopped after {stop} steps"


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_resumed_from_a_checkpoint_written_on_the_way(root: Path, tmp_path: Path, step: int) -> None:
    """What a killed run leaves is written in the middle of things, with workers ahead of the training."""
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = run(root, 0, enable_checkpointing=True, callbacks=[keep]).seen
    assert run(root, 0, tmp_path / f"step={step}.ckpt").seen == whole[step:]


def test_validation_is_whole_after_a_sanity_check_and_a_limited_one(root: Path) -> None:
    method, module = Recorder(), data(root, eval_images=1)
    fit = trainer(max_epochs=1, num_sanity_val_steps=2)
    fit.fit(method, datamodule=module)
    everything = sorted(e.sent_id for r in module.refer.split("val") for e in r.expressions)
    assert sorted(method.evaluated[0]) == everything
    limited = trainer(limit_val_batches=1)
    limited.validate(method, datamodule=module, verbose=False)
    assert 0 < len(method.evaluated[0]) < len(everything)


def loader(root: Path, workers: int = 0, **changes: int) -> ResumableLoader:
    module = data(root, workers, **changes)
    module.trainer = trainer()
    module.trainer.strategy.connect(Recorder())
    return module.train_dataloader()


def test_position_counts_what_was_handed_out_not_what_workers_prepared(root: Path) -> None:
    ours = loader(root, workers=2)
    batches = iter(ours)
    next(batches)
    assert ours.state_dict() == {"epoch": 0, "given": 1, "of": 4}
    rest = [batch.sent_ids for batch in batches]
    again = loader(root)
    again.load_state_dict({"epoch": 0, "given": 1, "of": 4})
    iter(again)  # queries for, never used: a Trainer does that to see whether it can
    assert again.state_dict()["given"] == 1
    assert [batch.sent_ids for batch in again] == rest
    assert len(list(again)) == len(again) == 4
    assert again.state_dict() == {"epoch": 1, "given": 4, "of": 4}
    ours.close()


def test_an_epoch_left_early_is_gone_on_with(root: Path) -> None:
    whole = [batch.sent_ids for batch in loader(root)]
    ours = loader(root, workers=1)
    for batch in ours:
        assert batch.sent_ids == whole[0]
        break
    assert [batch.sent_ids for batch in ours] == whole[1:]
    ours.close()


def test_a_position_among_other_batches_is_refused(root: Path) -> None:
    other = loader(root, batch_size=4)
    with pytest.raises(ConfigError, match=r"within an epoch of 4 batches, here an epoch has 2: .* number of devices"):
        other.load_state_dict({"epoch": 1, "given": 3, "of": 4})
    other.load_state_dict({"epoch": 1, "given": 4, "of": 4})  # between epochs there is nothing to mistake
    assert len(list(other)) == 2
    assert other.state_dict()["epoch"] == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_the_users_error_from_a_worker_too(tmp_path: Path, workers: int) -> None:
    root = SmallSet({"train": 3, "val": 1}).write(tmp_path)
    ours = loader(root, workers)
    for path in (root / "images" / "train2014").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        list(ours)
    ours.close()
    assert "Traceback" not in str(caught.value)
    assert "jpg: " in str(caught.value)


def test_reading_batches_draws_nothing_from_the_runs_random_stream(root: Path) -> None:
    ours = loader(root, workers=1)
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    list(ours)
    ours.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
