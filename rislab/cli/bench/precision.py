"""`rislab bench precision`: what scoring in bfloat16 changes of trained networks."""

import argparse
import json
from pathlib import Path

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    precision = actions.add_parser(
        "precision",
        help="a finished trial scored in float32 and in bfloat16: each score, and the time",
        description="Score the test splits of finished trials again, in float32 and in bfloat16, each in a process of its own. "
        "The trials stay as they are. What is found is written to RESULTS, and stands on the page of `rislab bench page`.",
        epilog="example: rislab bench precision runs/cris-components/con+dec3--s0--2eb614b5",
    )
    precision.add_argument("trials", nargs="+", type=user_path, metavar="TRIAL", help="directory of a finished trial")
    precision.add_argument(
        "--results",
        type=user_path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="of the files (default: %(default)s)",
    )
    precision.add_argument("--json", action="store_true", help="print JSON")
    precision.set_defaults(run=run_precision)


def run_precision(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.bench.precision import compared, largest

    found = []
    for trial in options.trials:
        with Console(stderr=True).status(f"scoring {trial.name}"):
            found.append(compared(trial.absolute(), options.results))
        if not options.json:
            print(f"{found[-1]['trial']}: largest change {largest(found[-1]):.3f} points")
    if options.json:
        print(json.dumps(found, indent=1))
    return 0
