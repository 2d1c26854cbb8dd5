"""The local pool: as many trials at once as there are slots, each in a process forked from one that has paid the imports.

A fork server (multiprocessing's own) imports the heavy packages once. Every trial gets a process of its own from it: what a
trial leaks, crashes or is killed by stays there. Children end themselves when the pool's process is gone.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rislab.ablation.attempts import DISK_EXIT_CODE, Kind
from rislab.ablation.trial import CLOSED, TrialBusyError, TrialDir
from rislab.errors import DISK_ERRORS, DiskError, RislabError
from rislab.launch import environment
from rislab.launch.resources import Allocation, Device, Requirement, ResourcePool
from rislab.launch.retry_policy import Memory, is_over, settle

POLL_SECONDS = 0.5
DISK = "disk"
"""Name in `LocalPool.notes` of what is said about the disk."""

DISK_PAUSES = (1.0, 4.0, 10.0, 30.0)
"""Seconds for which no trial is started after the first, second ... end in a row for want of disk space; then the table stops."""

LITTLE = 16 << 20
"""Bytes free on a disk that counts as full: less than a small trial's checkpoint."""

SAME_FAILURES = 3
"""As many first trials failing with the same error stop the table: the fault is not a row's."""


@dataclass(frozen=True)
class Job:
    """One call in a process of its own.

    Attributes:
        target: `module:function`, called as function(argument, threads).
        argv: the command line that does the same by hand. What starts secondary ranks, one for each further GPU, repeats
            `sys.argv`; with the launcher's own it would launch the table again.
        secondary: what further ranks of a trial that spans nodes call instead of `target`.
        after: a trial that must be done first.
        need: what it takes of the machine's GPUs.
        can_split: whether a batch may be computed in parts when memory does not suffice for it.
    """

    name: str
    target: str
    argument: str
    trial: TrialDir | None = None
    argv: tuple[str, ...] = ()
    secondary: str = ""
    after: TrialDir | None = None
    need: Requirement = field(default_factory=Requirement)
    can_split: bool = False


@dataclass
class Outcome:
    """What became of the jobs, by name: "done", "failed", "diverged", "interrupted", "cancelled" or "not started"."""

    states: dict[str, str] = field(default_factory=dict)
    stopped_by: str = ""


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    allocation: Allocation
    oom_kills: int
    ends: int
    """Ends in the trial's history before this start."""
    signals_sent: int = 0

    def signal_again(self, times: int) -> None:
        """Pass on what the user requested: once, end with a checkpoint; twice, end now."""
        if times > self.signals_sent:
            self.signals_sent = times
            if times == 1:
                self.process.terminate()
            else:
                self.kill()

    def kill(self) -> None:
        """The process with everything that it started."""
        self.process.kill()
        if self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _child(job: tuple[str, str, tuple[str, ...]], threads: int, given: dict[str, str]) -> None:
    """First code in a forked process: die with the parent, then run. given: the environment, since the server's is its own."""
    target, argument, argv = job
    # A group of its own: loader processes and secondary ranks can be ended with it, and Ctrl-C reaches the pool alone.
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)  # the server ignores them
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    environment.become(given)  # no CUDA call has been made in the fork server
    if argv:
        sys.argv[1:] = argv
    module, _, function = target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(argument, threads)
    except TrialBusyError as error:
        raise SystemExit(error.exit_code) from None
    except RislabError as error:
        # A trial has written its own status; what comes here is about the start itself.
        _print(str(error))
        if isinstance(error, DiskError):
            os._exit(DISK_EXIT_CODE)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _print(f"{error.filename or argument}: {error.strerror}")
        os._exit(DISK_EXIT_CODE)
    except SystemExit as stop:
        if stop.code == DISK_EXIT_CODE:
            os._exit(DISK_EXIT_CODE)
        raise


def _print(text: str) -> None:
    """Onto the process's log, which may lie on a full disk. That is also why `_child` leaves by `os._exit` then: flushing at the
    end would fail, and give an exit code that says nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _start_server() -> None:
    """Start the fork server so that it ignores the signals which go to whole jobs, and without the ranks of a job.

    A scheduler signals every process of a job. Were the server to die of it, its children would be taken for dead in the
    middle of their checkpoints. Lightning reads this process's rank when it is imported, which the server does for all trials:
    one above 0 would keep them from logging.
    """
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        with environment.outside_of_job():
            forkserver.ensure_running()
    finally:
        for number, handler in ignored.items():
            if handler is not None:
                signal.signal(number, handler)


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os.killpg(os.getpgrp(), signal.SIGKILL)


class LocalPool:
    """Runs jobs in `slots` processes.

    Args:
        slots: trials at once.
        threads: of each.
        preload: modules to import once, before any trial.
        devices: GPUs to share out.
        patience: seconds for which a trial that another launcher runs is waited for; None for ever.
    """

    def __init__(
        self,
        slots: int,
        threads: int,
        preload: Sequence[str],
        devices: Sequence[Device] = (),
        patience: float | None = None,
    ) -> None:
        self.resources, self.threads, self.patience = ResourcePool(slots, devices), threads, patience
        self.waited_since: dict[str, float] = {}
        self.not_before: dict[str, float] = {}
        """Jobs that are started again after a pause, by name: the time (monotonic)."""
        self.memory: dict[str, Memory] = {}
        """Ends of trials that this pool has seen, by name: their own history cannot grow on a full disk."""
        self.notes: dict[str, str] = {}
        """What a person should know of a job that waits, by name."""
        self._disk_ends, self._disk_until = 0, 0.0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        self.stop_requests = 0
        """How often the user has requested a stop."""

    def run(self, jobs: Sequence[Job], watch: Callable[[], None]) -> Outcome:
        """Run all jobs and say what became of each; one job's fault is its own.

        A trial that another launcher is running is waited for, and taken over when that launcher dies. One that ends without a
        result is started again where `settle` says so.

        Ctrl-C (or SIGTERM, SIGHUP) once: running trials write a checkpoint and end. Twice: they are killed.

        Args:
            watch: called about twice a second.
        """
        outcome = Outcome({job.name: "not started" for job in jobs})
        _start_server()
        waiting = list(jobs)
        running: list[_Running] = []
        errors: list[str] = []
        with self._signals():
            try:
                while running or (waiting and not self.stop_requests and not outcome.stopped_by):
                    if not self.stop_requests and not outcome.stopped_by and time.monotonic() >= self._disk_until:
                        self._fill(waiting, running, outcome)
                    wait([each.process.sentinel for each in running], timeout=POLL_SECONDS)
                    for each in list(running):
                        each.signal_again(self.stop_requests)
                        if each.process.exitcode is not None:
                            running.remove(each)
                            self.resources.give_back(each.allocation)
                            outcome.stopped_by = outcome.stopped_by or self._watch_disk(each)
                            state = self._settle(each)
                            if state is None:
                                waiting.insert(0, each.job)  # what has been begun is finished first
                                continue
                            outcome.states[each.job.name] = state
                            if each.job.trial is not None:
                                errors.append(_error(each.job.trial) if state == "failed" else "")
                                outcome.stopped_by = outcome.stopped_by or _same(errors)
                    watch()
            finally:
                for each in running:
                    each.kill()
        return outcome

    def _fill(self, waiting: list[Job], running: list[_Running], outcome: Outcome) -> None:
        """Start what is free to start; take over the results of what has been done elsewhere meanwhile."""
        for job in list(waiting):
            if time.monotonic() < self.not_before.get(job.name, 0.0):
                continue
            if job.after is not None and job.after.state() != "done":
                if not self._may_still_come(job.after, waiting, running):
                    waiting.remove(job)
                continue
            if job.trial is not None:
                holder = job.trial.held_by()
                if holder:
                    since = self.waited_since.setdefault(job.name, time.monotonic())
                    self.notes[job.name] = (
                        f"held by {holder}; waiting for it to end, or for a minute without a sign of life"
                    )
                    if self.patience is not None and time.monotonic() - since > self.patience:
                        waiting.remove(job)
                    continue
                self.waited_since.pop(job.name, None)
                self.notes.pop(job.name, None)
                if is_over(job.trial, job.can_split):
                    waiting.remove(job)
                    outcome.states[job.name] = job.trial.state()
                    continue
            if not self.resources.can_ever_take(job.need):
                waiting.remove(job)
                outcome.states[job.name] = _refuse(job, self.resources.devices)
                continue
            allocation = self.resources.take(job.need)
            if allocation is None:
                continue
            waiting.remove(job)
            given = environment.of_trial(os.environ, self.threads, allocation.devices)
            process: BaseProcess = self.context.Process(
                target=_child, args=((job.target, job.argument, job.argv), self.threads, given)
            )
            oom_kills, ends = _oom_kills(), _ends(job.trial)
            _start_server()  # again, if it has died
            process.start()
            running.append(_Running(job, process, allocation, oom_kills, ends))

    @staticmethod
    def _may_still_come(trial: TrialDir, waiting: list[Job], running: list[_Running]) -> bool:
        """Whether a launcher, here or elsewhere, is going to finish it; what waits for it is not started otherwise."""
        ours = [*waiting, *(each.job for each in running)]
        return any(job.trial is not None and job.trial.path == trial.path for job in ours) or trial.holder() is not None

    def _settle(self, ended: _Running) -> str | None:
        """State after a job's process has ended, or None when another launcher has the trial.

        A death that was not written down is written down here.
        """
        code, trial = ended.process.exitcode, ended.job.trial
        assert code is not None
        if code != 0:
            ended.kill()  # what it started may still be there
        if trial is None:
            return "done" if code == 0 else "failed"
        if code == TrialBusyError.exit_code:
            return None
        if trial.holder() is not None:
            return None
        state = trial.state()
        if state not in CLOSED and _ends(trial) == ended.ends:
            self._write_down(ended, code, trial)
            state = trial.state()
        if self.stop_requests or state in CLOSED:
            return state
        memory = self.memory.setdefault(ended.job.name, Memory())
        memory.add(trial, _kind(ended, code) if _ends(trial) == ended.ends else None)
        move, pause = settle(trial, ended.job.can_split, memory)
        if move == "end":
            state = trial.state()
            return state if state in ("done", "cancelled", "diverged") else "failed"
        self.not_before[ended.job.name] = time.monotonic() + pause
        return None

    def _watch_disk(self, ended: _Running) -> str:
        """Hold all starts back for a while when a trial ended because the disk is full; why to stop when that goes on.

        It is one disk for all: the next trial would find it as full. Where there is space after all (it was a file of the data
        that could not be read, or the space came back), `settle` alone decides.
        """
        assert ended.process.exitcode is not None
        where = ended.job.trial.path if ended.job.trial is not None else Path(ended.job.argument).parent
        is_full = ended.process.exitcode == DISK_EXIT_CODE and not has_space(where)
        if not is_full:
            if ended.process.exitcode in (0, DISK_EXIT_CODE):
                self._disk_ends = 0
                self.notes.pop(DISK, None)
            return ""
        self._disk_ends += 1
        try:
            free = f"{free_space(where) >> 20} MiB free"
        except OSError as error:
            free = str(error.strerror)
        if self._disk_ends > len(DISK_PAUSES):
            times = f"{self._disk_ends} times in a row"
            return f"{where.parent} cannot be written ({free}), {times}; free some space, and the same command goes on"
        pause = DISK_PAUSES[self._disk_ends - 1]
        self.notes[DISK] = f"{where.parent} cannot be written ({free}); trials wait for space"
        self._disk_until = time.monotonic() + pause
        return ""

    def _write_down(self, ended: _Running, code: int, trial: TrialDir) -> None:
        """A full disk or another launcher that is quicker must not take the neighbours down; the files say "lost" anyway."""
        kind = _kind(ended, code)
        with suppress(OSError, TrialBusyError), trial.locked():
            if not trial.attempts.all() or trial.attempts.all()[-1].ended:
                trial.attempts.begin(0, trial.attempts.parts)  # it did not come as far as writing that itself
            trial.attempts.end(kind, trial.step)
            trial.update_status(
                state="interrupted" if self.stop_requests else "failed",
                kind=kind,
                error=f"the process ended without a result: {_cause(code)}",
                ended=time.time(),
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: Any) -> None:
            self.stop_requests += 1

        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        # A process that ignores a signal has a reason: nohup does so to outlive its terminal.
        before = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ends(trial: TrialDir | None) -> int:
    return sum(attempt.ended for attempt in trial.attempts.all()) if trial is not None else 0


def _error(trial: TrialDir) -> str:
    return str(trial.status().get("error") or "")


def _same(errors: Sequence[str]) -> str:
    """Why to stop early, or "": the first trials failed, and alike."""
    first = errors[:SAME_FAILURES]
    if len(errors) != SAME_FAILURES or not first[0] or len(set(first)) > 1:
        return ""
    return f"the first {SAME_FAILURES} trials fail with the same error: {first[0]}"


def _kind(ended: _Running, code: int) -> Kind:
    """Of an end that the trial could not write down."""
    if code == DISK_EXIT_CODE:
        return "disk"
    return "oom" if code == -signal.SIGKILL and _oom_kills() > ended.oom_kills else "lost"


def _refuse(job: Job, devices: Sequence[Device]) -> str:
    """The state of a job that needs more GPUs than there are."""
    there = ", ".join(device.name for device in devices) or "none"
    error = f"the recipe needs {job.need.gpus} GPUs, and those that may be used are {there}"
    if job.trial is None:
        print(f"{job.name}: {error}", file=sys.stderr)
        return "failed"
    with suppress(OSError, TrialBusyError), job.trial.locked():
        job.trial.attempts.begin(0, job.trial.attempts.parts)
        job.trial.attempts.end("config", job.trial.step)
        job.trial.update_status(state="failed", kind="config", error=error, ended=time.time())
    return "failed"


def _cause(code: int) -> str:
    if code == DISK_EXIT_CODE:
        return "nothing can be written where results go (full, read-only or gone)"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _oom_kills() -> int:
    """Processes that the kernel has killed for want of memory since it started; 0 where it does not count them."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def longest_first(jobs: Sequence[tuple[Job, float | None]]) -> list[Job]:
    """Measured jobs, longest first, so that the end of a table is not one long trial alone.

    Those that have not been measured yet go before, the last row first: tables add parts from top to bottom.
    """
    measured = sorted(((j, s) for j, s in jobs if s is not None), key=lambda pair: -pair[1])
    return [job for job, seconds in reversed(jobs) if seconds is None] + [job for job, _ in measured]


def has_space(folder: Path) -> bool:
    """Whether a trial can go on there: something can be written, and more than next to nothing is free."""
    probe = folder / f".now-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"\0" * 65536)
        return free_space(folder) >= LITTLE
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def free_space(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
