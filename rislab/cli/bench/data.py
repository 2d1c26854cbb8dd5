"""`rislab bench data`: training samples a second, decoded from files and read from a pack."""

import argparse
import json


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def run_bench(options: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rislab.bench.loading import Speed, measure

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
