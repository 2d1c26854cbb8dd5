"""`rislab data pack` and `rislab bench data`: decoded once, and what that is worth."""

import argparse
import json
import sys

from rislab.cli import label_bench
from rislab.cli.selecting import add_selection
from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pack = actions.add_parser(
        "pack",
        help="decode and place every picture once, for training",
        description="Write pictures at the training resolution, masks as run lengths and token ids below DIR/packed. Training "
        "uses it by itself as long as the files beside it do not change; batches are the same, to the bit. Interrupted, it "
        "goes on where it was. A real set takes 0.5 MB a picture at 416 x 416.",
        epilog="example: rislab data pack DATA --dataset refcoco --size 416",
    )
    pack.add_argument("folder", type=user_path, metavar="DIR", help="data root, or the data set's own folder")
    add_selection(pack)
    pack.add_argument(
        "--size", type=int, default=416, metavar="S", help="side of the network's frame (default: %(default)s)"
    )
    pack.add_argument(
        "--geometry",
        choices=("letterbox", "stretch"),
        default="letterbox",
        help="how the method places pictures: CRIS letterboxes, LAVT and DMMI stretch (default: %(default)s)",
    )
    pack.add_argument("--tokenizer", default="RN50", metavar="NAME", help="open_clip model (default: %(default)s)")
    pack.add_argument("--verify", action="store_true", help="compare every packed picture with its checksum")
    pack.set_defaults(run=run_pack)


def add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser("bench", help="measure what this machine can do")
    actions = bench.add_subparsers(dest="action", metavar="ACTION", required=True)
    data = actions.add_parser(
        "data",
        help="training samples a second, packed against decoded",
        description="Write real-sized JPEGs with annotations, load training batches from them with 0, 1, 2 ... workers, "
        "decoded and packed, and print samples a second and their ratio.",
        epilog="example: rislab bench data --size 416 --workers 0 1 2",
    )
    data.add_argument(
        "--size", type=int, default=416, metavar="S", help="side of the network's frame (default: %(default)s)"
    )
    data.add_argument(
        "--images", type=int, default=96, metavar="N", help="pictures of 640 x 480 (default: %(default)s)"
    )
    data.add_argument("--epochs", type=int, default=3, metavar="N", help="times each is read (default: %(default)s)")
    data.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    data.add_argument("--json", action="store_true", help="print JSON")
    data.set_defaults(run=run_bench)

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

    label_bench.add_parser(actions)


def run_pack(options: argparse.Namespace) -> int:
    from rich.progress import Progress

    from rislab.clip.tokens import Tokenizer
    from rislab.data import pack
    from rislab.data.locate import locate
    from rislab.errors import DataError

    place = locate(options.folder, options.dataset, options.split_by)
    refer = place.read()
    geometry = pack.geometry_of(options.geometry, options.size)
    tokenizer = Tokenizer(options.tokenizer)
    with Progress(transient=True) as bar:
        task = bar.add_task("packing", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        folder = pack.write(
            refer,
            place.dataset,
            place.split_by,
            geometry,
            tokenizer.kind,
            lambda text: tokenizer.ids(text).tolist(),
            show,
        )
        if options.verify:
            bar.update(task, description="verifying")
            made = pack.Pack.open(refer, place.dataset, place.split_by, geometry)
            wrong = made.verify(show) if made is not None else []
            if made is None or wrong:
                some = ", ".join(map(str, wrong[:5]))
                raise DataError(
                    f"{folder}: {len(wrong)} packed pictures are damaged ({some}); remove it and pack again"
                )
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {place.title}, {size / 2**20:.0f} MiB{', verified' if options.verify else ''}")
    if refer.left_out():
        print(f"rislab: {refer.left_out()}", file=sys.stderr)
    return 0


def run_bench(options: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.training.bench import Speed, measure

    console = Console(highlight=False)
    with Console(stderr=True).status("measuring"):
        found: list[Speed] = measure(options.size, options.images, options.epochs, options.workers)
    if options.json:
        print(json.dumps([speed.as_json() for speed in found], indent=1))
        return 0
    table = Table("workers", "decoded, samples/s", "packed, samples/s", "ratio", "ratio a worker", box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.justify = "right"
    for speed in found:
        per = max(1, speed.workers)
        table.add_row(
            str(speed.workers),
            f"{speed.decoded:.1f}",
            f"{speed.packed:.1f}",
            f"{speed.ratio:.2f}",
            f"{speed.packed / per:.0f} / {speed.decoded / per:.0f}",
        )
    console.print(
        f"{options.images} JPEGs of 640 x 480, {found[0].kilobytes:.0f} kB each, at {options.size} x {options.size}"
    )
    console.print(table)
    return 0


def run_step(options: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.training.inference import read_recipe
    from rislab.training.step_bench import StepCost, in_a_process_of_its_own

    recipe = read_recipe(options.config)
    counts = {"images": options.images, "queries": options.queries, "steps": options.steps}
    how = {"precision": options.precision, "compiled": options.compile}
    with Console(stderr=True).status("measuring"):
        found = {
            name: StepCost(
                **in_a_process_of_its_own(
                    "rislab.training.step_bench", recipe=recipe, all_trained=every, **counts, **how
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
