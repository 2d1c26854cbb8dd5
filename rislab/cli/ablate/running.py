"""`rislab ablate run`: what is missing of a table, on this machine."""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.choosing import Action, console, load
from rislab.cli.ablate.watching import status_table
from rislab.errors import ConfigError, RislabError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.launch.local import Job, LocalPool, Outcome

TARGET = "rislab.training.trial"
ROOM_BYTES = 512 << 20


def add(action: Action) -> None:
    started = action("run", "run what is missing of a table; run it again to resume", "cris --seeds 3 --jobs 2")
    started.add_argument("--jobs", type=int, metavar="N", help="trials at once (default: one a core)")
    started.add_argument("--threads", type=int, metavar="N", help="threads of each (default: the cores, shared out)")
    started.add_argument("--stale", action="store_true", help="also repeat what was made with other code")
    started.add_argument("--retry", action="store_true", help="also repeat what failed or diverged")
    started.set_defaults(run=run_table)


def run_table(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.launch import local

    table, profile, _, planned = load(options)
    for name in ("jobs", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least 1")
    cells = plan.distinct(planned)
    todo = [cell for cell in cells if _to_run(cell, options.stale, options.retry)]
    screen = console()
    if not todo:
        _say_result(screen, cells)
        return _exit_code(cells)
    plan.require_data(planned, profile)
    _require_room(options.runs)
    for cell in todo:
        make_ready(cell)

    cores = local.cores()
    jobs = options.jobs or (cores if _on_cpu(todo) else 1)
    threads = options.threads or max(1, cores // jobs)
    slots = min(jobs, len(todo))
    screen.print(f"{table.title}: {len(todo)} of {len(cells)} trials to run, {slots} at once", style="bold")
    began = time.monotonic()
    modules = preload(todo)
    screen.print("preparing data and pretrained trunk (made once, then cached)", style="dim")
    inputs = {json.dumps(_inputs(cell.config), sort_keys=True): cell for cell in todo}
    pool = local.LocalPool(1, cores, modules)
    ready = pool.run(
        [local.Job(f"prepare {n}", f"{TARGET}:prepare", str(c.trial.config)) for n, c in enumerate(inputs.values())],
        lambda: None,
    )
    if pool.stops_asked:
        return 130
    if set(ready.states.values()) != {"done"}:
        raise RislabError("preparing failed; see the message above")
    expected = plan.expected_seconds(todo)
    queue = [(job(cell), expected[cell.name]) for cell in todo]
    pool = local.LocalPool(slots, threads, modules)
    outcome = _watched(screen, pool, local.longest_first(queue), cells)
    if outcome.stopped_by:
        screen.print(f"stopped early: {outcome.stopped_by}", style="red", markup=False)
    _say_result(screen, cells)
    screen.print(f"{time.monotonic() - began:.0f} s", style="dim")
    return 130 if pool.stops_asked else _exit_code(cells)


def job(cell: "Planned") -> "Job":
    """What a launcher starts for a trial."""
    from rislab.launch.local import Job

    return Job(
        cell.name,
        f"{TARGET}:run_trial",
        str(cell.trial.path),
        cell.trial,
        ("fit", "--config", str(cell.trial.config)),
        cell.parent.trial if cell.parent is not None else None,
    )


def preload(cells: "list[Planned]") -> list[str]:
    """Modules that the trials' processes share, imported once."""
    from rislab.ablation.table import PARTS

    return [TARGET, *sorted({cell.config[part]["class_path"].rpartition(".")[0] for cell in cells for part in PARTS})]


def make_ready(cell: "Planned") -> None:
    """A directory from which the trial can start, or go on; one that another launcher is running stays as it is."""
    from rislab.ablation.trial import TrialBusyError

    try:
        if cell.state == "done":  # made with other code
            cell.trial.forget()
        elif cell.state in ("failed", "diverged"):
            cell.trial.excuse()
        cell.write()
    except TrialBusyError:
        return
    except OSError as error:
        raise RislabError(f"{error.filename or cell.trial.path}: cannot be written: {error.strerror}") from None


def _on_cpu(cells: "list[Planned]") -> bool:
    """Whether trials may run side by side unasked: those on a GPU would fight for its memory."""
    return all(cell.config.get("trainer", {}).get("accelerator") == "cpu" for cell in cells)


def _inputs(config: dict[str, Any]) -> Any:
    """What a trial needs made before it starts."""
    data = config["data"]["init_args"]
    data = data.get("benchmark_data", {}).get("init_args", data)
    return [data.get("generate"), config["model"]["init_args"].get("clip")]


def _to_run(cell: "Planned", stale: bool, retry: bool) -> bool:
    state = cell.state
    if state == "done":
        return stale and bool(cell.stale())
    if state == "diverged":
        return retry
    if state == "failed":
        # What the machine did to a trial (killed, out of memory) is no fault of its row: just go on.
        return retry or cell.trial.status().get("kind") in ("lost", "oom")
    return True


def _require_room(folder: Path) -> None:
    from rislab.launch import local

    free = local.free_space(folder)
    if free < ROOM_BYTES:
        raise ConfigError(f"{folder}: {free >> 20} MiB free, a table needs at least {ROOM_BYTES >> 20} MiB")


def _watched(console: Any, pool: "LocalPool", jobs: "list[Job]", cells: "list[Planned]") -> "Outcome":
    """Run the jobs with a live table on a terminal, or with one line a change elsewhere."""
    told: dict[str, str] = {}

    def tell(name: str, what: str) -> None:
        if told.get(name) != what:
            told[name] = what
            console.print(f"{time.strftime('%H:%M:%S')} {name}: {what}", markup=False, soft_wrap=True)

    def watch_stop() -> None:
        if pool.stops_asked:
            tell(
                "stopping", "trials write a checkpoint and end; the same command goes on from there (again: kill them)"
            )

    if console.is_terminal:
        from rich.live import Live

        def show() -> None:
            watch_stop()
            live.update(status_table(cells))

        with Live(status_table(cells), console=console, refresh_per_second=2, transient=True) as live:
            return pool.run(jobs, show)

    def print_changes() -> None:
        watch_stop()
        for cell in cells:
            state = cell.state
            if state != "pending":
                tell(cell.name, state)

    return pool.run(jobs, print_changes)


def _say_result(console: Any, cells: "list[Planned]") -> None:
    counts = Counter(cell.state for cell in cells)
    console.print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for cell in cells:
        if cell.state in ("failed", "diverged"):
            error = cell.trial.status().get("error")
            console.print(f"{cell.name}: {cell.state}: {error}", style="red", soft_wrap=True, markup=False)
            console.print(f"  {cell.trial.stdout}   again: --retry", style="dim", soft_wrap=True)


def _exit_code(cells: "list[Planned]") -> int:
    states = {cell.state for cell in cells}
    if states & {"interrupted", "lost"}:
        return 130
    return 0 if states == {"done"} else 1
