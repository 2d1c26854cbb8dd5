"""`rislab bench step`: what a training step of a recipe takes."""

import argparse
import json

from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    step = actions.add_parser(
        "step",
        help="a training step: time, memory and work, as it is and with everything trained",
        description="Run training steps of a recipe with random weights on random pictures, once with what it freezes frozen and "
        "once with everything trained, each in a process of its own; on the GPU if there is one.",
        epilog="example: rislab bench step --config experiments/risclip/refcocog_b.yaml --images 16 --precision bfloat16",
    )
    step.add_argument("--config", type=user_path, required=True, metavar="YAML", help="experiments/METHOD/*.yaml")
    step.add_argument("--images", type=int, default=2, metavar="N", help="pictures a step (default: %(default)s)")
    step.add_argument("--queries", type=int, default=1, metavar="N", help="sentences a picture (default: %(default)s)")
    step.add_argument("--steps", type=int, default=3, metavar="N", help="timed steps (default: %(default)s)")
    step.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")
    step.add_argument("--compile", action="store_true", help="with torch.compile")
    step.add_argument("--json", action="store_true", help="print JSON")
    step.set_defaults(run=run_step)


def run_step(options: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.bench.training_step import StepCost, in_a_process_of_its_own
    from rislab.training.inference import read_recipe

    recipe = read_recipe(options.config)
    counts = {"images": options.images, "queries": options.queries, "steps": options.steps}
    how = {"precision": options.precision, "compiled": options.compile}
    with Console(stderr=True).status("measuring"):
        found = {
            name: StepCost(
                **in_a_process_of_its_own(
                    "rislab.bench.training_step", recipe=recipe, all_trained=every, **counts, **how
                )
            )
            for name, every in (("as it is", False), ("all trained", True))
        }
    if options.json:
        print(json.dumps({name: cost.as_json() for name, cost in found.items()}, indent=1))
        return 0
    table = Table("", *found, "ratio", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    one, other = found.values()
    for label, field in (
        ("trained parameters, millions", "trained_millions"),
        ("seconds a step", "seconds"),
        ("samples a second", "samples_a_second"),
        ("peak memory, MiB", "memory_mb"),
        ("TFLOP a step", "teraflops"),
        ("TFLOP/s", "teraflops_a_second"),
    ):
        ours, theirs = getattr(one, field), getattr(other, field)
        table.add_row(label, f"{ours:.4g}", f"{theirs:.4g}", f"{theirs / max(ours, 1e-12):.2f}")
    Console(highlight=False).print(table)
    return 0
