"""A table on a SLURM cluster: options, what would be handed in, and the watch over it."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.run import ProgressPrinter, job, made_ready, mirrors_of, preload
from rislab.cli.ablate.status import status_view
from rislab.errors import ConfigError

if TYPE_CHECKING:
    from rislab.ablation.plan import Cost, Planned
    from rislab.ablation.table import Profile, Table
    from rislab.launch.slurm import Cluster, Shape
    from rislab.launch.slurm_supervisor import Supervisor, Wanted


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster", "with --launcher slurm; over the profile's `cluster:` block")
    group.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where (default: %(default)s)")
    group.add_argument("--partition", metavar="P", help="SLURM partition")
    group.add_argument("--account", metavar="A", help="who pays")
    group.add_argument("--qos", metavar="Q", help="quality of service")
    group.add_argument("--constraint", metavar="C", help="features of nodes")
    group.add_argument("--time", metavar="T", help="limit of a job: D-HH:MM:SS, HH:MM:SS or minutes (24:00:00)")
    group.add_argument("--mem", metavar="M", help="memory a node")
    group.add_argument("--gpus-per-trial", type=int, metavar="N", help="of each node (default: trainer.devices)")
    group.add_argument("--cpus-per-trial", type=int, metavar="N", help="on each node (default: 1)")
    group.add_argument("--array-parallelism", type=int, metavar="N", help="jobs at once (default: 16)")
    group.add_argument("--trials-per-job", type=int, metavar="K", help="short trials packed into a job (default: 1)")
    group.add_argument("--at-once", type=int, metavar="M", help="of a job's trials, side by side (default: 1)")
    group.add_argument("--signal-seconds", type=int, metavar="S", help="warning before the limit (default: 120)")
    group.add_argument("--setup", action="append", metavar="LINE", help="shell line before the start; repeatable")
    group.add_argument("--sbatch", action="append", metavar="KEY=VALUE", help="further sbatch option; repeatable")


def request(options: argparse.Namespace, profile: "Profile") -> "Cluster":
    """What the profile's `cluster:` block and the command line ask for."""
    from rislab.launch import slurm

    given = {name: getattr(options, name) for name in slurm.OPTIONS if hasattr(options, name)}
    if options.sbatch is not None:
        pairs = [text.partition("=") for text in options.sbatch]
        wrong = [text for text, (_, equals, _) in zip(options.sbatch, pairs, strict=True) if not equals]
        if wrong:
            raise ConfigError(f"--sbatch {wrong[0]!r}: expected KEY=VALUE")
        given["sbatch"] = {**profile.cluster.get("sbatch", {}), **{key: value for key, _, value in pairs}}
    return slurm.cluster(profile.cluster, given)


def wanted(cells: "Sequence[Planned]", cluster: "Cluster") -> "list[Wanted]":
    """Trials with the shape of their jobs, longest first as far as is known."""
    from rislab.ablation import plan
    from rislab.launch import local_pool, slurm
    from rislab.launch.slurm_supervisor import Wanted

    seconds = plan.expected_seconds(cells)
    made = {cell.name: cell for cell in cells}
    order = local_pool.longest_first([(job(cell), seconds[cell.name]) for cell in cells])
    return [
        Wanted(
            each,
            slurm.shape(made[each.name].config.get("trainer", {}), cluster),
            _depth(made[each.name]),
            (parent := made[each.name].parent) is not None and parent.can_split,
        )
        for each in order
    ]


def _depth(cell: "Planned") -> int:
    return 0 if cell.parent is None else 1 + _depth(cell.parent)


def folder(runs: Path, table: "Table") -> Path:
    """Where submitit keeps scripts and logs."""
    return runs.absolute() / ".slurm" / table.name


def scripts(
    options: argparse.Namespace, table: "Table", profile: "Profile", todo: "Sequence[Planned]"
) -> list[tuple[str, str]]:
    """(what it runs, batch script) of everything that would be handed in."""
    from rislab.launch import slurm

    cluster = request(options, profile)
    kinds: dict[tuple[int, Shape], list[Wanted]] = {}
    for each in wanted(todo, cluster):
        kinds.setdefault((each.depth, each.shape), []).append(each)
    found = []
    for (depth, shape), group in sorted(kinds.items(), key=lambda item: item[0][0]):
        jobs = slurm.packed([each.job for each in group], cluster)
        title = f"{len(group)} trials in {len(jobs)} jobs{', after those of the stage before' if depth else ''}"
        found.append((title, slurm.script(folder(options.runs, table), table.name, cluster, shape, len(jobs))))
    return found


def gpu_hours(
    options: argparse.Namespace, profile: "Profile", todo: "Sequence[Planned]", costs: "dict[str, Cost | None]"
) -> tuple[float | None, float]:
    """(expected, at most by the time limit) for all of `todo`; expected is None when none was ever measured."""
    from rislab.launch import slurm

    cluster = request(options, profile)
    expected, known, most = 0.0, 0, 0.0
    for cell in todo:
        shape = slurm.shape(cell.config.get("trainer", {}), cluster)
        gpus = shape.gpus * shape.nodes
        cost = costs[cell.name]
        most += gpus * cluster.minutes / 60 / cluster.trials_per_job * min(cluster.at_once, cluster.trials_per_job)
        if cost is not None:
            expected, known = expected + gpus * cost.seconds / 3600, known + 1
    return (expected * len(todo) / known if known else None), most


def run(
    options: argparse.Namespace,
    screen: Any,
    table: "Table",
    profile: "Profile",
    cells: "list[Planned]",
    todo: "list[Planned]",
) -> int | None:
    """Hand `todo` in and watch over it. 0 when the user leaves the jobs to themselves, None when everything has ended."""
    from rislab.launch import slurm
    from rislab.launch.slurm_supervisor import Supervisor

    cluster = request(options, profile)
    queue = slurm.Queue()
    todo = made_ready(todo, screen)
    trials = wanted(todo, cluster)  # not before: a cell may have been found in another table's folder
    supervisor = Supervisor(
        folder(options.runs, table),
        table.name,
        cluster,
        trials,
        options.threads or max(1, cluster.cpus_per_trial // max(1, *(each.shape.gpus for each in trials))),
        preload(todo),
        queue,
    )
    ids = supervisor.hand_in()
    screen.print(f"{table.title}: {len(todo)} of {len(cells)} trials to run, {len(ids)} jobs handed in", style="bold")
    if options.detach:
        screen.print(f"they go on by themselves; see them with: rislab ablate status {options.table}", soft_wrap=True)
        return 0
    mirrors = mirrors_of(options, cells, table, profile)
    try:
        _watch(screen, supervisor, cells, mirrors.follow)
        mirrors.finish()
    except KeyboardInterrupt:
        screen.print(
            f"the jobs go on; watch them with: rislab ablate status {options.table} --watch, end them with: "
            f"rislab ablate cancel {options.table}",
            soft_wrap=True,
        )
        return 0
    return None


def _watch(screen: Any, supervisor: "Supervisor", cells: "list[Planned]", follow: Callable[[], None]) -> None:
    printer = ProgressPrinter(screen)
    if screen.is_terminal:
        from rich.live import Live

        with Live(status_view(cells), console=screen, refresh_per_second=1, transient=True) as live:
            while not supervisor.is_over:
                supervisor.look()
                follow()
                live.update(status_view(cells))
                time.sleep(1)
        return
    while not supervisor.is_over:
        supervisor.look()
        follow()
        printer.tell_states(cells)
        time.sleep(1)
    printer.tell_states(cells)
