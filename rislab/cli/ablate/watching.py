"""`rislab ablate status`: what the trials are doing, once or until they have ended, on the screen, as JSON, as a page."""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate import grid
from rislab.cli.ablate.choosing import COLOURS, Action, console, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table as RichTable

    from rislab.ablation.plan import Planned
    from rislab.report.live import Line, Live

PAGE_SECONDS = 5
"""How often the page loads itself anew, and is written anew."""


def add(action: Action) -> None:
    status = action(
        "status", "show the state of every trial, from its files", "cris --watch\n         ... --html live.html --watch"
    )
    status.add_argument("--watch", action="store_true", help="keep showing until everything has ended")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--html", type=Path, metavar="FILE", help="as a page that loads itself anew")
    status.set_defaults(run=show_status)


def status_table(cells: "Sequence[Planned]", before: "Live | None" = None, rows: int | None = None) -> "RichTable":
    """The table now, for a screen that is drawn again and again. See `live_table`."""
    from rislab.report import live

    return live_table(live.watch(cells, before), rows)


def live_table(seen: "Live", rows: int | None = None) -> "RichTable":
    """What is left and, below, as many trials as fit (or `rows`), those that run or went wrong first; a line each."""
    room = rows if rows is not None else max(8, shutil.get_terminal_size().lines - 8)
    lines = list(seen.lines if len(seen.lines) <= room else seen.by_urgency[:room])
    hidden = len(seen.lines) - len(lines)
    title = _summary(seen) + (f" ({hidden} more trials)" if hidden else "")
    columns, texts = _columns(seen, lines)
    return grid.boxed([*columns[:-1], (columns[-1][0], "cut")], texts, title=title)


def _columns(seen: "Live", lines: "Sequence[Line]") -> tuple[list[grid.Column], list[list[grid.Cell]]]:
    columns: list[grid.Column] = [
        ("trial", "left"),
        ("state", "left"),
        ("stage", "left"),
        ("step", "right"),
        ("epoch", "right"),
        (seen.metric or "score", "right"),
        ("steps/s", "right"),
        ("left", "right"),
        ("note", "fold"),
    ]
    return columns, [
        [
            each.trial,
            (each.state, COLOURS.get(each.state, "magenta")),
            each.phase,
            each.steps,
            "" if each.epoch is None else str(each.epoch),
            "" if each.value is None else f"{each.value:.1f}" + ("" if seen.metric else f" {each.metric}"),
            "" if each.speed is None else f"{each.speed:.1f}",
            each.left,
            "; ".join(filter(None, (each.reason, f"shared with {each.shared_with}" if each.shared_with else ""))),
        ]
        for each in lines
    ]


def _summary(seen: "Live") -> str:
    return f"{', '.join(f'{count} {state}' for state, count in seen.counts.items())}: {seen.left.text}"


def show_status(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.report import live

    table, profile, _, planned = load(options)
    cells = plan.distinct(planned)
    seen = live.watch(cells)
    screen = console()

    def write_page(now: "Live") -> None:
        if options.html is not None:
            from rislab.files import write_text

            subtitle = f"{profile.dataset}, split {profile.split}"
            write_text(options.html, live.html(now, table.title, subtitle, PAGE_SECONDS, time.time()))

    write_page(seen)
    if options.watch:
        seen = _watch(screen, cells, seen, write_page, quiet=options.json or options.html is not None)
    if options.json:
        print("[\n" + ",\n".join(json.dumps(each.as_json()) for each in seen.lines) + "\n]")
    elif options.html is not None:
        print(options.html)
    elif not (options.watch and screen.is_terminal):
        grid.show(screen, *_columns(seen, seen.lines))
        screen.print(_summary(seen), soft_wrap=True, markup=False)
    return 0


def _watch(screen: Any, cells: "list[Planned]", seen: "Live", write_page: Any, quiet: bool) -> "Live":
    """Look again and again until everything has ended; at most a fifth of a core goes into looking."""
    from contextlib import ExitStack

    from rislab.report import live

    with ExitStack() as stack:
        shown = None
        if screen.is_terminal and not quiet:
            from rich.live import Live as Screen

            shown = stack.enter_context(Screen(live_table(seen), console=screen, auto_refresh=False))
        while not seen.has_ended:
            time.sleep(PAGE_SECONDS if shown is None else 1.0)
            began = time.monotonic()
            seen = live.watch(cells, seen)
            write_page(seen)
            if shown is not None:
                shown.update(live_table(seen), refresh=True)
            time.sleep(4 * (time.monotonic() - began))
    return seen
