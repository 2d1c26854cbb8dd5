"""A table on this machine: a pool over its cores or GPUs, with a live view."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.run import TARGET, ProgressPrinter, job, made_ready, mirrors_of, on_cpu, places_on, preload
from rislab.cli.ablate.status import status_view
from rislab.errors import RislabError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table
    from rislab.launch.local_pool import Job, LocalPool, Outcome


def run(
    options: argparse.Namespace,
    screen: Any,
    table: "Table",
    profile: "Profile",
    cells: "list[Planned]",
    todo: "list[Planned]",
) -> int | None:
    """Run `todo`; 130 when the user stopped it, 1 when it stopped early, None otherwise."""
    from rislab.ablation import plan
    from rislab.launch import local_pool, resources

    devices = resources.chosen(options.devices, resources.gpus()) if not on_cpu(todo) or options.devices else []
    todo = made_ready(todo, screen)
    cores = local_pool.cores()
    jobs = options.jobs or (cores if on_cpu(todo) else max(1, 4 * len(devices)))
    slots = min(jobs, len(todo))
    threads = options.threads or max(1, cores // (slots if devices else jobs))
    screen.print(f"{table.title}: {len(todo)} of {len(cells)} trials to run, {slots} at once", style="bold")
    modules = preload(todo)
    screen.print("preparing data and pretrained trunk (made once, then cached)", style="dim")
    if _prepare(todo, cores, modules):
        return 130
    costs = plan.expected(todo)
    queue = []
    for cell in todo:
        cost = costs[cell.name]
        each = job(cell)
        if cost is not None and cost.gpu_mb and devices:
            each = replace(each, need=replace(each.need, memory_mb=cost.gpu_mb))
        queue.append((places_on(each, devices), cost.seconds if cost is not None else None))
    pool = local_pool.LocalPool(slots, threads, modules, devices)
    mirrors = mirrors_of(options, cells, table, profile)
    outcome = _watched(screen, pool, local_pool.longest_first(queue), cells, mirrors.follow)
    mirrors.finish()
    if outcome.stopped_by:
        screen.print(f"stopped early: {outcome.stopped_by}", style="red", markup=False, soft_wrap=True)
    return 130 if pool.stop_requests else 1 if outcome.stopped_by else None


def _prepare(todo: "list[Planned]", cores: int, modules: list[str]) -> bool:
    """Make what first starts would make, once, before several trials wait for it. True when the user stopped it."""
    from rislab.launch import local_pool

    inputs = {json.dumps(_inputs(cell.config), sort_keys=True): cell for cell in todo}
    pool = local_pool.LocalPool(1, cores, modules)
    ready = pool.run(
        [
            local_pool.Job(f"prepare {n}", f"{TARGET}:prepare", str(c.trial.config))
            for n, c in enumerate(inputs.values())
        ],
        lambda: None,
    )
    if not pool.stop_requests and set(ready.states.values()) != {"done"}:
        raise RislabError("preparing failed; see the message above")
    return bool(pool.stop_requests)


def _inputs(config: dict[str, Any]) -> Any:
    """What a trial needs made before it starts."""
    data = config["data"]["init_args"]
    data = data.get("benchmark_data", {}).get("init_args", data)
    return [data.get("generate"), config["model"]["init_args"].get("clip")]


def _watched(
    screen: Any, pool: "LocalPool", jobs: "list[Job]", cells: "list[Planned]", follow: Callable[[], None]
) -> "Outcome":
    """Run the jobs with a live table on a terminal, or with one line a change elsewhere."""
    printer = ProgressPrinter(screen)

    def watch_stop() -> None:
        follow()
        if pool.stop_requests:
            printer.tell(
                "stopping", "trials write a checkpoint and end; the same command goes on from there (again: kill them)"
            )
        for name, note in pool.notes.items():
            printer.tell(name, note)

    if screen.is_terminal:
        from rich.live import Live

        def show() -> None:
            watch_stop()
            live.update(status_view(cells))

        with Live(status_view(cells), console=screen, refresh_per_second=2, transient=True) as live:
            return pool.run(jobs, show)

    def print_changes() -> None:
        watch_stop()
        printer.tell_states(cells)

    return pool.run(jobs, print_changes)
