"""How a run ends early: a signal sets a flag, the flag is read between batches, a checkpoint is written, the process ends.

Lightning's own handler broadcasts from inside the signal handler and needs every process to be signalled at the same batch, so it
is put aside for as long as a run lasts. Here one process that was asked is enough: all of them compare their flags every few
batches and stop after the same one.
"""

import os
import signal
import time
from types import FrameType
from typing import Any

import lightning as L
import torch

from rislab.ablation.attempts import Kind

ASKING = (signal.SIGTERM, signal.SIGUSR2)
"""What pools, schedulers and people send; SIGUSR2 is submitit's early warning."""

EVERY = 8
"""Batches between two comparisons of flags, where there are several processes: each costs a look at the device."""

LIMIT_SECONDS = 180.0
"""A stop this near to the end of the job's time is put down to the limit."""


class StoppedError(SystemExit):
    """The run was asked to end and has written what it needs to go on.

    kind: preempted, timeout or cancelled. number: the signal that asked; None in a process whose sister was asked.
    """

    def __init__(self, kind: Kind, number: int | None) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.kind, self.number = kind, number


class Asked:
    """Whether this process was asked to end.

    cancelled: set by whoever sees that the user wants no more of the trial. patient: in a run that looks at the flag; outside of
    one, a signal ends the process where it is, since there is nothing to save.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.cancelled = False
        self.patient = False

    def listen(self) -> None:
        for number in ASKING:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if not self.patient:
            raise StoppedError(self.kind, number)

    @property
    def kind(self) -> Kind:
        if self.cancelled:
            return "cancelled"
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        near = end.isdigit() and int(end) - time.time() < LIMIT_SECONDS
        return "timeout" if near else "preempted"


class StopWhenAsked(L.Callback):
    """Ends a run between two batches once its process, or a sister, was asked to."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._batches = 0

    def _begin(self) -> None:
        self.asked.listen()  # in place of the handlers that the Trainer has just put there
        self.asked.patient = True

    def on_fit_start(self, *args: Any) -> None:
        self._begin()

    def on_validation_start(self, *args: Any) -> None:
        self._begin()

    def on_test_start(self, *args: Any) -> None:
        self._begin()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        self.asked.patient = False

    def _look(self, trainer: L.Trainer) -> None:
        self._batches += 1
        asked = self.asked.number is not None
        if trainer.world_size > 1:
            if self._batches % EVERY:
                return
            flag = torch.tensor(float(asked), device=trainer.strategy.root_device)
            asked = bool(trainer.strategy.reduce(flag, reduce_op="max"))
        if asked:
            # Lightning then raises SIGTERMException, a SystemExit, once the step has been logged; here that would be too early.
            trainer._signal_connector.received_sigterm = True

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        # Between two steps only: within one, gradients have been added up that no checkpoint holds.
        if not trainer.fit_loop._should_accumulate() and not trainer.is_last_batch:
            self._look(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._look(trainer)

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._look(trainer)
