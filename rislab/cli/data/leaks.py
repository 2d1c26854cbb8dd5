"""`rislab data leaks`: what a training mixture shares with its evaluation splits."""

import argparse
import json

from rislab.cli.console import open_console
from rislab.messages import warn
from rislab.paths import user_path


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    leaks = actions.add_parser(
        "leaks",
        help="images, objects and sentences that training shares with evaluation",
        description="Compare training splits with evaluation splits, by COCO image, by annotated object, and by sentence about "
        "the same image. A split is DATASET:PARTITION:SPLIT.",
        epilog="example: rislab data leaks DATA --train refcoco:unc:train refcocog:umd:train --eval refcoco+:unc:testA",
    )
    leaks.add_argument("folder", type=user_path, metavar="DIR", help="data root")
    leaks.add_argument("--train", nargs="+", required=True, metavar="SPLIT")
    leaks.add_argument("--eval", nargs="+", required=True, metavar="SPLIT")
    leaks.add_argument("--strict", action="store_true", help="exit with 2 when anything is shared")
    leaks.add_argument("--json", action="store_true", help="print JSON")
    leaks.set_defaults(run=run_leaks)


def run_leaks(options: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    from rislab.data.leaks import leaks, part

    train, evaluation = ([part(options.folder, name) for name in names] for names in (options.train, options.eval))
    notes: list[str] = []
    found = leaks(train, evaluation, notes)
    for note in notes:
        warn(note)
    shares = any(leak.images or leak.objects or leak.sentences for leak in found)
    if options.json:
        print(json.dumps([leak.as_json() for leak in found], indent=1))
    else:
        table = Table("training", "evaluation", "images", "objects", "sentences", box=box.SIMPLE_HEAD)
        for column in table.columns[2:]:
            column.justify = "right"
        for leak in found:
            sizes = (len(leak.images), len(leak.objects), len(leak.sentences))
            cells = [f"{n} of {whole}" for n, whole in zip(sizes, leak.evaluated, strict=True)]
            table.add_row(leak.train, leak.evaluation, *cells, style="yellow" if any(sizes) else None)
        open_console().print(table)
    return 2 if options.strict and shares else 0
