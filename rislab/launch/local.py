"""The local pool: as many trials at once as there are slots, each in a process forked from one that has paid the imports.

A fork server (multiprocessing's own) imports the heavy packages once. Every trial gets a process of its own from it: what a
trial leaks, crashes or is killed by stays there. Children end themselves when the pool's process is gone.
"""

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rislab.ablation.trial import TrialDir
from rislab.errors import RislabError

POLL_SECONDS = 0.5
SAME_FAILURES = 3
"""As many first trials failing with the same error stop the table: the fault is not a row's."""


@dataclass(frozen=True)
class Job:
    """target: `module:function`, called as function(argument, threads) in a process of its own."""

    name: str
    target: str
    argument: str
    trial: TrialDir | None = None


@dataclass
class Outcome:
    """What became of the jobs, by name: "done", "failed", "diverged", "interrupted", "busy" or "not started"."""

    states: dict[str, str] = field(default_factory=dict)
    stopped_by: str = ""


def _child(target: str, argument: str, threads: int) -> None:
    """First code in a forked process: die with the parent, then run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    module, _, function = target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(argument, threads)
    except RislabError as error:
        # A trial has written its own status; what comes here is about the start itself.
        print(error)
        raise SystemExit(error.exit_code) from None


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


class LocalPool:
    """Runs jobs in `slots` processes.

    slots: trials at once; threads: of each. preload: modules to import once, before any trial.
    """

    def __init__(self, slots: int, threads: int, preload: Sequence[str]) -> None:
        self.slots, self.threads = slots, threads
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        self._asked_to_stop = 0

    def run(self, jobs: Sequence[Job], watch: Callable[[Sequence[str]], None]) -> Outcome:
        """Run all jobs and say what became of each; one job's fault is its own.

        watch: called about twice a second with the names of the running jobs.
        Ctrl-C once: running trials write a checkpoint and end. Twice: they are killed.
        """
        outcome = Outcome({job.name: "not started" for job in jobs})
        waiting = list(jobs)
        running: dict[str, tuple[Job, BaseProcess]] = {}
        errors: list[str] = []
        with self._signals(running):
            try:
                while running or (waiting and not self._asked_to_stop and not outcome.stopped_by):
                    while waiting and len(running) < self.slots and not self._asked_to_stop and not outcome.stopped_by:
                        job = waiting.pop(0)
                        process: BaseProcess = self.context.Process(
                            target=_child, args=(job.target, job.argument, self.threads)
                        )
                        process.start()
                        running[job.name] = (job, process)
                    wait([process.sentinel for _, process in running.values()], timeout=POLL_SECONDS)
                    for name, (job, process) in list(running.items()):
                        if process.exitcode is not None:
                            process.join()
                            del running[name]
                            outcome.states[name] = self._settle(job, process.exitcode)
                            self._count(job, outcome, errors)
                    watch(list(running))
            finally:
                for _, process in running.values():
                    process.kill()
        return outcome

    def _settle(self, job: Job, code: int) -> str:
        """State after a job's process has ended; a death that nobody wrote down is written down here."""
        if job.trial is None:
            return "done" if code == 0 else "failed"
        state = job.trial.state()
        if state == "running" and code != 0:
            return "busy"  # held by another launcher
        if state in ("lost", "pending"):
            if code == 0:
                return state
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            state = "interrupted" if self._asked_to_stop else "failed"
            job.trial.update_status(
                state=state,
                kind="oom" if code == -signal.SIGKILL and not self._asked_to_stop else "lost",
                error=f"the process ended without a word: {cause}; {job.trial.stdout} has its output",
                ended=time.time(),
            )
        return state

    def _count(self, job: Job, outcome: Outcome, errors: list[str]) -> None:
        """Stop early when the first trials fail alike."""
        if job.trial is None or outcome.states[job.name] == "busy":
            return
        failed = outcome.states[job.name] == "failed"
        errors.append(str(job.trial.status().get("error")) if failed else "")
        first = errors[:SAME_FAILURES]
        if len(errors) == SAME_FAILURES and first[0] and len(set(first)) == 1:
            outcome.stopped_by = f"the first {SAME_FAILURES} trials fail with the same error: {first[0]}"

    @contextmanager
    def _signals(self, running: dict[str, tuple[Job, BaseProcess]]) -> Iterator[None]:
        def stop(_number: int, _frame: Any) -> None:
            self._asked_to_stop += 1
            for _, process in list(running.values()):
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM if self._asked_to_stop == 1 else signal.SIGKILL)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def longest_first(jobs: Sequence[tuple[Job, float | None]]) -> list[Job]:
    """Measured jobs, longest first, so that the end of a table is not one long trial alone.

    Those that nobody has measured yet go before, the last row first: tables add parts from top to bottom.
    """
    measured = sorted(((j, s) for j, s in jobs if s is not None), key=lambda pair: -pair[1])
    return [job for job, seconds in reversed(jobs) if seconds is None] + [job for job, _ in measured]


def free_space(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
