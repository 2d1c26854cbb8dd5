"""`rislab bench labels`: what a label map of many classes takes, beside a plain loop over the classes."""

import argparse
import json
from pathlib import Path
from typing import Any

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    labels = actions.add_parser(
        "labels",
        help="a label map of many classes: time and memory",
        description="Label one picture of noise by TCL's windows with random weights, each time in a process of its own. Names "
        "are encoded before that, once.",
        epilog="example: rislab bench labels --config experiments/tcl/cc12m.yaml --classes 21 81 171 --loop --pamr on off",
    )
    labels.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/METHOD/*.yaml")
    labels.add_argument(
        "--classes", type=int, nargs="+", default=[21, 81, 171], metavar="N", help="(default: 21 81 171)"
    )
    labels.add_argument("--size", type=int, nargs=2, default=[448, 448], metavar=("H", "W"), help="(default: 448 448)")
    labels.add_argument(
        "--official",
        action="store_true",
        help="beside the way of the official code: attention under a mask, convolutions at the large size, PAMR with copies of "
        "each mask, all scores at full size; tcl only",
    )
    labels.add_argument(
        "--loop",
        action="store_true",
        help="beside a plain loop: features once a window, classes in turn, all of them kept at full size",
    )
    labels.add_argument(
        "--pamr",
        nargs="+",
        choices=("on", "off"),
        metavar="on|off",
        help="refinement; tcl only (default: the config's)",
    )
    labels.add_argument("--json", action="store_true", help="print JSON")
    labels.set_defaults(run=run_labels)


def run_labels(options: argparse.Namespace) -> int:
    import tempfile

    from rich.console import Console

    from rislab.bench.label_maps import agreement
    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    recipe = read_recipe(options.config)
    height, width = options.size
    for name, value, least in (("--classes", min(options.classes), 1), ("--size", min(height, width), 64)):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    if options.loop and options.official:
        raise ConfigError("--loop and --official are given, expected one of them")
    other = "loop" if options.loop else "official" if options.official else None
    ways = ("rislab",) if other is None else ("rislab", other)
    found: list[dict[str, Any]] = []
    with Console(stderr=True).status("measuring"), tempfile.TemporaryDirectory() as folder:
        for refined in options.pamr or (None,):
            for classes in options.classes:
                entry: dict[str, Any] = {"classes": classes, "pamr": refined}
                files = {how: Path(folder) / f"{how}.npy" for how in ways}
                for how in ways:
                    entry[how] = in_a_process_of_its_own(
                        "rislab.bench.label_maps",
                        recipe=with_pamr(recipe, refined),
                        classes=classes,
                        height=height,
                        width=width,
                        how=how,
                        labels=str(files[how]),
                    )
                if other is not None:
                    entry["ratio"] = {
                        name: entry[other][name] / max(entry["rislab"][name], 1e-9)
                        for name in ("seconds", "cpu_seconds", "grown_mb")
                    }
                    entry["same_label_percent"] = agreement(*files.values())
                found.append(entry)
    if options.json:
        print(json.dumps({"height": height, "width": width, "measured": found}, indent=1))
        return 0
    _show(found, f"{height} x {width}", other)
    return 0


def with_pamr(recipe: dict[str, Any], refined: str | None) -> dict[str, Any]:
    """The recipe with refinement switched on or off. Raises ConfigError for a method that has none."""
    if refined is None:
        return recipe
    from rislab.ablation import signature
    from rislab.errors import ConfigError

    method = str(recipe["class_path"])
    if "pamr" not in signature.read(method).options:
        raise ConfigError(f"--pamr: {method.rpartition('.')[2]} has no option pamr")
    return recipe | {"init_args": recipe.get("init_args", {}) | {"pamr": refined == "on"}}


def _show(found: list[dict[str, Any]], size: str, other: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = ["classes", "PAMR", "names s", "s", "MiB"]
    if other is not None:
        columns += [f"{other} s", f"{other} MiB", "time x", "memory x", "same %"]
    table = Table(*columns, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)  # ten columns in 80 characters
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    for entry in found:
        ours = entry["rislab"]
        row = [str(entry["classes"]), entry["pamr"] or "config", f"{ours['text_seconds']:.1f}"]
        row += [f"{ours['seconds']:.2f}", f"{ours['grown_mb']:.0f}"]
        if other is not None:
            plain, ratio = entry[other], entry["ratio"]
            row += [f"{plain['seconds']:.2f}", f"{plain['grown_mb']:.0f}", f"{ratio['seconds']:.2f}"]
            row += [f"{ratio['grown_mb']:.2f}", f"{entry['same_label_percent']:.2f}"]
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(
        f"One picture of {size}; MiB: peak of resident memory over what was there before; names: encoded once."
    )
    if other is not None:
        console.print(f"x: the {other} way's over ours; same: pixels that both give the same class.")
    console.print(table)
