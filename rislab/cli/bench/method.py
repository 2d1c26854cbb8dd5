"""`rislab bench method`: what methods' work costs, beside a plain loop and what arithmetic allows."""

import argparse
import json
from pathlib import Path
from typing import Any

from rislab.paths import user_path

SENTENCES, CLASSES = 7, 20
"""Of a picture, where the command names none; VOC has as many classes."""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    method = actions.add_parser(
        "method",
        help="a method's evaluation or training step: time, memory, operations, beside a plain loop",
        description="Run a method with random weights on noise on the CPU, as it is and as a plain loop, in one process and in "
        "turn. Evaluation: the masks of a picture's sentences, or the scores of class names, plainly one at a time. Training: "
        "loss and gradients, plainly with a picture for each sentence and gradients of all weights. Prints time, memory, "
        "operations, their bound, the share of this machine's rate, and the difference of the answers.",
        epilog="example: rislab bench method lseg --work train --size 480",
    )
    method.add_argument("names", nargs="*", metavar="NAME", help="methods (default: every one)")
    method.add_argument(
        "--work",
        nargs="+",
        choices=("evaluate", "train"),
        default=["evaluate"],
        metavar="WORK",
        help="evaluate, train (default: evaluate)",
    )
    method.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help=f"class names of a picture (default: {CLASSES} for a method that is not trained on sentences)",
    )
    method.add_argument(
        "--sentences",
        type=int,
        metavar="N",
        help=f"of a picture (default: {SENTENCES} for a method that is trained on sentences)",
    )
    method.add_argument(
        "--config", type=user_path, metavar="YAML", help="recipe (default: the method's first one that is no toy)"
    )
    method.add_argument("--size", type=int, metavar="S", help="side of the pictures (default: the recipe's)")
    method.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="of each way; the least counts (default: %(default)s)"
    )
    method.add_argument("--out", type=user_path, metavar="FILE", help="also write a page in Markdown")
    method.add_argument("--json", action="store_true", help="print JSON")
    method.set_defaults(run=run_method)


def run_method(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.ablation import signature
    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.errors import ConfigError, RislabError, nearest

    known = signature.methods()
    for name in options.names:
        if name not in known:
            raise ConfigError(f"no method {name!r}{nearest(name, known)}; methods are {', '.join(known)}")
    for name, value, least in (
        ("--classes", options.classes, 1),
        ("--sentences", options.sentences, 1),
        ("--size", options.size, 32),
        ("--repeats", options.repeats, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    names = list(dict.fromkeys(options.names)) or list(known)
    if options.config is not None and len(names) != 1:
        raise ConfigError("--config is of one method, expected one NAME with it")
    found: list[dict[str, Any]] = []
    with Console(stderr=True).status("measuring"):
        for name in names:
            for work, count in _pieces(options, known[name]):
                entry: dict[str, Any] = {"method": name, "work": work, "count": count}
                try:
                    path, recipe = _recipe(name, known[name], options.config)
                    entry |= {"config": str(path)}
                    entry |= in_a_process_of_its_own(
                        "rislab.bench.method_costs",
                        recipe=recipe,
                        work=work,
                        count=count,
                        repeats=options.repeats,
                        side=options.size,
                    )
                except (RislabError, RuntimeError) as error:  # a process that died is RuntimeError
                    if len(names) == 1:
                        raise
                    entry |= {"fault": str(error)}
                found.append(entry)
    if options.out is not None:
        from rislab.files import write_text

        write_text(options.out, _page(found))
    print(json.dumps(found, indent=1)) if options.json else _show(found)
    return 0


def _pieces(options: argparse.Namespace, class_path: str) -> list[tuple[str, int]]:
    """What is measured of a method, and how many sentences or class names that has."""
    from rislab.ablation import signature

    reads_sentences = "MaskQueries" in signature.read(class_path).trains_on
    found = []
    if "evaluate" in options.work:
        if options.sentences is not None or (options.classes is None and reads_sentences):
            found.append(("sentences", options.sentences or SENTENCES))
        if options.classes is not None or (options.sentences is None and not reads_sentences):
            found.append(("classes", options.classes or CLASSES))
    if "train" in options.work:
        found.append(("train", options.sentences or SENTENCES))
    return found


def _recipe(name: str, class_path: str, given: Path | None) -> tuple[Path, dict[str, Any]]:
    """A config of the method and its `model`: the given one, or the first that is no toy.

    Raises:
        ConfigError: There is none, or it is another method's.
    """
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    if given is not None:
        recipe = read_recipe(given)
        if recipe["class_path"] != class_path:
            raise ConfigError(f"{given} is a recipe of {recipe['class_path']}, expected one of {class_path}")
        return given, recipe
    for path in sorted(Path("experiments").glob(f"{name}/*.yaml")):
        if path.stem.startswith("toy"):
            continue
        try:
            recipe = read_recipe(path)
        except ConfigError:
            continue  # what a second stage puts over a recipe
        if recipe["class_path"] == class_path:
            return path, recipe
    raise ConfigError(f"experiments/{name} has no recipe of {class_path} at its full size, expected --config YAML")


COLUMNS = ("method", "work", "CPU s", "plain", "x", "bound", "MiB", "plain", "GFLOP", "of the rate", "difference")


def _cells(entry: dict[str, Any]) -> list[str]:
    work = f"{entry['count']} {entry['work']}" if entry["work"] != "train" else "train"
    if "fault" in entry:
        return [entry["method"], work, f"not measured: {entry['fault']}", *[""] * (len(COLUMNS) - 3)]
    ours, plain = entry["rislab"], entry["plain"]
    return [
        entry["method"],
        work,
        f"{ours['cpu_seconds']:.2f}",
        f"{plain['cpu_seconds']:.2f}",
        f"{entry['ratio']['cpu_seconds']:.2f}",
        f"{entry['bound']:.2f}",
        f"{ours['grown_mb']:.0f}",
        f"{plain['grown_mb']:.0f}",
        f"{ours['gflop']:.0f}",
        f"{100 * entry['share_of_rate']:.0f} %",
        f"{entry['difference']:.0e}",
    ]


def _legend(found: list[dict[str, Any]]) -> list[str]:
    measured = [entry for entry in found if "fault" not in entry]
    rates = [entry["matrix_rate"] for entry in measured]
    rate = f"{min(rates):.0f} to {max(rates):.0f} GFLOP" if rates else "nothing"
    return [
        f"{len(measured)} of {len(found)} measured, random weights, noise, float32, on the CPU.",
        "x: the plain loop's CPU seconds over ours. bound: its operations over ours.",
        "MiB: peak of resident memory over what was there before, gradients included.",
        f"of the rate: GFLOP a CPU second, as a share of that of matrix products ({rate}).",
        "difference: of scores, or of loss and gradients, as a share of the largest value.",
    ]


def _page(found: list[dict[str, Any]]) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(_cells(entry) for entry in found)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n".join(["# What methods' work costs", "", *(f"- {line}" for line in _legend(found)), "", table, ""])


def _show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from rislab.cli.console import open_console

    console = open_console()
    for line in _legend(found):
        console.print(line)
    table = Table(*COLUMNS, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for entry in found:
        if "fault" not in entry:
            table.add_row(*_cells(entry))
    console.print(table)
    for entry in found:
        if "fault" in entry:
            console.print(f"{entry['method']}, {entry['work']}: not measured: {entry['fault']}")
