"""What survives a crash: whole files, a fallback that says so, curves that go on."""

import errno
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from rislab.data.loader import ResumableLoader
from rislab.errors import DataError, DiskError
from rislab.files import replacing
from rislab.training.callbacks import LoaderPosition
from rislab.training.checkpoints import (
    LAST,
    PREVIOUS,
    UNLOGGED,
    LastCheckpoint,
    WholeCheckpointIO,
    damage,
    read_checkpoint,
    resume_point,
)
from rislab.training.curve_logger import CurveLogger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        WholeCheckpointIO({}).save_checkpoint(
            {"global_step": step, "w": torch.full((100,), float(step))}, tmp_path / LAST
        )
    return tmp_path


def test_the_one_before_is_kept(folder: Path) -> None:
    assert read_checkpoint(folder / LAST)["global_step"] == 3
    assert read_checkpoint(folder / PREVIOUS)["global_step"] == 2
    assert {p.name for p in folder.iterdir()} == {LAST, PREVIOUS}


def test_without_hard_links_the_one_before_is_copied_and_the_last_is_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    there = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        there.append((tmp_path / LAST).exists())
        return replace(self, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "replace", watched)
    for step in (1, 2, 3):
        WholeCheckpointIO({}).save_checkpoint({"global_step": step}, tmp_path / LAST)
    assert [read_checkpoint(tmp_path / name)["global_step"] for name in (LAST, PREVIOUS)] == [3, 2]
    assert {p.name for p in tmp_path.iterdir()} == {LAST, PREVIOUS}
    assert there == [False, True, True, True, True], "before every rename but the very first"


@pytest.mark.parametrize("fault", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_last_checkpoint_falls_back_and_says_so(folder: Path, fault: str) -> None:
    last = folder / LAST
    whole = last.read_bytes()
    middle = whole.index(b"data/0") + 120  # inside the tensor's bytes
    last.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
            "empty": b"",
            "foreign": b"not a checkpoint at all",
        }[fault]
    )
    assert damage(last)
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged .* going on from previous\.ckpt"):
        assert resume_point(folder) == folder / PREVIOUS


def test_two_damaged_checkpoints_start_afresh_and_say_so(folder: Path) -> None:
    (folder / LAST).write_bytes(b"")
    (folder / PREVIOUS).write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged") as said:
        assert resume_point(folder) is None
    assert ["previous.ckpt" in str(said[0].message), "the start" in str(said[1].message)] == [True, True]


def test_sound_checkpoints_resume_silently(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resume_point(folder) == folder / LAST
        assert resume_point(folder / "nowhere") is None


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskError, match="the disk is full"):
        WholeCheckpointIO({}).save_checkpoint({}, folder / LAST)
    assert read_checkpoint(folder / LAST)["global_step"] == 3
    assert {p.name for p in folder.iterdir()} == {LAST, PREVIOUS}


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("executed",))

    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match=r"evil\.ckpt"):
        read_checkpoint(tmp_path / "evil.ckpt")


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012  the fault is inside
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_curves_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    curves = CurveLogger(tmp_path / "metrics.csv")
    for step in range(6):
        curves.log_metrics({"train/mask": step / 3, "epoch": step // 2}, step)
    whole = curves.path.read_bytes()
    with curves.path.open("a") as file:
        file.write("6,3,tra")  # a kill in the middle of a line
    curves.cut(4)
    for step in range(4, 6):
        curves.log_metrics({"train/mask": step / 3, "epoch": step // 2}, step)
    assert curves.path.read_bytes() == whole


class KilledError(Exception):
    """What stands for SIGKILL here: nothing runs after it but the test."""


class Curves(CurveLogger):
    """Ends the run where a step is about to be logged, or half-way through its lines."""

    def __init__(self, path: Path, kill_at: int | None, after: int) -> None:
        super().__init__(path)
        self.kill_at, self.after = kill_at, after

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step == self.kill_at:
            super().log_metrics({**dict(list(metrics.items())[: self.after]), "epoch": metrics["epoch"]}, step)
            raise KilledError
        super().log_metrics(metrics, step)


class Logged(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = (self.weight * batch).square().sum()
        self.log_dict({"train/a": loss, "train/b": 2 * loss, "train/c": 3 * loss})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def curves_of_run(folder: Path, kill_at: int | None = None, after: int = 0) -> bytes:
    """The curves of twelve steps, from wherever the folder's checkpoint stands; every second step is logged."""
    curves = Curves(folder / "metrics.csv", kill_at, after)
    point = resume_point(folder / "checkpoints")
    if point is not None:
        held = read_checkpoint(point)
        curves.cut(held["global_step"], held.get(UNLOGGED))
    loader = ResumableLoader(Numbered(), lambda epoch: [[float(6 * epoch + b + 1)] for b in range(6)])  # type: ignore[misc]
    trainer = L.Trainer(
        accelerator="cpu",
        logger=curves,
        log_every_n_steps=2,
        max_epochs=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[LoaderPosition(), LastCheckpoint(2)],
        plugins=[WholeCheckpointIO({})],
    )
    with suppress(KilledError):
        trainer.fit(Logged(), loader, ckpt_path=point)
    return curves.path.read_bytes()


class Numbered(torch.utils.data.Dataset[Any]):
    def __getitem__(self, rows: list[float]) -> torch.Tensor:
        return torch.tensor(rows)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("kill_at", [1, 3, 7, 9])
def test_a_kill_between_a_checkpoint_and_its_line_in_the_curves_loses_nothing(
    kill_at: int, after: int, tmp_path: Path
) -> None:
    """Steps are counted from 0; checkpoints are written after every second one, and just before it is logged."""
    (tmp_path / "whole").mkdir()
    whole = curves_of_run(tmp_path / "whole")
    assert whole.count(b"\n") == 1 + 3 * 6
    killed = tmp_path / "killed"
    killed.mkdir()
    curves_of_run(killed, kill_at, after)
    held = read_checkpoint(killed / "checkpoints" / "last.ckpt")
    assert held["global_step"] == kill_at + 1
    assert curves_of_run(killed) == whole
