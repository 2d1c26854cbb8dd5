"""`rislab ablate cancel`: end trials, by a mark in their directories."""

import argparse
import json
from typing import TYPE_CHECKING

from rislab.cli.ablate.selection import Action, load, open_console, refusal
from rislab.errors import RislabError

if TYPE_CHECKING:
    from rich.console import Console

    from rislab.ablation.plan import Planned

CANCELLED_IN = ("pending", "queued", "running", "lost", "interrupted")
"""States in which there is something to cancel."""


def add(action: Action) -> None:
    cancel = action("cancel", "end trials and keep launchers from starting them", "cris --rows con+dec4")
    cancel.add_argument("--json", action="store_true", help="print JSON")
    cancel.set_defaults(run=run_cancel)


def run_cancel(options: argparse.Namespace) -> int:
    """A mark in the directory is all: the process that runs the trial sees it within seconds, on any machine, and ends it with a
    checkpoint; no launcher starts it."""
    from rislab.ablation import plan
    from rislab.ablation.integrity import SUSPECT

    _, _, _, planned = load(options)
    screen = open_console(stderr=options.json)
    marked: list[Planned] = []
    refused = 0
    for cell in plan.distinct(planned):
        state, finding = cell.trial.inspect()
        if state in SUSPECT:
            screen.print(
                f"{cell.name}: left alone, {state}: {finding.reason}", markup=False, style="yellow", soft_wrap=True
            )
            continue
        try:
            if state in CANCELLED_IN:
                cell.write()
                cell.trial.cancel()
                marked.append(cell)
        except (OSError, RislabError) as error:
            screen.print(refusal(cell, error), style="red", soft_wrap=True, markup=False)
            refused += 1
    for cell in marked:
        what = "ends with a checkpoint" if cell.trial.holder() is not None else "will not be started"
        screen.print(f"{cell.name}: {what}", markup=False)
    for job in _idle_jobs(marked, plan.distinct(planned)):
        _end_job(job, screen)
    if options.json:
        print(json.dumps({"cancelled": [cell.name for cell in marked], "refused": refused}, indent=1))
        return 2 if refused else 0
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
