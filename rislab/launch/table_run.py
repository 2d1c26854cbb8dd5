"""What `rislab ablate run` does: make the missing trials of a table ready, start them, follow them to their end."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rislab.ablation import plan
from rislab.ablation.plan import Planned
from rislab.ablation.table import Profile, Table
from rislab.errors import ConfigError
from rislab.launch import local_pool, resources, slurm_table, trial_jobs
from rislab.launch.local_pool import LocalPool
from rislab.launch.slurm import Cluster
from rislab.launch.trial_jobs import Say
from rislab.launch.wandb_mirror import Mirrors, mode

STOPPING = "trials write a checkpoint and end; the same command goes on from there (again: kill them)"


@dataclass(frozen=True)
class Request:
    """How a table is to be run; None leaves a choice to the launcher.

    Attributes:
        runs: Folder of the trials.
        table: As the user gave it, for the commands that messages name.
        jobs: Trials at once on this machine. By default one a core, or as many as the GPUs have memory for.
        threads: Of each trial. By default the cores, shared out.
        devices: GPUs: how many, or which, as `--devices` takes them.
        stale: Also repeat what was made with other code.
        retry: Also repeat what failed, diverged or was cancelled.
        cluster: What a SLURM job requests; None: this machine.
        detach: Hand the jobs in and leave.
        wandb: Mode of the mirror: online, offline, disabled.
    """

    runs: Path
    table: str
    jobs: int | None = None
    threads: int | None = None
    devices: str | None = None
    stale: bool = False
    retry: bool = False
    cluster: Cluster | None = None
    detach: bool = False
    wandb: str | None = None


Notes = Mapping[str, str]
"""What there is to say of a trial beside its state, by name."""


class View(Protocol):
    """Where a run shows what it does."""

    @property
    def say(self) -> Say:
        """Show a line."""

    def following(self, cells: Sequence[Planned]) -> AbstractContextManager[Callable[[Notes], None]]:
        """A view of the trials while they run; its value is called again and again and shows what has changed."""


@dataclass(frozen=True)
class TableRun:
    """One table, run once.

    Attributes:
        table: What is run.
        profile: Its scale.
        cells: Its trials, each once.
        request: How.
        view: Where it is shown.
    """

    table: Table
    profile: Profile
    cells: Sequence[Planned]
    request: Request
    view: View

    def run(self) -> int:
        """Run what is missing.

        Returns:
            The exit code: 0 all done (or submitted), 1 something failed, 130 stopped; the same command goes on.

        Raises:
            ConfigError: The request contradicts itself, or data or space are missing.
            RislabError: No trial could be started.
        """
        if self.request.detach and self.request.wandb not in (None, "disabled"):
            raise ConfigError(
                "--detach leaves no process to mirror the trials; "
                "`rislab ablate run` with --wandb tells wandb all, also afterwards"
            )
        if self.request.cluster is None:
            return run_together([self])[0]
        missing = self.missing()
        if not missing:
            self.mirrors().finish()
            return exit_code(self.cells)
        code = self._on_slurm(missing)
        return exit_code(self.cells) if code is None else code

    def missing(self) -> list[Planned]:
        """The trials that are to be run.

        Raises:
            ConfigError: Their data or space for them are missing.
        """
        missing = trial_jobs.missing(self.cells, self.request.stale, self.request.retry)
        if missing:
            plan.require_data(self.cells, self.profile)
            trial_jobs.require_space(self.request.runs)
        return missing

    def _on_slurm(self, missing: Sequence[Planned]) -> int | None:
        """Hand trials in and watch over them; 0 when the user leaves the jobs to themselves, None when all have ended."""
        assert self.request.cluster is not None
        missing = trial_jobs.all_ready(missing, self.view.say)
        supervisor = slurm_table.supervisor(
            self.request.runs, self.table, self.request.cluster, missing, self.request.threads
        )
        jobs = supervisor.submit()
        name = self.request.table
        _say_start([self], missing, self.view, f"{len(jobs)} jobs submitted")
        if self.request.detach:
            self.view.say(f"they go on by themselves; see them with: rislab ablate status {name}")
            return 0
        mirrors = self.mirrors()
        try:
            with self.view.following(self.cells) as show:
                while not supervisor.is_over:
                    supervisor.check_queue()
                    mirrors.follow()
                    show({})
                    time.sleep(1)
                show({})
            mirrors.finish()
        except KeyboardInterrupt:
            self.view.say(
                f"the jobs go on; watch them with: rislab ablate status {name} --watch, "
                f"end them with: rislab ablate cancel {name}"
            )
            return 0
        return None

    def mirrors(self) -> Mirrors:
        """What keeps wandb up to date, if requested: also of what is done already, unless wandb has been told."""
        return Mirrors(self.cells, self.table, self.profile, mode(self.request.wandb))


def run_together(runs: Sequence[TableRun]) -> list[int]:
    """Run what is missing of several tables in one pool on this machine, so that tables of one trial leave no core idle.

    Args:
        runs: One or more. Request and view of the first hold for all.

    Returns:
        An exit code a table, as `TableRun.run` has it.

    Raises:
        ConfigError: Data or space are missing.
        RislabError: No trial could be started.
    """
    several = len(runs) > 1
    cells = [replace(cell, of_table=run.table.name) if several else cell for run in runs for cell in run.missing()]
    missing = list({cell.directory: cell for cell in cells}.values())
    if not missing:
        for run in runs:
            run.mirrors().finish()
    code = in_one_pool(runs, missing) if missing else None
    return [exit_code(run.cells) if code is None else code for run in runs]


def in_one_pool(runs: Sequence[TableRun], missing: Sequence[Planned]) -> int | None:
    """Run trials over the cores or GPUs; 130 when the user stopped it, 1 when it stopped early, None otherwise."""
    request, view = runs[0].request, runs[0].view
    devices = (
        resources.chosen(request.devices, resources.gpus()) if request.devices or not trial_jobs.on_cpu(missing) else []
    )
    missing = trial_jobs.all_ready(missing, view.say)
    cores = local_pool.cores()
    jobs = request.jobs or (cores if trial_jobs.on_cpu(missing) else max(1, 4 * len(devices)))
    slots = min(jobs, len(missing))
    _say_start(runs, missing, view, f"{slots} at once")
    modules = trial_jobs.shared_modules(missing)
    view.say("preparing data and pretrained trunk (made once, then cached)", "dim")
    if trial_jobs.prepare_inputs(missing, modules, lambda: None):
        return 130
    threads = request.threads or max(1, cores // (slots if devices else jobs))
    pool = LocalPool(slots, threads, modules, devices)
    mirrors = [run.mirrors() for run in runs]
    with view.following(runs[0].cells if len(runs) == 1 else missing) as show:

        def watch() -> None:
            for mirror in mirrors:
                mirror.follow()
            show(({"stopping": STOPPING} if pool.stop_requests else {}) | dict(pool.notes))

        outcome = pool.run(_queue(missing, devices), watch)
    for mirror in mirrors:
        mirror.finish()
    if outcome.stopped_by:
        view.say(f"stopped early: {outcome.stopped_by}", "red")
    return 130 if pool.stop_requests else 1 if outcome.stopped_by else None


def _say_start(runs: Sequence[TableRun], missing: Sequence[Planned], view: View, how: str) -> None:
    title = runs[0].table.title if len(runs) == 1 else f"{len(runs)} tables"
    view.say(f"{title}: {len(missing)} of {sum(len(run.cells) for run in runs)} trials to run, {how}", "bold")


def _queue(cells: Sequence[Planned], devices: Sequence[resources.Device]) -> list[local_pool.Job]:
    """Jobs of trials, longest first as far as is known, with the GPU memory that they took before."""
    costs = plan.expected(cells)
    timed = []
    for cell in cells:
        job, cost = trial_jobs.of_cell(cell), costs[cell.name]
        if cost is not None and cost.gpu_mb and devices:
            job = replace(job, need=replace(job.need, memory_mb=cost.gpu_mb))
        timed.append((trial_jobs.on_devices(job, devices), cost.seconds if cost is not None else None))
    return local_pool.longest_first(timed)


def run_chain(cells: Sequence[Planned], threads: int | None, follow: Callable[[], None]) -> bool:
    """Run the trials of one row and seed, one after the other, as a wandb agent does.

    Args:
        cells: What is to run of a chain of stages.
        threads: Of each; None: 1 on a CPU, else the cores.
        follow: Called about twice a second.

    Returns:
        Whether the user stopped it.
    """
    for cell in cells:
        trial_jobs.make_ready(cell)
    modules = trial_jobs.shared_modules(cells)
    if trial_jobs.prepare_inputs(cells, modules, follow):
        return True
    is_cpu = trial_jobs.on_cpu(cells)
    devices = [] if is_cpu else resources.gpus()
    pool = LocalPool(1, threads or (1 if is_cpu else local_pool.cores()), modules, devices)
    pool.run([trial_jobs.on_devices(trial_jobs.of_cell(cell), devices) for cell in cells], follow)
    return bool(pool.stop_requests)


def exit_code(cells: Sequence[Planned]) -> int:
    """0 when all trials are done, 130 when some were interrupted, 1 otherwise."""
    states = {cell.state for cell in cells}
    if states & {"interrupted", "lost"}:
        return 130
    return 0 if states == {"done"} else 1
