"""`rislab bench grouping`: GroupViT's label maps, training texts and gradient caching, beside the plain way."""

import argparse
import json
from pathlib import Path
from typing import Any

from rislab.paths import user_path

COMPARED = {"labels": "same_label_percent", "texts": "gradient_difference", "caching": "gradient_difference"}


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    grouping = actions.add_parser(
        "grouping",
        help="GroupViT: label maps, training texts, gradient caching",
        description="Measure GroupViT with random weights beside the plain way, each in a process of its own. labels: a label "
        "map, against an encoder that runs twice a window and scores of all classes at all pixels. texts: a training step, "
        "against texts that are not cut to their length. caching: a training step in micro-batches, against the whole batch "
        "in memory.",
        epilog="example: rislab bench grouping --config experiments/groupvit/gcc.yaml --work labels texts",
    )
    grouping.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/groupvit/*.yaml")
    grouping.add_argument(
        "--work",
        nargs="+",
        choices=tuple(COMPARED),
        default=list(COMPARED),
        metavar="WORK",
        help="(default: all three)",
    )
    grouping.add_argument("--classes", type=int, default=20, metavar="N", help="of a label map (default: %(default)s)")
    grouping.add_argument(
        "--size", type=int, nargs=2, default=[448, 448], metavar=("H", "W"), help="of its picture (default: 448 448)"
    )
    grouping.add_argument(
        "--batch", type=int, default=8, metavar="N", help="pictures of the step with texts (default: %(default)s)"
    )
    grouping.add_argument(
        "--cached-batch", type=int, default=256, metavar="N", help="of the cached step (default: %(default)s)"
    )
    grouping.add_argument(
        "--micro-batch",
        type=int,
        default=32,
        metavar="N",
        help="of which are in memory together (default: %(default)s)",
    )
    grouping.add_argument("--json", action="store_true", help="print JSON")
    grouping.set_defaults(run=run_grouping)


def run_grouping(options: argparse.Namespace) -> int:
    import tempfile

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.bench.grouping import difference, same_labels
    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    height, width = options.size
    for name, value, least in (
        ("--classes", options.classes, 1),
        ("--size", min(height, width), 64),
        ("--batch", options.batch, 2),
        ("--cached-batch", options.cached_batch, 2),
        ("--micro-batch", options.micro_batch, 1),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    recipe = read_recipe(options.config)
    sizes = {
        "labels": {"classes": options.classes, "height": height, "width": width},
        "texts": {"batch": options.batch},
        "caching": {"batch": options.cached_batch, "micro_batch": options.micro_batch},
    }
    found: dict[str, dict[str, Any]] = {}
    with Console(stderr=True).status("measuring"), tempfile.TemporaryDirectory() as folder:
        for work in options.work:
            kept = {how: Path(folder) / f"{work}-{how}.npz" for how in ("rislab", "plain")}
            entry: dict[str, Any] = {
                how: in_a_process_of_its_own(
                    "rislab.bench.grouping", recipe=recipe, what=work, how=how, kept=str(file), **sizes[work]
                )
                for how, file in kept.items()
            }
            entry["ratio"] = {name: entry["plain"][name] / max(entry["rislab"][name], 1e-9) for name in entry["plain"]}
            compare = same_labels if work == "labels" else difference
            found[work] = {**sizes[work], **entry, COMPARED[work]: compare(kept["rislab"], kept["plain"])}
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    table = Table(
        "work", "CPU s", "plain CPU s", "time x", "MiB", "plain MiB", "memory x", "equal", box=box.SIMPLE_HEAD
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for work, entry in found.items():
        ours, plain, ratio = entry["rislab"], entry["plain"], entry["ratio"]
        numbers = [ours["cpu_seconds"], plain["cpu_seconds"], ratio["cpu_seconds"]]
        memory = [f"{ours['grown_mb']:.0f}", f"{plain['grown_mb']:.0f}", f"{ratio['grown_mb']:.2f}"]
        equal = f"{entry[COMPARED[work]]:.2f} %" if work == "labels" else f"within {entry[COMPARED[work]]:.0e}"
        table.add_row(work, *(f"{number:.2f}" for number in numbers), *memory, equal)
    console = Console(highlight=False)
    console.print("MiB: peak of resident memory over what was there before; x: the plain way's over ours.")
    console.print("equal: pixels with the same class; gradients, as a share of each parameter's largest entry.")
    console.print(table)
    return 0
