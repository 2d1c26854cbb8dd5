"""What runs inside a SLURM job: a pool over the job's trials, or one rank of a trial that spans nodes.

Signals have one owner. submitit would checkpoint and requeue from inside its handler, at any line of Python; its handlers are put
aside, a signal only sets a flag, trials end after a whole step with a checkpoint, and then the job asks to be requeued. The
requeued job reads the very same paths: nothing about progress is in it.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from rislab.ablation.attempts import slurm_job
from rislab.ablation.trial import LOST_AFTER_SECONDS, TrialBusyError
from rislab.launch.local_pool import Job, LocalPool
from rislab.launch.resources import Requirement, gpus
from rislab.launch.retry_policy import is_over, settle

LAST_WAIT_SECONDS = 180.0
"""After a stop, the job stays until SLURM ends it: one that ends by itself while it is being preempted is not requeued."""

PATIENCE_SECONDS = LOST_AFTER_SECONDS + 30
"""A trial that another process holds is waited for until it is known whether that is dead; then the node is given back."""


@dataclass(frozen=True)
class Work:
    """Everything a job is given. jobs: its trials; slots: side by side; threads: of each."""

    jobs: tuple[Job, ...]
    slots: int
    threads: int
    preload: tuple[str, ...]
    nodes: int = 1

    def __call__(self) -> list[str]:
        """Run the trials to their ends and return their states; called by submitit in every task of the job."""
        return self._as_rank() if self.nodes > 1 else self._as_pool()

    def checkpoint(self) -> Any:
        """submitit asks for it only through the handlers that are put aside; then the same work again is right."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _as_pool(self) -> list[str]:
        devices = gpus()
        jobs = (
            self.jobs if devices else tuple(replace(job, need=Requirement()) for job in self.jobs)
        )  # then there is the CPU only
        pool = LocalPool(self.slots, self.threads, self.preload, devices, patience=PATIENCE_SECONDS)
        warned: list[int] = []

        def warn(number: int, frame: FrameType | None) -> None:
            warned.append(number)
            pool.stop_requests += 1

        signal.signal(signal.SIGUSR2, warn)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, warn)
        outcome = pool.run(jobs, lambda: None)
        if pool.stop_requests:
            left = [job for job in self.jobs if job.trial is not None and not is_over(job.trial, job.can_split)]
            _end(requeue=bool(left) and signal.SIGUSR2 in warned)
        return [outcome.states[job.name] for job in self.jobs]

    def _as_rank(self) -> list[str]:
        """The same trial in every task; the first keeps its books."""
        (job,) = self.jobs
        trial = job.trial
        assert trial is not None
        if job.after is not None and job.after.state() != "done":
            return ["not started"]
        rank = int(os.environ.get("SLURM_PROCID", "0"))
        module, _, function = (job.secondary if rank else job.target).partition(":")
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        end = time.monotonic() + PATIENCE_SECONDS
        while trial.holder() is not None and not rank and time.monotonic() < end:
            time.sleep(2)  # an earlier life of this job, on a node that went away
        try:
            getattr(importlib.import_module(module), function)(job.argument, self.threads)
        except TrialBusyError as error:
            print(error, file=sys.stderr)
            return ["running"]
        except SystemExit as stop:
            number = getattr(stop, "number", None)
            again = rank == 0 and settle(trial, job.can_split)[0] == "again"
            if number is not None or again:
                _end(requeue=again and number != signal.SIGTERM)
        return [trial.state()]


def _end(requeue: bool) -> None:
    """Ask for another turn where that is ours to ask, and wait for SLURM to end this one."""
    if requeue:
        job = slurm_job().rpartition(".")[0]
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
        print(f"requeue {job}: {done.stderr.strip() or 'done'}", flush=True)
        if done.returncode:
            sys.exit(1)  # the supervisor of the table hands it in again
    time.sleep(LAST_WAIT_SECONDS)
    sys.exit(1)
