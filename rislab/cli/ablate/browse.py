"""`rislab ablate browse`: every answer of a table's rows beside the truth."""

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

from rislab.cli.ablate.selection import Action, load
from rislab.messages import progress, result, warn
from rislab.paths import user_path


def add(action: Action) -> None:
    browse = action("browse", "write pages that show where one row beats another, answer by answer", "cris --seeds 3")
    browse.add_argument(
        "--out", type=user_path, default=Path("reports"), metavar="DIR", help="of the reports (default: %(default)s)"
    )
    browse.add_argument(
        "--pictures",
        choices=("auto", "copy", "reference"),
        default="auto",
        help="copy them into the folder, or refer to where they lie (default: copied where all are at most 4 MB)",
    )
    browse.add_argument("--json", action="store_true", help="print the page, the report's files and the notes as JSON")
    browse.set_defaults(run=write_browser)


def write_browser(options: argparse.Namespace) -> int:
    """The folder first, since the report links to it where it is there."""
    from rislab.browse.table import contents
    from rislab.browse.write import write
    from rislab.report.results import collect
    from rislab.report.write import browser_folder, build, folder_of

    table, profile, seeds, planned = load(options)
    number = itertools.count(1)
    with progress("reading answers") as show:
        found = contents(collect(table, profile, seeds, planned), lambda: show(next(number), None))
    shown = replace(found, report="../report.html")
    folder = browser_folder(folder_of(table, profile, options.out))
    page = write(shown, folder, options.pictures)
    written = build(table, profile, seeds, planned, options.out)
    if options.json:
        print(json.dumps({"page": str(page), "report": list(map(str, written)), "notes": list(shown.notes)}, indent=1))
    else:
        for note in shown.notes:
            warn(note)
        for path in (page, *written):
            result(path)
    sys.stdout.flush()
    return 0
