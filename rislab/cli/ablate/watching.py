"""`rislab ablate status`."""

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.choosing import COLOURS, Action, console, load

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from rislab.ablation.plan import Planned


def add(action: Action) -> None:
    status = action("status", "show the state of every trial, from its files", "cris --watch")
    status.add_argument("--watch", action="store_true", help="keep showing until everything has ended")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=show_status)


def status_table(cells: "list[Planned]") -> "RichTable":
    from rich.table import Table as RichTable

    shown = RichTable()
    for column in ("trial", "state", "step", "epoch", "steps/s", "miou_expr", "left", "note"):
        number = column in ("step", "epoch", "steps/s", "miou_expr", "left")
        shown.add_column(column, justify="right" if number else "left", no_wrap=column != "note")
    for cell in cells:
        row = _status(cell)
        left = _left(row)
        shown.add_row(
            row["trial"],
            f"[{COLOURS[row['state']]}]{row['state']}[/]",
            f"{row['step']}/{row['max_steps']}" if row["step"] is not None else "",
            "" if row["epoch"] is None else str(row["epoch"]),
            "" if row["speed"] is None else f"{row['speed']:.1f}",
            "" if row["miou_expr"] is None else f"{row['miou_expr']:.1f}",
            left,
            row["note"],
        )
    return shown


def _left(row: dict[str, Any]) -> str:
    if row["state"] != "running" or not row["speed"] or not row["max_steps"]:
        return ""
    return f"{(row['max_steps'] - row['step']) / row['speed'] / 60:.1f} min"


def _status(cell: "Planned") -> dict[str, Any]:
    """One line of status, from the trial's files alone."""
    status, state = cell.trial.status(), cell.state
    note = status.get("error") or ""
    if state == "done":
        note = ""
        changed = cell.stale()
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            note = f"code changed: {changed[0]}{more}"
    elif state == "running" and status.get("stage") != "fit":
        note = status.get("stage", "")
    elif state == "interrupted":
        note = ""
    metric = status.get("metrics", {}).get("miou_expr")
    return {
        "trial": cell.name,
        "hash": cell.hash[:8],
        "directory": str(cell.trial.path),
        "state": state,
        # The status is written once a second at most, so its last step is rarely the last one.
        "step": status.get("max_steps") if state == "done" else status.get("step"),
        "max_steps": status.get("max_steps"),
        "epoch": status.get("epoch"),
        "speed": status.get("speed"),
        "miou_expr": metric,
        "note": note,
    }


def show_status(options: argparse.Namespace) -> int:
    from rislab.ablation import plan

    _, _, _, planned = load(options)
    cells = plan.distinct(planned)
    if options.json:
        print(json.dumps([_status(cell) for cell in cells], indent=1))
        return 0
    screen = console()
    if not options.watch:
        screen.print(status_table(cells))
        return 0
    from rich.live import Live

    with Live(status_table(cells), console=screen, refresh_per_second=1) as live:
        while any(cell.state in ("running", "pending") for cell in cells):
            time.sleep(1)
            live.update(status_table(cells))
    return 0
