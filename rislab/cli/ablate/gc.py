"""`rislab ablate gc`: what below `runs` no table needs any more; shown first, removed on `--yes`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rislab.cli.ablate import screen_tables
from rislab.cli.ablate.selection import open_console
from rislab.cli.tables_option import add_tables_option
from rislab.errors import ConfigError
from rislab.paths import user_path

if TYPE_CHECKING:
    from rislab.ablation.garbage import Garbage
    from rislab.ablation.table import Table


def add(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "show what below --runs no table needs any more, and remove it with --yes"
    parser = actions.add_parser(
        "gc",
        help=text,
        description=f"{text}: trials of rows that were removed or changed, optimiser states of finished trials, and what "
        "kills have left. Every table counts, your own and those of rislab, under all of its profiles. Running trials, and "
        "folders that belong to no table, are left alone.",
        epilog="example: rislab ablate gc          # what would be removed\n         rislab ablate gc --yes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", nargs="?", help="only this table's folder (default: those of all)")
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)"
    )
    add_tables_option(parser)
    parser.add_argument("--yes", action="store_true", help="remove it")
    parser.add_argument("--keep-orphans", action="store_true", help="keep trials that no table needs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=collect)


def collect(options: argparse.Namespace) -> int:
    from rislab.ablation import garbage

    tables, only = _tables(options.table, options.tables)
    found = garbage.find(garbage.needed(tables, options.runs), options.runs, only, not options.keep_orphans)
    kept: list[tuple[Garbage, str]] = []
    failed = False
    for one in found if options.yes else ():
        try:
            left = garbage.remove(one, options.runs)
        except OSError as error:
            left, failed = f"cannot be removed: {error.filename or one.path}: {error.strerror}", True
        if left:
            kept.append((one, left))
    _say(options, found, kept)
    return 1 if failed else 0


def _tables(name: str | None, tables: Path | None) -> "tuple[list[Table], str | None]":
    """Every table that can be known, and the name of the one that was given. Raises ConfigError.

    One that cannot be read might need anything, so nothing can be removed.
    """
    from rislab.ablation import lookup, table

    named = table.find(name, tables) if name is not None else None
    every = (*lookup.every_table(tables).values(), *([named] if named else []))
    files = sorted({path.resolve(): path for path in every}.values())
    loaded = {}
    for file in files:
        try:
            loaded[file.resolve()] = table.load(file)
        except ConfigError as error:
            raise ConfigError(f"{file} cannot be read, and may need anything: nothing is removed\n{error}") from None
    return list(loaded.values()), loaded[named.resolve()].name if named is not None else None


def _say(options: argparse.Namespace, found: "list[Garbage]", kept: "list[tuple[Garbage, str]]") -> None:
    left = {one.path: why for one, why in kept}
    total = sum(one.bytes for one in found if one.path not in left)
    if options.json:
        shown = [
            {
                "path": str(one.path),
                "what": one.what,
                "why": one.why,
                "bytes": one.bytes,
                "removed": options.yes and one.path not in left,
                "left": left.get(one.path),
            }
            for one in found
        ]
        print(json.dumps({"bytes": total, "garbage": shown}, indent=1))
        return
    screen = open_console()
    if not found:
        screen.print(f"nothing to remove below {options.runs}", soft_wrap=True, markup=False)
        return
    if not options.yes:
        rows: list[list[screen_tables.Cell]] = [
            [one.what, _bytes(one.bytes), str(one.path.relative_to(options.runs)), one.why] for one in found
        ]
        screen_tables.show(screen, [("what", "left"), ("size", "right"), ("path", "fold"), ("why", "fold")], rows)
        screen.print(f"{len(found)} to remove, {_bytes(total)}; nothing was removed: --yes does it", soft_wrap=True)
        return
    for one, why in kept:
        screen.print(f"left: {one.path}: {why}", style="yellow", soft_wrap=True, markup=False)
    screen.print(f"{len(found) - len(kept)} removed, {_bytes(total)} freed", soft_wrap=True)


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
