"""How a run ends early: a signal sets a flag, the flag is read between steps, a checkpoint is written, the process ends.

Lightning's own handler broadcasts from inside the signal handler and needs every process to be signalled at the same batch, so it
is put aside. Here a request to one rank is enough: all of them compare their flags every few steps and stop after the same one.

A run that hangs reads no flag. So a thread sees every signal, too, even while the main thread is blocked in a collective or in
C++, and ends the process when no step boundary is reached in time, at a second signal, or after another rank has failed.
"""

import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.nn.parallel import DistributedDataParallel

from rislab.ablation.attempts import Kind
from rislab.ablation.trial import TrialDir
from rislab.errors import DataError, RislabError
from rislab.training.rank_failures import PeerFailedError, Peers, inherited, kill_descendants, left

ASKING = (signal.SIGTERM, signal.SIGUSR2)
"""What pools, schedulers and people send; SIGUSR2 is submitit's early warning."""

EVERY = 8
"""Steps between two comparisons of flags, at most, where there are several processes: each costs a look at the device."""

LOOK_SECONDS = 2.0
"""Where steps are slow, flags are compared more often, so that a stop is not late."""

LIMIT_SECONDS = 180.0
"""A stop this near to the end of the job's time is put down to the limit."""

GRACE_SECONDS = 120.0
"""From a signal to a step boundary, and from there to the end of the process; an option of the run."""

REPEATED_SECONDS = 1.0
"""Two signals this near to each other are one request: a scheduler signals everybody, and a launcher passes it on."""

LONGEST_WAIT = 3600.0
POLL_SECONDS = 0.5
UNWIND_SECONDS = 5.0
"""For a main thread that ends by itself after another rank has failed."""

WRITE_SECONDS = 10.0
"""For writing down why the process ends, before it ends in any case."""


class StoppedError(SystemExit):
    """The run was requested to end and has written what it needs to go on.

    Args:
        kind: preempted, timeout or cancelled.
        number: The signal; None in a process of which another rank got it.
        reason: For `status.json`.
        is_agreed: All ranks stop, after the same step.
    """

    def __init__(self, kind: Kind, number: int | None, reason: str = "stop requested", is_agreed: bool = False) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.kind, self.number, self.reason, self.is_agreed = kind, number, reason, is_agreed


class StopRequest:
    """Whether this process was requested to end, and the end of one that cannot follow.

    Attributes:
        number: The first signal.
        at_boundary: All ranks have agreed to stop, after a whole step.
        cancelled: Set where it is seen that the user wants no more of the trial.
        patient: In a run that looks at the flag; outside of one, a signal ends the process where it is, since there is nothing
            to save.
        grace: Seconds from the signal to a step boundary, and from there to the end.
        peers: The other ranks of the run; None on one process.
        trial: Of a command typed by hand, where its first rank writes down how it ends; None until that is known.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.cancelled = False
        self.patient = False
        self.grace = GRACE_SECONDS
        self.peers: Peers | None = inherited()
        self.trial: TrialDir | None = None
        self._first: float | None = None
        self._since: float | None = None
        self.at_boundary = False
        self._claimed = threading.Lock()
        self._waker: socket.socket | None = None

    @property
    def kind(self) -> Kind:
        if self.cancelled:
            return "cancelled"
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        near = end.isdigit() and int(end) - time.time() < LIMIT_SECONDS
        return "timeout" if near else "preempted"

    @contextmanager
    def listening(self, write: Callable[[BaseException], object]) -> Iterator[None]:
        """Handle signals, and watch that the process follows them.

        Args:
            write: Writes down what ends the process; called at most once, from the thread that watches.
        """
        receiver, self._waker = socket.socketpair()
        for end in (receiver, self._waker):
            end.setblocking(False)
        before = {number: signal.signal(number, self._handle) for number in ASKING}
        # The handler in C writes the number here whatever the main thread does. A forked process has the descriptor, too.
        woken_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=self._forked)
        over = threading.Event()
        threading.Thread(target=self._watch, args=(receiver, over, write), name="stopping", daemon=True).start()
        try:
            yield
        finally:
            over.set()
            self._wake()
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                if isinstance(handler, signal.Handlers):  # one of submitit's, which requeues, stays put aside
                    signal.signal(number, handler)

    def _forked(self) -> None:
        if self._waker is not None:
            with suppress(ValueError):
                signal.set_wakeup_fd(-1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if not self.patient:
            raise StoppedError(self.kind, number)

    def _wake(self) -> None:
        if self._waker is not None:
            with suppress(OSError):
                self._waker.send(b"\0")

    def join(self, peers: Peers | None) -> None:
        """From here on the failures of other ranks are looked up."""
        self.peers = peers
        self._wake()

    def reached_boundary(self) -> None:
        """All ranks stop after this step: the clock starts again, for the checkpoint and the end."""
        self._since, self.at_boundary = time.monotonic(), True
        self._wake()

    def claim(self) -> None:
        """To be the one that writes down how this process ends; returns only to the first, the second thread is ended."""
        if not self._claimed.acquire(blocking=False):
            threading.Event().wait()  # the thread that watches is ending the process

    def _watch(self, receiver: socket.socket, over: threading.Event, write: Callable[[BaseException], object]) -> None:
        peer_failure: tuple[float, PeerFailedError] | None = None
        while True:
            waits = [POLL_SECONDS] if self.peers is not None else []
            if self._since is not None:
                waits.append(max(0.0, self._since + self.grace - time.monotonic()))
            select.select([receiver], [], [], min([*waits, LONGEST_WAIT]))
            if over.is_set():
                return
            numbers: set[int] = set()
            with suppress(BlockingIOError):
                numbers = set(receiver.recv(64))
            again = self._notice(bool(numbers & {*ASKING, signal.SIGINT}))
            if again or (self._since is not None and time.monotonic() > self._since + self.grace):
                self._end(StoppedError(self.kind, self.number, self._reason(again)), write)
            if self.peers is None:
                continue
            if self.peers.is_orphan:
                kill_descendants()
                os._exit(1)
            failure = self.peers.failure_of_others() if peer_failure is None else None
            if failure is not None:
                peer_failure = time.monotonic(), PeerFailedError(failure)
            if peer_failure is not None and time.monotonic() - peer_failure[0] > UNWIND_SECONDS:
                self._end(peer_failure[1], write)

    def _notice(self, is_requested: bool) -> bool:
        """Start the clock at the first signal. Whether this is a second one."""
        now = time.monotonic()
        if is_requested and self._first is None:
            self._first = now
            self._since = now if self._since is None else self._since
            return False
        return is_requested and self._first is not None and now - self._first > REPEATED_SECONDS

    def _reason(self, again: bool) -> str:
        missing = "the end was not reached" if self.at_boundary else "no step boundary was reached"
        return (
            f"stop requested twice; {missing}" if again else f"stop requested; {missing} within {self.grace:g} seconds"
        )

    def _end(self, error: BaseException, write: Callable[[BaseException], object]) -> None:
        """End this process with what it has started, from the thread that watches."""
        if self._claimed.acquire(blocking=False):
            with suppress(Exception):
                faulthandler.dump_traceback(file=2)  # where it hangs
            # In a thread of its own: a file system that is gone must not keep the process.
            writer = threading.Thread(target=write, args=(error,), daemon=True)
            writer.start()
            writer.join(WRITE_SECONDS)
        else:
            time.sleep(WRITE_SECONDS)  # the main thread is writing
        kill_descendants()
        left()
        os._exit(exit_code(error))


def exit_code(error: BaseException) -> int:
    """Of the process that an error ends."""
    if isinstance(error, RislabError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


class GracefulStop(L.Callback):
    """Ends a run between two steps once its process, or another rank, was requested to.

    Looking is a collective. In training it hangs on the step alone; in evaluation only batches that every rank has are counted,
    since ranks may have unequal numbers of them.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._every, self._next, self._looked = 1, 0, 0.0
        self._common: list[float] = []
        self._seen = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.request.patient = True

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        self.request.patient = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_looking(trainer.global_step + 1)
        if trainer.world_size > 1:
            step = torch.tensor([trainer.global_step, -trainer.global_step], device=trainer.strategy.root_device)
            latest, earliest = trainer.strategy.reduce(step, reduce_op="max").tolist()
            if latest != -earliest:
                raise DataError(
                    f"ranks go on from different steps ({-earliest} to {latest}): they have read different checkpoints"
                )

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        # Between two steps only: within one, gradients have been added up that no checkpoint holds.
        if trainer.fit_loop._should_accumulate() or trainer.is_last_batch or trainer.global_step < self._next:
            return
        request = self._is_requested(trainer)
        self._next = trainer.global_step + self._every
        if request:
            # Lightning then raises SIGTERMException, a SystemExit, once the step has been logged; here that would be too early.
            trainer._signal_connector.received_sigterm = True
            self.request.reached_boundary()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_evaluation(
            trainer, trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_evaluation(trainer, trainer.num_test_batches)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_evaluation(trainer, trainer.num_predict_batches)

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, i: int, dataloader_idx: int = 0
    ) -> None:
        self._look(trainer, i, dataloader_idx)

    def on_test_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, i: int, dataloader_idx: int = 0
    ) -> None:
        self._look(trainer, i, dataloader_idx)

    def on_predict_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, i: int, dataloader_idx: int = 0
    ) -> None:
        self._look(trainer, i, dataloader_idx)

    def _start_looking(self, first: int) -> None:
        self._every, self._next, self._looked = 1, first, time.monotonic()

    def _start_evaluation(self, trainer: L.Trainer, batches: list[int | float]) -> None:
        self._common, self._seen = list(batches), 0
        if trainer.world_size > 1:
            own = torch.tensor(batches, dtype=torch.float64, device=trainer.strategy.root_device)
            self._common = trainer.strategy.reduce(own, reduce_op="min").tolist()
        self._start_looking(1)

    def _look(self, trainer: L.Trainer, batch: int, dataloader: int) -> None:
        if batch + 1 >= self._common[dataloader]:
            return  # the last one of some rank, which is done after it
        self._seen += 1
        if self._seen < self._next:
            return
        request = self._is_requested(trainer)
        self._next = self._seen + self._every
        if request:
            self.request.reached_boundary()
            raise SIGTERMException

    def _is_requested(self, trainer: L.Trainer) -> bool:
        """Whether any rank was; the same answer everywhere, and with it the same number of steps until the next look."""
        request = self.request.number is not None
        if trainer.world_size == 1:
            return request
        now = time.monotonic()
        own = [float(request), (now - self._looked) / self._every]
        found = torch.tensor(own, dtype=torch.float32, device=trainer.strategy.root_device)
        any_requested, slowest = trainer.strategy.reduce(found, reduce_op="max").tolist()
        self._every = max(1, min(EVERY, 2 * self._every, int(LOOK_SECONDS / max(slowest, 1e-6))))
        self._looked = now
        return bool(any_requested)


class EvaluationInStep(L.Callback):
    """Validation within a fit: every rank evaluates the network of rank 0, and batches start no collective.

    DDP broadcasts the buffers of rank 0 in every forward pass, in evaluation too, where ranks may have unequal numbers of
    batches. Here it does so once.
    """

    def __init__(self) -> None:
        self._wrapped: DistributedDataParallel | None = None
        self._broadcasts = True

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wrapped = trainer.strategy.model
        if not isinstance(wrapped, DistributedDataParallel):
            return
        share_buffers(pl_module)
        self._wrapped, self._broadcasts = wrapped, wrapped.broadcast_buffers
        wrapped.broadcast_buffers = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._wrapped is not None:
            self._wrapped.broadcast_buffers = self._broadcasts
            self._wrapped = None


def share_buffers(module: torch.nn.Module) -> None:
    """Give every rank the buffers of rank 0: those that a forward pass changes differ until the next one."""
    for buffer in module.buffers():
        dist.broadcast(buffer, 0)


def take_over_signals(trainer: L.Trainer) -> None:
    """Leave signals to `StopRequest`, whatever the Trainer runs."""
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    pass
