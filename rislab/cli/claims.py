"""`rislab claims`: what the papers claim, where it was read, and what became of it here."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.cli.tables_option import add_tables_option
from rislab.errors import ConfigError, nearest
from rislab.messages import warn
from rislab.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rislab.ablation.table import Table
    from rislab.report.claims import Entry, Line

STYLES = {
    "replicated": "green",
    "contradicted": "red",
    "negligible": "cyan",
    "inconclusive": "yellow",
    "single seed": "yellow",
    "not run": "dim",
    "source not read": "magenta",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "claims",
        help="list every claim of every table, its source, and its verdict",
        description="Every claim of every table: paper, source, and for each profile the verdict over all finished seeds, "
        "difference and interval in percent points, seeds, and the report that shows it. A claim whose source was not read is "
        "marked, gets no verdict, and is counted apart. Nothing is trained and no report is written.",
        epilog="example: rislab claims cris tcl --verdict contradicted",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="TABLE",
        help="names or files (default: all tables; those of rislab where there are no own ones)",
    )
    add_tables_option(parser)
    parser.add_argument("--profile", metavar="NAME", help="only profiles of this name")
    parser.add_argument("--verdict", metavar="VERDICT", help="only claims that have it, in any profile shown")
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)"
    )
    parser.add_argument(
        "--reports", type=user_path, default=Path("reports"), metavar="DIR", help="reports (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.report import claims

    if options.verdict is not None and options.verdict not in claims.VERDICTS:
        raise ConfigError(
            f"--verdict {options.verdict!r}{nearest(options.verdict, claims.VERDICTS)}; "
            f"verdicts are {', '.join(claims.VERDICTS)}"
        )
    tables, broken = _tables(options.names, options.tables)
    lines = _chosen(claims.ledger(tables, options.runs, options.reports), options.profile, options.verdict)
    if options.profile is not None and not any(options.profile in table.profiles for table in tables):
        known = sorted({name for table in tables for name in table.profiles})
        raise ConfigError(
            f"--profile {options.profile!r}{nearest(options.profile, known)}; profiles are {', '.join(known)}"
        )
    tally = {"toy": claims.counts(lines, False), "paper": claims.counts(lines, True)}
    if options.json:
        print(json.dumps({"counts": tally, "claims": [line.as_json() for line in lines], "broken": broken}, indent=1))
    else:
        _show(lines, tally, len({line.table.path for line in lines}))
    for text in broken:
        warn(text)
    return 2 if broken else 0


def _tables(names: "Sequence[str]", folder: Path | None) -> "tuple[list[Table], list[str]]":
    """The named tables, or all, of which one that is broken hides no other: what is wrong with those comes second."""
    from rislab.ablation import lookup, table

    if names:
        return [table.load(table.find(name, folder)) for name in dict.fromkeys(names)], []
    found, broken = [], []
    for path in lookup.own_tables(folder).values():
        try:
            found.append(table.load(path))
        except ConfigError as error:
            broken.append(f"{path} is left out: {error}")
    if not found and not broken:
        raise ConfigError("no tables at all: this installation of rislab is not whole")
    return found, broken


def _chosen(lines: "list[Line]", profile: str | None, verdict: str | None) -> "list[Line]":
    from dataclasses import replace

    if profile is not None:
        lines = [
            replace(line, entries=kept)
            for line in lines
            if (kept := tuple(entry for entry in line.entries if entry.profile == profile))
        ]
    if verdict is not None:
        lines = [line for line in lines if any(entry.verdict == verdict for entry in line.entries)]
    return lines


def _show(lines: "list[Line]", tally: dict[str, dict[str, int]], tables: int) -> None:
    from rislab.cli.console import open_console

    screen = open_console(soft_wrap=True)

    def say(text: str, style: str = "") -> None:
        screen.print(text, style=style or None, markup=False, soft_wrap=True)

    before = None
    for line in lines:
        if line.table is not before:
            paper = line.table.paper
            say(f"{line.table.name}: {paper.title} ({paper.venue} {paper.year}); {line.table.path}", "bold")
            before = line.table
        say(f"  {line.claim.name}: {line.claim.text}")
        say(f"    {line.claim.holds}; source: {line.claim.source}", "dim")
        for entry in line.entries:
            say(f"    {entry_text(entry)}", STYLES[entry.verdict])
    if lines:
        say("")
    for kind, title in (("toy", "on other data than the paper's"), ("paper", "on the paper's data")):
        said = ", ".join(f"{count} {verdict}" for verdict, count in tally[kind].items())
        say(f"{title}: {said or 'nothing'}")
    say(f"{len(lines)} claims of {tables} tables; what the verdicts mean: docs/conventions.md")


def entry_text(entry: "Entry") -> str:
    """`toy (the toy world, test): replicated, +2.06 [+0.56, +3.56], p = 0.012; 3 seeds; reports/cris/report.html`."""
    parts = [f"{entry.verdict}, {entry.measured}" if entry.measured else entry.verdict]
    if entry.verdict != "source not read":
        parts += [text for text in (seeds_text(entry.seeds), entry.note, entry.report, entry.report_note) if text]
    return f"{entry.profile} ({entry.dataset}, {entry.split}): {'; '.join(parts)}"


def seeds_text(seeds: Any) -> str:
    """`3 seeds`; `seeds: base 3, full 2` where rows differ; "" for none."""
    numbers = {row: len(finished) for row, finished in seeds.items()}
    if not any(numbers.values()):
        return ""
    if len(set(numbers.values())) > 1:
        return "seeds: " + ", ".join(f"{row} {number}" for row, number in numbers.items())
    number = next(iter(numbers.values()))
    return f"{number} seed{'s' if number > 1 else ''}"
