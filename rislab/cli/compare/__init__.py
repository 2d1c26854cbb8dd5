"""`rislab compare`: one report over all finished tables and matrices, and with --run all that it needs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rislab.cli.ablate.selection import MOST_SEEDS, check_count
from rislab.errors import ConfigError, nearest
from rislab.messages import result
from rislab.paths import user_path

if TYPE_CHECKING:
    from rislab.ablation.published import Published
    from rislab.ablation.table import Table


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="write one report of all methods on all benchmarks, beside what the papers report",
        description="One report over all finished tables and matrices: methods by benchmarks, the papers' numbers by protocol, "
        "the papers' tables, the ledger of claims, cost, and what was not run and why; as compare.md, .csv, .tex and .html. With "
        "--run, what is missing comes first: each method is trained by its table's row, scored on the benchmarks, and measured. "
        "The same command goes on after a stop.",
        epilog="example: rislab compare --run --seeds 3 --jobs 2",
    )
    parser.add_argument(
        "--run", action="store_true", dest="runs_missing", help="train, score and measure what is missing"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="files of ablations/papers/ (default: all)")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        metavar="NAME",
        help="files of experiments/benchmarks/ that --run scores on (default: generated ones)",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of each method (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="--run: root of real data sets")
    parser.add_argument(
        "--checkpoints",
        type=user_path,
        metavar="FILE",
        help="--run: YAML of further weights; `METHOD: {official: FILE, config: RECIPE}` or `METHOD: best.ckpt` a line",
    )
    parser.add_argument("--retry", action="store_true", help="--run: also repeat what failed, diverged or was refused")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="--run: trials at once (default: %(default)s)")
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials; matrix/ and costs/ below it"
    )
    parser.add_argument(
        "--reports", type=user_path, default=Path("reports"), metavar="DIR", help="reports (default: %(default)s)"
    )
    parser.add_argument("--pdf", action="store_true", help="write compare.pdf, too (needs rislab[pdf])")
    parser.add_argument("--json", action="store_true", help="print the files and what is wrong as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.ablation import published
    from rislab.report import pdf
    from rislab.report.comparison import build

    check_count("--seeds", options.seeds)
    check_count("--jobs", options.jobs)
    if options.seeds > MOST_SEEDS:
        raise ConfigError(f"--seeds {options.seeds}: expected at most {MOST_SEEDS}")
    if options.pdf:
        pdf.require()
    known = published.load()
    if options.methods:
        known = _chosen(known, options.methods)
    elif not options.runs_missing and (options.data or options.checkpoints or options.benchmarks):
        raise ConfigError("--data, --checkpoints and --benchmarks belong to --run")
    places = build.Places(options.runs, options.runs / "matrix", options.runs / "costs", options.reports)
    problems: list[str] = []
    if options.runs_missing:
        from rislab.cli.compare.missing import run_missing

        benchmarks = options.benchmarks or list(build.generated_benchmarks())
        found = run_missing(known, options, places, benchmarks)
        if found is None:
            return 130
        problems = found
    tables, broken = _tables()
    document = build.document(known, tables, [*broken, *problems], range(options.seeds), places)
    folder = options.reports / "compare"
    written = build.write(document, folder)
    if options.pdf:
        written.append(pdf.write(folder / "compare.html", folder / "compare.pdf"))
    if options.json:
        print(json.dumps({"files": list(map(str, written)), "problems": problems, "broken tables": broken}, indent=1))
    else:
        for path in written:
            result(path)
    return 1 if problems else 2 if broken else 0


def _chosen(known: "Published", names: list[str]) -> "Published":
    from dataclasses import replace

    methods = [paper.method for paper in known.methods]
    for name in names:
        if name not in methods:
            raise ConfigError(f"--methods {name!r}{nearest(name, methods)}; there are {', '.join(methods)}")
    return replace(known, methods=tuple(known.of(name) for name in dict.fromkeys(names)))


def _tables() -> "tuple[list[Table], list[str]]":
    """All tables, of which one that is broken hides no other; what is wrong with those comes second."""
    from rislab.ablation import lookup, table

    found, broken = [], []
    for path in lookup.own_tables().values():
        try:
            found.append(table.load(path))
        except ConfigError as error:
            broken.append(f"{path}: {error}")
    return found, broken
