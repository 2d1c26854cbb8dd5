"""`rislab ablate status`: what the trials are doing, once or until they have ended, on the screen, as JSON, as a page."""

import argparse
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate import screen_tables
from rislab.cli.ablate.selection import COLOURS, Action, load, open_console
from rislab.messages import result
from rislab.paths import user_path
from rislab.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from rislab.ablation.plan import Planned
    from rislab.report.status import TableStatus, TrialStatus

PAGE_SECONDS = 5
"""How often the page loads itself anew, and is written anew."""

NAMED = 4
"""Trials that are named where one thing is said of several."""


def add(action: Action) -> None:
    status = action(
        "status",
        "show the state of every trial, from its files",
        "cris --watch\n         ... --html status_page.html --watch",
    )
    status.add_argument("--watch", action="store_true", help="keep showing until everything has ended")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--html", type=user_path, metavar="FILE", help="as a page that loads itself anew")
    status.set_defaults(run=show_status)


def status_view(cells: "Sequence[Planned]") -> "Group":
    """The table now, for a screen that is drawn again and again. See `live_view`."""
    from rislab.report import status

    return live_view(status.read_status(cells))


def live_view(seen: "TableStatus", height: int | None = None) -> "Group":
    """What is left; as many trials as fit, those that run or went wrong first, a line each; what there is to say of them.

    Args:
        height: lines of the screen; None: the terminal's.
    """
    from rich.console import Group
    from rich.text import Text

    lines_left = max(8, (shutil.get_terminal_size().lines if height is None else height) - 8)
    said = notes(seen.trials)[: lines_left // 3]
    lines_left -= len(said)
    lines = list(seen.trials if len(seen.trials) <= lines_left else seen.by_urgency[:lines_left])
    hidden = len(seen.trials) - len(lines)
    title = _summary(seen) + (f" ({hidden} more trials)" if hidden else "")
    columns, texts = _columns(seen, lines)
    table = screen_tables.boxed([(columns[0][0], "cut"), *columns[1:]], texts, title=title)
    return Group(table, *(Text(printable(each), no_wrap=True, overflow="ellipsis") for each in said))


def _columns(
    seen: "TableStatus", lines: "Sequence[TrialStatus]"
) -> tuple[list[screen_tables.Column], list[list[screen_tables.Cell]]]:
    """Seven that fit 80 characters; what takes more, the reasons, is said below (`notes`)."""
    columns: list[screen_tables.Column] = [
        ("trial", "fold"),
        ("state", "left"),
        ("step", "right"),
        ("epoch", "right"),
        (seen.metric or "score", "right"),
        ("steps/s", "right"),
        ("left", "right"),
    ]
    return columns, [
        [
            each.trial,
            (each.state, COLOURS.get(each.state, "magenta")),
            " ".join(filter(None, (each.phase, each.steps))),
            "" if each.epoch is None else str(each.epoch),
            "" if each.value is None else f"{each.value:.1f}" + ("" if seen.metric else f" {each.metric}"),
            "" if each.speed is None else f"{each.speed:.1f}",
            each.time_left,
        ]
        for each in lines
    ]


def notes(lines: "Sequence[TrialStatus]") -> list[str]:
    """`a s0, b s1: oom: ...`: why trials failed, and what else there is to say; what is said of several is said once."""
    about: dict[str, list[str]] = {}
    for each in sorted(lines, key=lambda line: not line.needs_attention):
        for text in (each.reason, f"shared with {each.shared_with}" if each.shared_with else ""):
            if text:
                about.setdefault(text, []).append(each.trial)
    return [
        f"{', '.join(trials[:NAMED])}{f' and {len(trials) - NAMED} more' if len(trials) > NAMED else ''}: {text}"
        for text, trials in about.items()
    ]


def _summary(seen: "TableStatus") -> str:
    return f"{', '.join(f'{count} {state}' for state, count in seen.counts.items())}: {seen.time_left.text}"


def show_status(options: argparse.Namespace) -> int:
    from rislab.ablation import plan
    from rislab.report import status, status_page

    table, profile, _, planned = load(options)
    cells = plan.distinct(planned)
    seen = status.read_status(cells)
    screen = open_console()

    def write_page(now: "TableStatus") -> None:
        if options.html is not None:
            from rislab.files import write_text

            subtitle = f"{profile.dataset}, split {profile.split}"
            write_text(options.html, status_page.page(now, table.title, subtitle, PAGE_SECONDS, time.time()))

    write_page(seen)
    if options.watch:
        seen = _watch(screen, cells, seen, write_page, quiet=options.json or options.html is not None)
    if options.json:
        print("[\n" + ",\n".join(json.dumps(each.as_json()) for each in seen.trials) + "\n]")
    elif options.html is not None:
        result(options.html)
    elif not (options.watch and screen.is_terminal):
        screen_tables.show(screen, *_columns(seen, seen.trials))
        for text in (*notes(seen.trials), _summary(seen)):
            screen.print(text, soft_wrap=True, markup=False)
    return 0


def _watch(screen: Any, cells: "list[Planned]", seen: "TableStatus", write_page: Any, quiet: bool) -> "TableStatus":
    """Look again and again until everything has ended; at most a fifth of a core goes into looking."""
    from contextlib import ExitStack

    from rislab.report import status

    with ExitStack() as stack:
        shown = None
        if screen.is_terminal and not quiet:
            from rich.live import Live as Screen

            shown = stack.enter_context(Screen(live_view(seen), console=screen, auto_refresh=False))
        while not seen.has_ended:
            time.sleep(PAGE_SECONDS if shown is None else 1.0)
            began = time.monotonic()
            seen = status.read_status(cells, seen)
            write_page(seen)
            if shown is not None:
                shown.update(live_view(seen), refresh=True)
            time.sleep(4 * (time.monotonic() - began))
    return seen
