"""`rislab data import`: the user's pictures and sentences as a data set in the REFER layout."""

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rislab.cli.console import open_console
from rislab.errors import DataError
from rislab.files import json_text
from rislab.messages import is_quiet, progress, warn
from rislab.paths import user_path

if TYPE_CHECKING:
    from rislab.data.own.rows import BadRow

SHOWN = 20
"""Rows that are left out, listed on the screen; `import.json` and --json list all."""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "import",
        help="make a data set of your own pictures and sentences",
        description="Read FILE and write a data set in the REFER layout: DATA/NAME/instances.json, DATA/NAME/refs(own).p and "
        "copies of the pictures in DATA/images/NAME. FILE is CSV or JSON lines with the columns picture, text, one of mask (a "
        "PNG, or `none`), polygon, run_lengths and box (x, y, width, height), and maybe split and category; a COCO file; or "
        "labelme's file, or a folder of them. A picture and all its sentences are in one split. Rows that cannot be used are "
        "listed, each with its reason, and counted.",
        epilog="example: rislab data import photos.csv --out DATA/mine",
    )
    parser.add_argument(
        "file", type=user_path, metavar="FILE", help="CSV, .jsonl, COCO or labelme; or labelme's folder"
    )
    parser.add_argument("--out", type=user_path, required=True, metavar="DATA/NAME", help="the data set's folder")
    parser.add_argument("--pictures", type=user_path, metavar="DIR", help="where pictures lie (default: beside FILE)")
    parser.add_argument(
        "--splits",
        default="train=0.8,val=0.1,test=0.1",
        metavar="NAME=SHARE,...",
        help="shares of the pictures for which FILE gives no split (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of that choice (default: %(default)s)")
    parser.add_argument(
        "--orientation",
        choices=("exif", "stored"),
        default="exif",
        help="were objects drawn on photos as viewers show them, or on the stored pixels (default: %(default)s)",
    )
    parser.add_argument("--replace", action="store_true", help="put the set in place of an earlier import")
    parser.add_argument("--strict", action="store_true", help="write nothing, and exit with 2, when a row is left out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_import)


def run_import(options: argparse.Namespace) -> int:
    from rislab.data.own import build, splits, write
    from rislab.data.own.read import read
    from rislab.paths import absolute

    shares = splits.shares(options.splits)
    folder = absolute(options.out)
    write.check_place(folder, options.replace)
    found = read(options.file, options.pictures)
    with progress("looking at rows") as show:
        records = build.build(found, folder.name, shares, options.seed, options.orientation, show)
    read_rows = {row.where for row in found.rows}
    rows = len(found.rows) + sum(bad.where not in read_rows for bad in found.bad)
    if not options.json:
        _list_bad(found.bad, rows)
    if not rows:
        raise DataError(f"{options.file}: holds no row")
    if not records.references:
        raise DataError(f"{options.file}: {len(found.bad)} of {rows} rows are left out, and none is left to import")
    if options.strict and found.bad:
        raise DataError(
            f"{options.file}: {len(found.bad)} of {rows} rows cannot be used; nothing was written (--strict)"
        )
    about: dict[str, Any] = {
        "source": str(options.file),
        "format": found.format,
        "rows": rows,
        "shares": shares,
        "seed": options.seed,
        "orientation": options.orientation,
    }
    with progress("copying pictures") as show:
        said = write.write(folder, records, found, about, show)
    for note in build.split_notes(records):
        warn(note)
    if options.json:
        print(json_text(said | {"folder": str(options.out)}), end="")
    else:
        _show(options, said)
    return 0


def _list_bad(bad: "Sequence[BadRow]", rows: int) -> None:
    """Rows that are left out, on stderr."""
    if not bad:
        return

    for one in bad[:SHOWN]:
        warn(str(one))
    if len(bad) > SHOWN:
        warn(f"... and {len(bad) - SHOWN} more; all are in import.json")
    warn(f"{len(bad)} of {rows} rows are left out")


def _show(options: argparse.Namespace, said: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    console = open_console()
    total: Counter[str] = Counter()
    table = Table("split", "pictures", "references", "sentences", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in said["splits"].items():
        table.add_row(name, *(str(counts[key]) for key in ("pictures", "references", "sentences")))
        total.update(counts)
    objects = ", ".join(f"{count} {kind}" for kind, count in said["objects"].items()) or "no object"
    console.print(
        f"{options.out}: {total['sentences']} sentences about {total['pictures']} pictures ({said['format']}; {objects})",
        markup=False,
        soft_wrap=True,
    )
    console.print(table)
    for note, count in said["notes"].items():
        console.print(f"{count} {note}", markup=False, soft_wrap=True)
    if is_quiet():
        return
    root, place = shlex.quote(str(options.out.parent)), shlex.quote(str(options.out))
    name = shlex.quote(options.out.name)
    print(
        f"next: rislab data check {place}\n"
        f"      rislab data show {place} --out sheet.png\n"
        f"      rislab fit --config experiments/cris/own.yaml --data.init_args.root={root} --data.init_args.dataset={name}\n"
        f"      rislab ablate run cris --profile own --data {place}"
    )
