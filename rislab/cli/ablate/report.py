"""`rislab ablate report`."""

import argparse
import json
import sys
from pathlib import Path

from rislab.cli.ablate.selection import Action, load
from rislab.messages import result
from rislab.paths import user_path


def add(action: Action) -> None:
    report = action("report", "write report.md, .csv, .tex and .html", "cris --seeds 3")
    report.add_argument("--out", type=user_path, default=Path("reports"), metavar="DIR", help="default: %(default)s")
    report.add_argument("--json", action="store_true", help="print the names of the files as JSON")
    report.set_defaults(run=write_report)


def write_report(options: argparse.Namespace) -> int:
    from rislab.report.write import build

    table, profile, seeds, planned = load(options)
    written = build(table, profile, seeds, planned, options.out)
    if options.json:
        print(
            json.dumps(
                {"table": table.name, "profile": profile.name, "files": [str(path) for path in written]}, indent=1
            )
        )
    for path in () if options.json else written:
        result(path)
    sys.stdout.flush()
    return 0
