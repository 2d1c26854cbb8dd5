"""`rislab ablate run`: what is missing of a table, on this machine or on a cluster."""

import argparse
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.cluster_options import add_cluster_options, cluster_of
from rislab.cli.ablate.selection import Action, check_count, load, open_console

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table


def add(action: Action) -> None:
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
    started.add_argument("--json", action="store_true", help="print what became of each trial as JSON")
    started.set_defaults(run=run_table)


def run_table(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.cli.ablate.run_view import RunView
    from rislab.launch.table_run import Request, TableRun

    table, profile, _, planned = load(options)
    for name in ("jobs", "threads"):
        check_count(f"--{name}", getattr(options, name))
    cells = plan.distinct(planned)
    screen = open_console()
    request = Request(
        options.runs,
        options.table if options.tables is None else f"{options.table} --tables {options.tables}",
        options.jobs,
        options.threads,
        options.devices,
        options.stale,
        options.retry,
        cluster_of(options, profile) if options.launcher == "slurm" else None,
        options.detach,
        options.wandb,
    )
    began = time.monotonic()
    code = TableRun(table, profile, cells, request, RunView()).run()
    seconds = time.monotonic() - began
    if options.json:
        print(json.dumps(result(table, profile, cells, code, seconds), indent=1))
        return code
    show_result(screen, cells)
    screen.print(f"{seconds:.0f} s", style="dim")
    return code


def result(table: "Table", profile: "Profile", cells: "list[Planned]", code: int, seconds: float) -> dict[str, Any]:
    """What a run has come to, as JSON."""
    trials = []
    for cell in cells:
        state, found = cell.trial.inspect()
        reason = found.reason or (cell.trial.status().get("error") if state in ("failed", "diverged") else None)
        trials.append({"trial": cell.name, "state": state, "reason": reason or "", "directory": str(cell.directory)})
    about = {"table": table.name, "profile": profile.name, "exit_code": code, "seconds": round(seconds, 1)}
    return {**about, "trials": trials}


def show_result(screen: Any, cells: "list[Planned]") -> None:
    """How many trials are in which state, and why some have no result."""
    from rislab.ablation.integrity import SUSPECT

    findings = {cell.name: cell.trial.inspect() for cell in cells}
    counts = Counter(state for state, _ in findings.values())
    screen.print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for cell in cells:
        state, found = findings[cell.name]
        if state in SUSPECT:
            screen.print(f"{cell.name}: {state}: {found.reason}", style="red", soft_wrap=True, markup=False)
            remedy = "make it readable" if state == "unreadable" else "move it away, and run again to train it anew"
            screen.print(f"  {cell.directory}   not touched; {remedy}", style="dim", soft_wrap=True, markup=False)
        elif state in ("failed", "diverged"):
            error = cell.trial.status().get("error")
            screen.print(f"{cell.name}: {state}: {error}", style="red", soft_wrap=True, markup=False)
            screen.print(f"  {cell.trial.stdout}   again: --retry", style="dim", soft_wrap=True, markup=False)
