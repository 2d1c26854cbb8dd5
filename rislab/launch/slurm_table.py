"""A table on a SLURM cluster: its jobs, their batch scripts, what they cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rislab.ablation import plan
from rislab.ablation.plan import Cost, Planned
from rislab.ablation.table import Table
from rislab.launch import local_pool, slurm
from rislab.launch.slurm import Cluster, Shape
from rislab.launch.slurm_supervisor import QueuedTrial, Supervisor
from rislab.launch.trial_jobs import of_cell, shared_modules


def folder(runs: Path, table: Table) -> Path:
    """Where submitit keeps scripts and logs."""
    return runs.absolute() / ".slurm" / table.name


def queued_trials(cells: Sequence[Planned], cluster: Cluster) -> list[QueuedTrial]:
    """Trials with the shape of their jobs, longest first as far as is known."""
    seconds = plan.expected_seconds(cells)
    by_name = {cell.name: cell for cell in cells}
    order = local_pool.longest_first([(of_cell(cell), seconds[cell.name]) for cell in cells])
    return [
        QueuedTrial(
            job,
            slurm.shape(by_name[job.name].config.get("trainer", {}), cluster),
            _depth(by_name[job.name]),
            (parent := by_name[job.name].parent) is not None and parent.can_split,
        )
        for job in order
    ]


def _depth(cell: Planned) -> int:
    return 0 if cell.parent is None else 1 + _depth(cell.parent)


def supervisor(runs: Path, table: Table, cluster: Cluster, cells: Sequence[Planned], threads: int | None) -> Supervisor:
    """What hands the jobs in and watches them.

    Args:
        runs: Folder of the trials.
        table: Gives the jobs their name.
        cluster: What each job requests.
        cells: Trials, their directories written; not before, since a cell may have been found in another table's folder.
        threads: Of each rank; None: the CPUs of a trial, shared out to its GPUs.
    """
    trials = queued_trials(cells, cluster)
    ranks = max(1, *(each.shape.gpus for each in trials))
    each_rank = threads or max(1, cluster.cpus_per_trial // ranks)
    modules = shared_modules(cells)
    return Supervisor(folder(runs, table), table.name, cluster, trials, each_rank, modules, slurm.Queue())


def scripts(runs: Path, table: Table, cluster: Cluster, cells: Sequence[Planned]) -> list[tuple[str, str]]:
    """(title, batch script) of everything that would be submitted."""
    kinds: dict[tuple[int, Shape], list[QueuedTrial]] = {}
    for each in queued_trials(cells, cluster):
        kinds.setdefault((each.depth, each.shape), []).append(each)
    found = []
    for (depth, shape), group in sorted(kinds.items(), key=lambda item: item[0][0]):
        jobs = slurm.packed([each.job for each in group], cluster)
        title = f"{len(group)} trials in {len(jobs)} jobs{', after those of the stage before' if depth else ''}"
        found.append((title, slurm.script(folder(runs, table), table.name, cluster, shape, len(jobs))))
    return found


def gpu_hours(
    cluster: Cluster, cells: Sequence[Planned], costs: Mapping[str, Cost | None]
) -> tuple[float | None, float]:
    """GPU hours of all trials: expected (None when none was ever measured), and at most by the time limit."""
    expected, known, most = 0.0, 0, 0.0
    for cell in cells:
        shape = slurm.shape(cell.config.get("trainer", {}), cluster)
        gpus = shape.gpus * shape.nodes
        cost = costs[cell.name]
        most += gpus * cluster.minutes / 60 / cluster.trials_per_job * min(cluster.at_once, cluster.trials_per_job)
        if cost is not None:
            expected, known = expected + gpus * cost.seconds / 3600, known + 1
    return (expected * len(cells) / known if known else None), most
