"""`rislab bench cost`: what a picture costs each method."""

import argparse
import json
from pathlib import Path

from rislab.errors import ConfigError, RislabError, nearest
from rislab.messages import result
from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    cost = actions.add_parser(
        "cost",
        help="a picture: parameters, work, time and memory of each method, into files that `compare` reads",
        description="Build each method with random weights, at the scale of the toy world and at its paper's, and answer "
        "one picture of noise with one sentence (or all names of a closed vocabulary), in a process of its own; on the GPU if "
        "there is one. A file METHOD-SCALE.json is written; one that is there for the same recipe is kept.",
        epilog="example: rislab bench cost --methods cris lavt",
    )
    cost.add_argument("--methods", nargs="+", metavar="NAME", help="files of ablations/papers/ (default: all)")
    cost.add_argument("--scales", nargs="+", choices=("toy", "paper"), default=["toy", "paper"], help="(default: both)")
    cost.add_argument("--again", action="store_true", help="measure also what has a file")
    cost.add_argument("--out", type=user_path, default=Path("runs/costs"), metavar="DIR", help="default: %(default)s")
    cost.add_argument("--json", action="store_true", help="print each file, and what is wrong with it, as JSON")
    cost.set_defaults(run=run_cost)


def run_cost(options: argparse.Namespace) -> int:
    from rislab.ablation import published
    from rislab.bench import cost

    papers = {paper.method: paper for paper in published.load().methods}
    for name in options.methods or ():
        if name not in papers:
            raise ConfigError(f"--methods {name!r}{nearest(name, papers)}; there are {', '.join(papers)}")
    states: list[dict[str, str]] = []

    def say(name: str, state: str) -> None:
        states.append({"name": name, "state": state})
        if not options.json:
            result(f"{name}: {state}" if state else name)

    failed = False
    for method in options.methods or papers:
        try:
            found = list(cost.subjects(papers[method]))
        except RislabError as error:
            say(method, str(error))
            failed = True
            continue
        for subject in found:
            if subject.scale not in options.scales:
                continue
            if cost.is_measured(subject, options.out) and not options.again:
                say(str(subject.file(options.out)), "kept")
                continue
            wrong = cost.save(subject, options.out)
            say(str(subject.file(options.out)), wrong)
            failed |= bool(wrong)
    if options.json:
        print(json.dumps(states, indent=1))
    return 1 if failed else 0
