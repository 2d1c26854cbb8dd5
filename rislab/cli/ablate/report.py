"""`rislab ablate report`."""

import argparse
import sys
from pathlib import Path

from rislab.cli.ablate.selection import Action, load
from rislab.paths import user_path


def add(action: Action) -> None:
    report = action("report", "write report.md, .csv, .tex and .html", "cris --seeds 3")
    report.add_argument("--out", type=user_path, default=Path("reports"), metavar="DIR", help="default: %(default)s")
    report.set_defaults(run=write_report)


def write_report(options: argparse.Namespace) -> int:
    from rislab.report.write import build

    table, profile, seeds, planned = load(options)
    written = build(table, profile, seeds, planned, options.out)
    for path in written:
        print(path)
    sys.stdout.flush()
    return 0
