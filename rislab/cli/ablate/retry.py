"""`rislab ablate retry` and `cancel`: what a person decides about trials, as files in their directories."""

import argparse
from typing import TYPE_CHECKING, get_args

from rislab.cli.ablate.run import unwritable
from rislab.cli.ablate.selection import Action, load, open_console
from rislab.errors import ConfigError, RislabError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from rislab.ablation.plan import Planned


CANCELLED_IN = ("pending", "queued", "running", "lost", "interrupted")
"""States in which there is something to cancel."""


def add(action: Action) -> None:
    retry = action("retry", "let failed, diverged and cancelled trials be run again", "cris --kind oom,lost")
    retry.add_argument("--kind", metavar="A,B", help="only these kinds of failure (default: all)")
    retry.add_argument("--fresh", action="store_true", help="from the start, not from the last checkpoint")
    retry.set_defaults(run=run_retry)

    cancel = action("cancel", "end trials and keep launchers from starting them", "cris --rows con+dec4")
    cancel.set_defaults(run=run_cancel)


def run_retry(options: argparse.Namespace) -> int:
    """Nothing is started: the next `run`, or one that is watching, takes them up."""
    from rislab.ablation import plan
    from rislab.ablation.trial import TrialBusyError

    _, _, _, planned = load(options)
    kinds = _kinds(options.kind)
    screen = open_console()
    found = refused = 0
    for cell in plan.distinct(planned):
        state, _ = cell.trial.look()
        status = {} if state == "unreadable" else cell.trial.status()
        kind = "cancelled" if state == "cancelled" else status.get("kind")
        if state not in ("failed", "diverged", "cancelled") or (kinds and kind not in kinds):
            continue
        try:
            if options.fresh:
                cell.trial.reset()
                cell.write()
            else:
                cell.trial.clear_cancel()
        except TrialBusyError as error:
            screen.print(f"{cell.name}: left alone: {error}", style="yellow", soft_wrap=True, markup=False)
            continue
        except (OSError, RislabError) as error:
            refused += _say_refused(screen, cell, error)
            continue
        found += 1
        where = "the start" if options.fresh else "its last checkpoint"
        screen.print(f"{cell.name}: was {state} ({kind}), goes on from {where}", markup=False, soft_wrap=True)
    screen.print(f"{found} trials to run: rislab ablate run {options.table}" if found else "nothing to retry")
    return 2 if refused else 0


def _say_refused(screen: "Console", cell: "Planned", error: Exception) -> int:
    """Say why a trial cannot be changed: it is read-only, or another's. 1, to be counted."""
    reason = unwritable(error, cell.trial.path) if isinstance(error, OSError) else error
    screen.print(f"{cell.name}: left alone: {reason}", style="red", soft_wrap=True, markup=False)
    return 1


def _kinds(text: str | None) -> set[str]:
    from rislab.ablation.attempts import Kind

    if text is None:
        return set()
    known = get_args(Kind)
    for name in text.split(","):
        if name not in known:
            raise ConfigError(f"--kind {name!r}{nearest(name, known)}; kinds are {', '.join(known)}")
    return set(text.split(","))


def run_cancel(options: argparse.Namespace) -> int:
    """A mark in the directory is all: the process that runs the trial sees it within seconds, on any machine, and ends it with a
    checkpoint; no launcher starts it."""
    from rislab.ablation import plan
    from rislab.ablation.integrity import SUSPECT

    _, _, _, planned = load(options)
    screen = open_console()
    marked: list[Planned] = []
    refused = 0
    for cell in plan.distinct(planned):
        state, looked = cell.trial.look()
        if state in SUSPECT:
            screen.print(
                f"{cell.name}: left alone, {state}: {looked.reason}", markup=False, style="yellow", soft_wrap=True
            )
            continue
        try:
            if state in CANCELLED_IN:
                cell.write()
                cell.trial.cancel()
                marked.append(cell)
        except (OSError, RislabError) as error:
            refused += _say_refused(screen, cell, error)
    for cell in marked:
        what = "ends with a checkpoint" if cell.trial.holder() is not None else "will not be started"
        screen.print(f"{cell.name}: {what}", markup=False)
    for job in _idle_jobs(marked, plan.distinct(planned)):
        _end_job(job, screen)
    screen.print(f"{len(marked)} cancelled; take them up again: rislab ablate retry {options.table}, then run")
    return 2 if refused else 0


def _idle_jobs(marked: "list[Planned]", cells: "list[Planned]") -> list[str]:
    """Jobs at SLURM that have nothing left to do: all of their trials are cancelled or over, and none is running."""
    jobs: dict[str, bool] = {}
    for cell in cells:
        if cell.state == "unreadable":
            continue
        job = cell.trial.job()
        if job is not None and job["launcher"] == "slurm":
            idle = cell.trial.holder() is None and cell.state in ("cancelled", "done", "failed", "diverged")
            jobs[job["id"]] = jobs.get(job["id"], True) and idle
    ours = {job["id"] for cell in marked if (job := cell.trial.job()) is not None}
    return sorted(name for name, idle in jobs.items() if idle and name in ours)


def _end_job(job: str, screen: "Console") -> None:
    from rislab.launch.slurm import Queue

    try:
        queue = Queue()
        if job in (queue.alive() or ()):
            queue.cancel([job])
            screen.print(f"SLURM job {job}: taken out of the queue", markup=False)
    except RislabError as error:
        screen.print(
            f"SLURM job {job}: {error}; when it starts, it ends at once", style="yellow", soft_wrap=True, markup=False
        )
