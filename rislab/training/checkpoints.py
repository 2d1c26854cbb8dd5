"""Checkpoints that are whole or absent, and the choice of the one to go on from."""

import errno
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from rislab.ablation import identity
from rislab.errors import ConfigError, DataError, DiskError
from rislab.files import keep_as, replacing
from rislab.nn.pickled_values import Placeholder
from rislab.nn.weight_files import read_file

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
RECIPE = "rislab_model"
FULL = 8 << 20
"""Bytes free below which a failed write is put down to the disk."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name and renames; keeps the checkpoint before the last one as `previous.ckpt`.

    Args:
        model: class and options of the model, put into every file, so that the file alone is enough to segment with.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        self.model = model

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        with replacing(path) as temporary:
            try:
                with temporary.open(
                    "wb"
                ) as file:  # given a name, torch would write that name, and with it our pid, into the file
                    torch.save(checkpoint | {RECIPE: self.model}, file)
            except (OSError, RuntimeError) as error:
                # A full disk reaches us as a RuntimeError about positions in a zip file.
                free = shutil.disk_usage(path.parent).free
                if free > FULL and getattr(error, "errno", None) != errno.ENOSPC:
                    raise
                raise DiskError(
                    f"{path}: the disk is full ({free >> 20} MiB free); the checkpoint before is whole, "
                    "free some space and start again"
                ) from error
            if path.name == LAST and path.exists():
                keep_as(path, path.with_name(PREVIOUS))  # before it is replaced

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Raises DataError, naming the file: missing, damaged, no checkpoint of a training run."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such checkpoint")
        reason = damage(path)
        if reason is not None:
            raise DataError(f"{path}: not a checkpoint that can be read ({reason})")
        try:
            content: Any = super().load_checkpoint(path, map_location, weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # torch has many for a file that is not its own
            raise DataError(f"{path}: not a checkpoint that can be read ({_first_line(error)})") from error
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
            raise DataError(f"{path}: no checkpoint of a training run; expected a dict with 'state_dict'")
        return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, or None. Reads it whole: every entry carries a CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return str(error)
    return f"wrong checksum in {broken}" if broken else None


def resume_point(checkpoints: Path) -> Path | None:
    """The newest sound checkpoint of a trial, or None to start afresh. Says so when a damaged one is passed over."""
    for name in (LAST, PREVIOUS):
        path = checkpoints / name
        if not path.exists():
            continue
        reason = damage(path)
        if reason is None:
            return path
        after = PREVIOUS if name == LAST and (checkpoints / PREVIOUS).exists() else "the start"
        warnings.warn(f"{path} is damaged ({reason}); going on from {after}", stacklevel=2)
    return None


def require_same_model(path: Path, model: dict[str, Any]) -> None:
    """Raises ConfigError where training would go on from a checkpoint of other options of the method.

    Args:
        path: Checkpoint of ours.
        model: Section `model` of the config.
    """
    before, now = (
        identity.identity({"model": each})["model"] for each in (read_checkpoint(path).get(RECIPE, model), model)
    )
    for key in sorted(_flat(before).keys() | _flat(now).keys()):
        old, new = _flat(before).get(key), _flat(now).get(key)
        if old != new:
            raise ConfigError(
                f"{path} was trained with model.{key} {old!r}, expected {new!r} as now: give its options, or another "
                "directory (--trainer.default_root_dir=DIR)"
            )


def _flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted keys."""
    if not isinstance(options, dict) or not options:
        return {prefix: options}
    return {
        key: value
        for name, each in options.items()
        for key, value in _flat(each, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours on the CPU; never executes what a foreign file asks for.

    Raises:
        DataError: Missing, damaged, no dict with a state dict of tensors, more than tensors and plain values.
    """
    content = read_file(path)
    stranger = _stranger(content)
    if stranger is not None:
        raise DataError(f"{path}: refused, it holds more than tensors and plain values ({stranger})")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict", {}), dict):
        raise DataError(f"{path}: no checkpoint of rislab; expected a dict with 'state_dict'")
    for key, value in content.get("state_dict", {}).items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise DataError(f"{path}: no checkpoint of rislab; its state dict holds a {type(value).__name__}")
    return content


def _stranger(content: Any) -> str | None:
    """The name of something in a checkpoint that is neither a tensor nor plain.

    Each value is looked at once, however often it is shared.
    """
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (str, bytes, int, float, type(None), torch.Tensor, torch.dtype)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += value
        else:
            return value.name if isinstance(value, Placeholder) else type(value).__name__
    return None


UNLOGGED = "rislab_unlogged"
"""Key of a checkpoint: step, epoch and values of the step that it was written in, where they belong in the curves."""


class LastCheckpoint(L.Callback):
    """Writes `last.ckpt` every so many steps, after the first step of an epoch, and when a stop was requested.

    Never between epochs: Lightning calls the end-of-epoch hooks before it steps the schedulers, so that a run resumed from
    there keeps the old rate; and after the last batch of an epoch its validation has not run yet, and would be skipped.

    Args:
        every_n_steps: steps between two checkpoints; what a kill can cost at most.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.unlogged: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or trainer.fit_loop._should_accumulate():
            return
        parts = trainer.accumulate_grad_batches
        if batch_idx < parts or trainer.global_step % self.every_n_steps == 0:
            self.unlogged = _about_to_be_logged(trainer)
            self.save(trainer)
            self.unlogged = {}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.unlogged:
            checkpoint[UNLOGGED] = self.unlogged

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # A SystemExit comes from GracefulStop, after a whole step. Anything else is a fault, and the state it leaves behind is
        # not worth resuming from.
        between_epochs = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if isinstance(exception, SystemExit) and trainer.training and not between_epochs:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / LAST)


class UntrainedWeights(L.Callback):
    """Writes `best.ckpt` of a method without training, from which a later stage may start, before anything is scored.

    metrics.json comes last: what is done has its weights.
    """

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / BEST, weights_only=True)


def _about_to_be_logged(trainer: L.Trainer) -> dict[str, Any]:
    """What Lightning logs of a step after its hooks; empty for most steps. A kill in between would lose it."""
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return {}
    values = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {"step": trainer.fit_loop.epoch_loop._batches_that_stepped, "epoch": trainer.current_epoch, "values": values}
