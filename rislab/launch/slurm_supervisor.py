"""Keeps a table's jobs on a cluster going: submits what is missing, and again what has vanished without a result.

Nothing of it need survive: who starts anew, on any node, sees the same from the trial directories and the queue.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.errors import DiskError
from rislab.launch import slurm
from rislab.launch.local_pool import Job
from rislab.launch.retry_policy import Memory, is_over, settle
from rislab.launch.slurm import Cluster, Queue, Shape

QUERY_EVERY_SECONDS = 10.0
"""Between two questions to SLURM, which is everybody's."""

NEVER_STARTED = 3
"""Jobs of one trial that may end before they start it; then something is wrong with the setup, not with a node."""


@dataclass(frozen=True)
class QueuedTrial:
    """A trial that is to be run on the cluster.

    Attributes:
        depth: how many stages it waits for.
        before_can_split: `can_split` of the one that it waits for.
    """

    job: Job
    shape: Shape
    depth: int
    before_can_split: bool = False

    @property
    def trial(self) -> TrialDir:
        assert self.job.trial is not None
        return self.job.trial

    @property
    def is_over(self) -> bool:
        """Whether it will not be started again: it has ended, or what it starts from has ended without a result."""
        if is_over(self.trial, self.job.can_split):
            return True
        before = self.job.after
        return before is not None and before.state() != "done" and is_over(before, self.before_can_split)


class Supervisor:
    """folder: of submitit's files; name: of the jobs; threads: of each trial; preload: modules that a job imports once."""

    def __init__(
        self,
        folder: Path,
        name: str,
        request: Cluster,
        trials: Sequence[QueuedTrial],
        threads: int,
        preload: Sequence[str],
        queue: Queue,
    ) -> None:
        self.folder, self.name, self.request, self.trials = folder, name, request, list(trials)
        self.threads, self.preload, self.queue = threads, list(preload), queue
        self.handed_in = 0
        """Jobs that this launcher has submitted."""
        self._ids: dict[str, str] = {}
        """Jobs by trial, as this launcher handed them in: a full disk does not keep them."""
        self._memory: dict[str, Memory] = {}
        self._given_up: dict[str, int] = {}
        """Trials that this launcher has given up, whether or not that could be written down, until their counts are reset."""
        self._gone: set[str] = set()
        self._not_started: dict[str, int] = {}
        self._queried_at = -QUERY_EVERY_SECONDS

    @property
    def is_over(self) -> bool:
        return all(self._is_over(each) for each in self.trials)

    def _is_over(self, each: QueuedTrial) -> bool:
        given_up = self._given_up.get(each.job.name) == each.trial.attempts.forgiven
        return given_up or each.is_over

    def submit(self) -> list[str]:
        """Jobs for all trials that have neither an end, nor a process, nor a job that SLURM knows; returns their ids.

        Raises:
            DiskError: When nothing can be written where trials lie: jobs that cannot be noted would be submitted again.
        """
        try:
            return self._submit()
        except OSError as error:
            raise DiskError(f"{error.filename or self.folder}: cannot be written: {error.strerror}") from None

    def _submit(self) -> list[str]:
        made: list[str] = []
        with slurm.alone(self.folder):
            alive = self.queue.alive()
            if alive is None:
                return []
            missing = [each for each in self.trials if self._is_missing(each, alive)]
            for depth in sorted({each.depth for each in missing}):
                for shape in dict.fromkeys(each.shape for each in missing if each.depth == depth):
                    jobs = [each.job for each in missing if each.depth == depth and each.shape == shape]
                    before = sorted(self._ids_before(jobs, alive | set(made)))
                    ids = slurm.submit(
                        self.folder, self.name, self.request, shape, jobs, self.threads, self.preload, before
                    )
                    self._ids |= ids
                    made += dict.fromkeys(ids.values())
        self.handed_in += len(made)
        return made

    def _is_missing(self, each: QueuedTrial, alive: set[str]) -> bool:
        job = each.trial.job()
        has_job = (job is not None and job["id"] in alive) or self._ids.get(each.job.name) in alive
        return not has_job and not self._is_over(each) and each.trial.holder() is None

    @staticmethod
    def _ids_before(jobs: Sequence[Job], alive: set[str]) -> set[str]:
        before = [job.after.job() for job in jobs if job.after is not None and job.after.state() != "done"]
        return {job["id"] for job in before if job is not None and job["id"] in alive}

    def check_queue(self) -> None:
        """Call it every second or so: what vanished is submitted again, as `settle` says. SLURM is queried now and then only."""
        if time.monotonic() - self._queried_at < QUERY_EVERY_SECONDS:
            return
        self._queried_at = time.monotonic()
        alive = self.queue.alive()
        if alive is None:
            return  # it does not answer; that says nothing about jobs
        gone = {each.job.name for each in self.trials if self._is_missing(each, alive)}
        # Seen twice: files of another node may come a moment after its job has left the queue.
        vanished = [each for each in self.trials if each.job.name in gone & self._gone]
        self._gone = gone
        again = False
        for each in vanished:
            if self._never_started(each):
                continue
            with suppress(OSError, TrialBusyError):
                memory = self._memory.setdefault(each.job.name, Memory())
                memory.add(each.trial, None)
                if settle(each.trial, each.job.can_split, memory)[0] == "again":
                    again = True
                else:
                    self._given_up[each.job.name] = each.trial.attempts.forgiven
        if again:
            self._gone = set()
            with suppress(DiskError):  # tried again at the next look
                self.submit()

    def _never_started(self, each: QueuedTrial) -> bool:
        """Counts jobs that ended before they wrote a line; gives the trial up after a few."""
        job = each.trial.job()
        if job is None or job.get("attempts") != len(each.trial.attempts.all()):
            self._not_started.pop(each.job.name, None)
            return False
        waits = each.job.after is not None and each.job.after.state() != "done"
        count = self._not_started[each.job.name] = self._not_started.get(each.job.name, 0) + (not waits)
        if count < NEVER_STARTED:
            return False
        self._given_up[each.job.name] = each.trial.attempts.forgiven
        with suppress(OSError, TrialBusyError), each.trial.locked():
            each.trial.attempts.begin(0, each.trial.attempts.parts)
            each.trial.attempts.end("config", 0)
            each.trial.update_status(
                state="failed",
                kind="config",
                error=f"{count} jobs ended before they started the trial; see the newest log in {self.folder}",
                ended=time.time(),
            )
        return True
