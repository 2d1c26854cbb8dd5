"""`rislab bench weak`: CLIMS's training step and activation maps, beside the plain way."""

import argparse
import json
from pathlib import Path
from typing import Any

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    weak = actions.add_parser(
        "weak",
        help="CLIMS: a training step and the activation maps of a picture, beside the plain way",
        description="Run a recipe of CLIMS with random weights, once as it is and once as the official code does it (gradients "
        "of CLIP's weights, CLIP run for each term, all maps enlarged), each in a process of its own; compare the results.",
        epilog="example: rislab bench weak --config experiments/clims/voc.yaml --images 4 --side 512 --size 375 500",
    )
    weak.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/clims/*.yaml")
    weak.add_argument("--images", type=int, default=4, metavar="N", help="pictures a step (default: %(default)s)")
    weak.add_argument("--side", type=int, default=512, metavar="S", help="of a step's pictures (default: %(default)s)")
    weak.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=[375, 500],
        metavar=("H", "W"),
        help="of the maps' picture (default: 375 500)",
    )
    weak.add_argument(
        "--what", choices=("step", "maps"), nargs="+", default=["step", "maps"], help="(default: step maps)"
    )
    weak.add_argument("--json", action="store_true", help="print JSON")
    weak.set_defaults(run=run_weak)


def run_weak(options: argparse.Namespace) -> int:
    import tempfile

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.bench.weak_supervision import largest_difference
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    for name, value, least in (
        ("--images", options.images, 1),
        ("--side", options.side, 64),
        ("--size", min(options.size), 64),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    recipe = read_recipe(options.config)
    found: dict[str, dict[str, Any]] = {}
    with Console(stderr=True).status("measuring"), tempfile.TemporaryDirectory() as folder:
        for what in options.what:
            height, width = (options.side, options.side) if what == "step" else options.size
            files = {how: Path(folder) / f"{what}-{how}.pt" for how in ("rislab", "plain")}
            entry: dict[str, Any] = {
                how: in_a_process_of_its_own(
                    "rislab.bench.weak_supervision",
                    recipe=recipe,
                    what=what,
                    how=how,
                    images=options.images,
                    height=height,
                    width=width,
                    result=str(file),
                )
                for how, file in files.items()
            }
            entry["ratio"] = {key: entry["plain"][key] / max(entry["rislab"][key], 1e-9) for key in entry["rislab"]}
            entry["difference"] = largest_difference(*files.values())
            found[what] = entry
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    table = Table("", "s", "CPU s", "MiB", "plain s", "CPU s", "MiB", "CPU x", "difference", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for what, entry in found.items():
        cells = [
            text
            for how in ("rislab", "plain")
            for text in (
                f"{entry[how]['seconds']:.2f}",
                f"{entry[how]['cpu_seconds']:.2f}",
                f"{entry[how]['peak_mb']:.0f}",
            )
        ]
        table.add_row(what, *cells, f"{entry['ratio']['cpu_seconds']:.2f}", f"{entry['difference']:.1e}")
    Console(highlight=False).print(table)
    return 0
