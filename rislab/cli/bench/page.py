"""`rislab bench page`: every method's work at full size, one file a piece of work, and a page of all files."""

import argparse
import json
from pathlib import Path

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    page = actions.add_parser(
        "page",
        help="every method's work at full size, beside the official figures; resumable",
        description="Measure pieces of work at full size on the CPU, with random weights on noise, as they are and in the plain "
        "way of the official codes. Each is written to RESULTS/WORK.json; one that is there is kept. Then a page of all that are "
        "there is written. The whole takes hours, a piece seconds to minutes.",
        epilog="example: rislab bench page tcl-labels-21 lavt-sentences",
    )
    page.add_argument("names", nargs="*", metavar="WORK", help="pieces of work (default: every one); see --list")
    page.add_argument("--list", action="store_true", help="print the pieces of work and whether they are measured")
    page.add_argument("--again", action="store_true", help="measure also what has a file")
    page.add_argument("--only-page", action="store_true", help="measure nothing; write the page of the files")
    page.add_argument(
        "--results",
        type=user_path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="of the files (default: %(default)s)",
    )
    page.add_argument(
        "--out", type=user_path, default=Path("reports/bench.md"), metavar="FILE", help="(default: %(default)s)"
    )
    page.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each measurement; one is disturbed least (default: 1)"
    )
    page.add_argument(
        "--vocabulary",
        type=user_path,
        metavar="FILE",
        help="vocab.txt of BERT (default: made-up pieces, which cost the same)",
    )
    page.add_argument("--json", action="store_true", help="print JSON")
    page.set_defaults(run=run_page)


def run_page(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.bench import page
    from rislab.bench.page_text import written
    from rislab.bench.works import WORKS
    from rislab.errors import ConfigError, RislabError, nearest
    from rislab.files import read_json, write_json, write_text

    for name in options.names:
        if name not in WORKS:
            raise ConfigError(f"no piece of work {name!r}{nearest(name, WORKS)}; see rislab bench page --list")
    if options.threads < 1:
        raise ConfigError(f"--threads is {options.threads}, expected 1 or more")
    wanted = [WORKS[name] for name in dict.fromkeys(options.names or WORKS)]
    states: dict[str, str] = {}
    for work in wanted:
        file = page.file_of(work, options.results)
        has = page.is_measured(work, options.results, options.vocabulary)
        if options.list or options.only_page:
            states[work.name] = "measured" if has else "not measured"
        elif has and not options.again:
            states[work.name] = "kept"
        else:
            try:
                with Console(stderr=True).status(f"measuring {work.name}"):
                    page.measure(work, options.results, options.vocabulary, options.threads)
                states[work.name] = "measured"
            except (RislabError, RuntimeError) as error:  # a process that died is RuntimeError
                states[work.name] = f"not measured: {error}"
                if not has:
                    write_json(file, {"work": work.name, "fault": str(error)})
        if not options.json:
            print(f"{work.name}: {states[work.name]}", flush=True)
    if not options.list:
        found = {name: read_json(page.file_of(work, options.results)) for name, work in WORKS.items()}
        precisions = [read_json(path) for path in sorted(options.results.glob("precision-*.json"))]
        write_text(options.out, written(found, precisions))
    if options.json:
        print(json.dumps(states, indent=1))
    elif not options.list:
        print(options.out)
    failed = not options.list and not options.only_page and any(each.startswith("not") for each in states.values())
    return 1 if failed else 0
