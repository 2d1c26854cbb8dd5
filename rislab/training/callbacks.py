"""What every trial carries: reproducible draws, and a status that others can read."""

import os
import time
from contextlib import suppress
from typing import Any

import lightning as L
import torch

from rislab.ablation.trial import TrialDir
from rislab.data.batch import Images
from rislab.methods.base import FileMaker


class StepSeed(L.Callback):
    """Seeds the random draws of a step (dropout) from (seed, step, rank).

    Nothing about random state has to be stored, and a run resumed at step k draws what the uninterrupted one drew, on
    any number of processes. The parts of a split batch draw apart from each other.
    """

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        part = batch_idx % trainer.accumulate_grad_batches
        torch.manual_seed((seed * 1_000_003 + trainer.global_step) * 65_537 + trainer.global_rank + 4096 * part)


class LoaderPosition(L.Callback):
    """Puts the loader of a resumed run where its checkpoint says, also where the optimiser's configuration has used it.

    A schedule over the whole training needs its number of steps, for which Lightning sets the loader up before it has read the
    position from the checkpoint, and then never takes it: the epoch began anew, and a later one ended early.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.fit_loop._load_combined_loader_states()  # does nothing where it is done


class TrialStatus(L.Callback):
    """Keeps `status.json` current: stage, step, speed, latest validation scores; at most once a second."""

    def __init__(self, trial: TrialDir) -> None:
        self.trial = trial
        self.fit_seconds = 0.0
        self.fit_steps = 0
        self._written = 0.0
        self._began = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Images, i: int
    ) -> None:
        now = time.monotonic()
        self.fit_seconds, self.fit_steps = now - self._began, trainer.global_step - self._first_step
        if now - self._written < 1.0 or not trainer.is_global_zero:
            return
        self._written = now
        with suppress(OSError):  # a status is not worth dying for; results are, and say so themselves
            self.trial.update_status(
                stage="fit",
                step=trainer.global_step,
                max_steps=int(trainer.estimated_stepping_batches),
                epoch=trainer.current_epoch,
                speed=round(self.fit_steps / max(self.fit_seconds, 1e-9), 2),
                metrics={
                    name.removeprefix("val/"): round(float(value), 3)
                    for name, value in trainer.callback_metrics.items()
                    if name.startswith("val/")
                },
            )

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        i: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Of a stage that makes files, a batch is a step."""
        if trainer.is_global_zero and isinstance(pl_module, FileMaker) and pl_module.outputs is not None:
            with suppress(OSError):
                self.trial.update_status(stage="fit", step=i + 1, max_steps=int(trainer.num_predict_batches[0]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.fit_seconds = time.monotonic() - self._began

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.trial.update_status(stage="test")
