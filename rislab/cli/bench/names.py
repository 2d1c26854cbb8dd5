"""`rislab bench names`: what encoding class names once saves, and what a loss without maps of full size does."""

import argparse
import json
from typing import Any

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    names = actions.add_parser(
        "names",
        help="class names encoded once, and in every pass: time and memory",
        description="A window with its mirror image, a training step of one picture, and the label map of a picture at six "
        "scales, with random weights on noise: as rislab does them, and with names encoded in every pass, with gradients of "
        "the text tower, with logits of full size in the loss, and in the order of LSeg's official code. Each in a process of "
        "its own.",
        epilog="example: rislab bench names --config experiments/lseg/ade20k.yaml --work window step",
    )
    names.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/METHOD/*.yaml")
    names.add_argument(
        "--work",
        nargs="+",
        choices=("window", "step", "picture"),
        default=["window", "step"],
        metavar="WORK",
        help="window, step, picture (default: window step)",
    )
    names.add_argument(
        "--ways",
        nargs="+",
        choices=("rislab", "every_pass", "text_gradients", "full_size", "official"),
        metavar="WAY",
        help="rislab, every_pass, text_gradients, full_size, official (default: all that a work has)",
    )
    names.add_argument("--names", type=int, default=150, metavar="N", help="class names (default: %(default)s)")
    names.add_argument(
        "--size", type=int, default=480, metavar="S", help="side of the window, a multiple of 32 (default: %(default)s)"
    )
    names.add_argument("--json", action="store_true", help="print JSON")
    names.set_defaults(run=run_names)


def run_names(options: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.bench.class_names import WAYS
    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    recipe = read_recipe(options.config)
    for name, value, least in (("--names", options.names, 3), ("--size", options.size, 64)):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    if options.size % 32:
        raise ConfigError(f"--size is {options.size}, expected a multiple of 32")
    ways: dict[str, list[str]] = {}
    for work in dict.fromkeys(options.work):
        ways[work] = [way for way in WAYS[work] if options.ways is None or way in options.ways]
        if not ways[work]:
            raise ConfigError(f"--ways has none of {work}, which has {', '.join(WAYS[work])}")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with Console(stderr=True).status("measuring"):
        for work, chosen in ways.items():
            given = {"recipe": recipe, "work": work, "names": options.names, "side": options.size}
            found[work] = {way: in_a_process_of_its_own("rislab.bench.class_names", way=way, **given) for way in chosen}
    if options.json:
        print(json.dumps({"names": options.names, "size": options.size, "measured": found}, indent=1))
        return 0
    table = Table("work", "way", "s", "CPU s", "MiB", "names encoded", "CPU s x", "MiB x", box=box.SIMPLE_HEAD)
    for column in table.columns[2:]:
        column.justify = "right"
    for work, measured in found.items():
        ours = measured.get("rislab")
        for way, cost in measured.items():
            row = [work, way, f"{cost['seconds']:.2f}", f"{cost['cpu_seconds']:.2f}", f"{cost['grown_mb']:.0f}"]
            ratios = [
                "" if ours is None else f"{cost[name] / max(ours[name], 1e-9):.2f}"
                for name in ("cpu_seconds", "grown_mb")
            ]
            table.add_row(*row, f"{cost['encoded']:.0f}", *ratios)
    console = Console(highlight=False)
    console.print(
        f"{options.names} names, windows of {options.size}; MiB: peak of resident memory over what was there before."
    )
    console.print("x: over rislab's. rislab: names encoded once, before what is timed; loss in bands of rows.")
    console.print(table)
    return 0
