"""`rislab bench savings`: what LAVT's and DMMI's savings bring, beside the plain ways of the official codes."""

import argparse
import json
from typing import Any

from rislab.paths import user_path

PLAIN = ("regions", "pixels", "attention", "windows")
"""Names of `rislab.bench.plain_ways.PLAIN_WAYS`, here without torch."""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    savings = actions.add_parser(
        "savings",
        help="LAVT's and DMMI's savings undone: time and memory",
        description="Run one training step, or the masks of one picture's sentences, with random weights on noise: as it is, and "
        "in the plain ways of the official codes. Each run is a process of its own on the CPU.",
        epilog="example: rislab bench savings --config experiments/dmmi/refcoco.yaml --plain regions pixels attention",
    )
    savings.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/METHOD/*.yaml")
    savings.add_argument(
        "--work",
        choices=("step", "sentences"),
        default="step",
        help="a training step, or all sentences of a picture, plainly one at a time (default: %(default)s)",
    )
    savings.add_argument(
        "--plain", nargs="*", choices=PLAIN, default=[], metavar="NAME", help=f"savings to undo: {', '.join(PLAIN)}"
    )
    savings.add_argument("--images", type=int, default=2, metavar="N", help="of a step (default: %(default)s)")
    savings.add_argument("--sentences", type=int, default=7, metavar="N", help="of a picture (default: %(default)s)")
    savings.add_argument("--size", type=int, metavar="N", help="side of the frame in pixels (default: the config's)")
    savings.add_argument(
        "--vocabulary",
        type=user_path,
        metavar="FILE",
        help="vocab.txt of BERT (default: made-up pieces, which cost the same)",
    )
    savings.add_argument("--json", action="store_true", help="print JSON")
    savings.set_defaults(run=run_savings)


def run_savings(options: argparse.Namespace) -> int:
    from rich.console import Console

    from rislab.bench.training_step import in_a_process_of_its_own
    from rislab.errors import ConfigError
    from rislab.training.inference import read_recipe

    for name in ("images", "sentences"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is {getattr(options, name)}, expected 1 or more")
    if options.work == "step" and not options.plain:
        raise ConfigError(f"--work step without --plain compares nothing; expected some of {', '.join(PLAIN)}")
    recipe = read_recipe(options.config)
    given: dict[str, Any] = dict(recipe["init_args"])
    if options.size is not None:
        given["image_size"] = options.size
    if options.vocabulary is not None:
        given["bert"] = given.get("bert", {}) | {"vocabulary": str(options.vocabulary)}
    counts = {"work": options.work, "images": options.images, "sentences": options.sentences}
    with Console(stderr=True).status("measuring"):
        ours, plain = (
            in_a_process_of_its_own(
                "rislab.bench.savings",
                recipe=recipe | {"init_args": given},
                plain=options.plain if plainly else [],
                one_by_one=plainly,
                **counts,
            )
            for plainly in (False, True)
        )
    ratio = {name: plain[name] / max(ours[name], 1e-9) for name in ours}
    found = {"as it is": ours, "plain": plain, "ratio": ratio}
    if options.json:
        print(json.dumps(counts | {"size": given.get("image_size"), "undone": options.plain, **found}, indent=1))
    else:
        _show(found)
    return 0


def _show(found: dict[str, dict[str, float]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("", *found, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, field in (
        ("seconds", "seconds"),
        ("CPU seconds", "cpu_seconds"),
        ("MiB beyond weights, gradients", "grown_mb"),
    ):
        table.add_row(label, *(f"{column[field]:.4g}" for column in found.values()))
    Console(highlight=False).print(table)
