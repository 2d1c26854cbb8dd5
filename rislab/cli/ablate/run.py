"""`rislab ablate run`: what is missing of a table, on this machine or on a cluster."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.selection import Action, check_count, load, open_console
from rislab.errors import ConfigError, RislabError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table
    from rislab.launch.local_pool import Job
    from rislab.launch.resources import Device
    from rislab.launch.wandb_mirror import Mirrors

TARGET = "rislab.training.trial"
FREE_BYTES = 512 << 20


def add(action: Action) -> None:
    from rislab.cli.ablate.clustering import add_cluster_options

    started = action("run", "run what is missing of a table; run it again to resume", "cris --seeds 3 --jobs 2")
    started.add_argument(
        "--jobs", type=int, metavar="N", help="trials at once (default: one a core, or GPUs as they fit)"
    )
    started.add_argument("--threads", type=int, metavar="N", help="threads of each (default: the cores, shared out)")
    started.add_argument("--devices", metavar="N|A,B", help="GPUs: how many, or which (default: all)")
    started.add_argument("--stale", action="store_true", help="also repeat what was made with other code")
    started.add_argument("--retry", action="store_true", help="also repeat what failed, diverged or was cancelled")
    add_cluster_options(started)
    started.add_argument("--detach", action="store_true", help="SLURM: hand the jobs in and leave")
    started.add_argument("--wandb", choices=("online", "offline", "disabled"), help="mirror the trials (default: off)")
    started.set_defaults(run=run_table)


def run_table(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.cli.ablate import clustering, pooling

    table, profile, _, planned = load(options)
    for name in ("jobs", "threads"):
        check_count(f"--{name}", getattr(options, name))
    cells = plan.distinct(planned)
    todo = [cell for cell in cells if to_run(cell, options.stale, options.retry)]
    screen = open_console()
    if options.detach and options.wandb not in (None, "disabled"):
        raise ConfigError(
            "--detach leaves no process to mirror the trials; `rislab ablate run` with --wandb tells wandb all, also afterwards"
        )
    if not todo:
        mirrors_of(options, cells, table, profile).finish()
        say_result(screen, cells)
        return exit_code(cells)
    plan.require_data(planned, profile)
    require_space(options.runs)
    launch = clustering.run if options.launcher == "slurm" else pooling.run
    began = time.monotonic()
    code = launch(options, screen, table, profile, cells, todo)
    say_result(screen, cells)
    screen.print(f"{time.monotonic() - began:.0f} s", style="dim")
    return exit_code(cells) if code is None else code


def job(cell: "Planned") -> "Job":
    """What a launcher starts for a trial."""
    from rislab.launch.local_pool import Job
    from rislab.launch.resources import Requirement

    trainer = cell.config.get("trainer", {})
    devices = trainer.get("devices", 1)
    return Job(
        cell.name,
        f"{TARGET}:run_trial",
        str(cell.trial.path),
        cell.trial,
        ("fit", "--config", str(cell.trial.config)),
        f"{TARGET}:run_secondary_rank",
        cell.parent.trial if cell.parent is not None else None,
        Requirement(0 if on_cpu([cell]) else devices if isinstance(devices, int) and devices > 0 else 1),
        cell.can_split,
    )


def places_on(job: "Job", devices: "Sequence[Device]") -> "Job":
    """The job on a machine with these GPUs: without any, whatever the config asks for, there is only the CPU."""
    from rislab.launch.resources import Requirement

    return job if devices else replace(job, need=Requirement())


def mirrors_of(options: argparse.Namespace, cells: "list[Planned]", table: "Table", profile: "Profile") -> "Mirrors":
    """What keeps wandb up to date, if it was requested: of what is done already, too, unless wandb has been told."""
    from rislab.launch.wandb_mirror import Mirrors, mode

    return Mirrors(cells, table, profile, mode(options.wandb))


def preload(cells: "list[Planned]") -> list[str]:
    """Modules that the trials' processes share, imported once."""
    from rislab.ablation.switches import PARTS

    return [TARGET, *sorted({cell.config[part]["class_path"].rpartition(".")[0] for cell in cells for part in PARTS})]


def made_ready(todo: "list[Planned]", screen: Any) -> "list[Planned]":
    """Those of `todo` that can be run, their directories written; why others cannot is shown.

    Raises RislabError when none can: then the fault is not one trial's.
    """
    ready: list[Planned] = []
    first = ""
    for cell in todo:
        try:
            make_ready(cell)
        except RislabError as error:
            first = first or str(error)
            screen.print(f"{cell.name}: left out: {error}", style="red", markup=False, soft_wrap=True)
        else:
            ready.append(cell)
    if not ready:
        raise RislabError(first)
    return ready


def make_ready(cell: "Planned") -> None:
    """A directory from which the trial can start, or go on; one that another launcher is running stays as it is.

    Raises RislabError when it cannot be written, or is another trial's.
    """
    from rislab.ablation.trial import TrialBusyError

    try:
        if cell.state == "done":  # made with other code
            cell.trial.reset()
        elif cell.state in ("failed", "diverged", "cancelled"):
            cell.trial.clear_cancel()
        cell.write()
    except TrialBusyError:
        return
    except OSError as error:
        raise unwritable(error, cell.trial.path) from None


def unwritable(error: OSError, path: Path) -> RislabError:
    """What to say when something below `path` cannot be written."""
    return RislabError(f"{error.filename or path}: cannot be written: {error.strerror}")


def on_cpu(cells: "list[Planned]") -> bool:
    """Whether trials may run side by side unasked: those on a GPU would fight for its memory."""
    return all(cell.config.get("trainer", {}).get("accelerator") == "cpu" for cell in cells)


def to_run(cell: "Planned", stale: bool, retry: bool) -> bool:
    from rislab.ablation.attempts import RESUMED
    from rislab.ablation.integrity import SUSPECT

    state = cell.state
    if state in SUSPECT:
        return False  # a person has to look: it may be the evidence of a number somewhere
    if state == "done":
        return stale and bool(cell.stale())
    if state in ("diverged", "cancelled"):
        return retry
    if state == "failed":
        # What the machine did to a trial is no fault of its row: the next run comes after a mend, or more space.
        return retry or cell.trial.status().get("kind") in (*RESUMED, "oom")
    return True


def require_space(folder: Path) -> None:
    from rislab.launch import local_pool

    free = local_pool.free_space(folder)
    if free < FREE_BYTES:
        raise ConfigError(f"{folder}: {free >> 20} MiB free, a table needs at least {FREE_BYTES >> 20} MiB")


def say_result(screen: Any, cells: "list[Planned]") -> None:
    from rislab.ablation.integrity import SUSPECT

    looks = {cell.name: cell.trial.look() for cell in cells}
    counts = Counter(state for state, _ in looks.values())
    screen.print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for cell in cells:
        state, found = looks[cell.name]
        if state in SUSPECT:
            screen.print(f"{cell.name}: {state}: {found.reason}", style="red", soft_wrap=True, markup=False)
            mend = "make it readable" if state == "unreadable" else "move it away, and run again to train it anew"
            screen.print(f"  {cell.place}   not touched; {mend}", style="dim", soft_wrap=True, markup=False)
        elif state in ("failed", "diverged"):
            error = cell.trial.status().get("error")
            screen.print(f"{cell.name}: {state}: {error}", style="red", soft_wrap=True, markup=False)
            screen.print(f"  {cell.trial.stdout}   again: --retry", style="dim", soft_wrap=True, markup=False)


def exit_code(cells: "list[Planned]") -> int:
    states = {cell.state for cell in cells}
    if states & {"interrupted", "lost"}:
        return 130
    return 0 if states == {"done"} else 1


class ProgressPrinter:
    """Prints what happens, a line a change, where no live table can be shown."""

    def __init__(self, screen: Any) -> None:
        self.screen = screen
        self._told: dict[str, str] = {}

    def tell(self, name: str, what: str) -> None:
        if self._told.get(name) != what:
            self._told[name] = what
            self.screen.print(f"{time.strftime('%H:%M:%S')} {name}: {what}", markup=False, soft_wrap=True)

    def tell_states(self, cells: "list[Planned]") -> None:
        for cell in cells:
            state = cell.state
            if state != "pending":
                self.tell(cell.name, state)
