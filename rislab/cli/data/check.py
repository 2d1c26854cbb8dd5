"""`rislab data check`: what a data folder holds, what is missing, and what is wrong with it."""

import argparse
from typing import TYPE_CHECKING

from rislab.cli.console import open_console
from rislab.files import json_text
from rislab.messages import progress
from rislab.paths import user_path

if TYPE_CHECKING:
    from rich.console import Console

    from rislab.data.check.benchmarks import TreeCheck
    from rislab.data.check.referring import Check, SetCheck
    from rislab.data.check.report import PictureCheck
    from rislab.data.check.shards import ShardCheck


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = actions.add_parser(
        "check",
        help="what a data folder holds, what is missing, what is wrong",
        description="Count every split of every data set and benchmark in DIR, compare with the published counts, decode every "
        "picture and label map, and list the faults of the annotation files; read every image-text shard's headers and "
        "decode a thousand pairs of each folder of shards. Nothing is changed.",
        epilog="example: rislab data check DATA --json > check.json",
    )
    check.add_argument("folder", type=user_path, metavar="DIR", help="data root, or one data set's own folder")
    check.add_argument("--no-pictures", action="store_true", help="do not decode the pictures, which takes minutes")
    check.add_argument("--strict", action="store_true", help="exit with 2 when anything is wrong or missing")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    from rislab.data.check.referring import check

    with progress("pictures") as show:
        found = check(options.folder, not options.no_pictures, show)
    if options.json:
        print(json_text(found.as_json()), end="")
    else:
        _show_check(found)
    return 2 if options.strict and not found.is_sound else 0


def _show_check(found: "Check") -> None:
    from rich.markup import escape

    console = open_console()
    for one in found.data_sets:
        _show_set(one)
    for tree in found.benchmarks:
        _show_tree(console, tree)
    for folder in found.shards:
        _show_shards(console, folder)
    for absent in found.absent:
        console.print(f"\n[dim]{absent['title']} is not there. Needed:[/dim]")
        for file in absent["files"]:
            console.print(f"  {escape(file)}", soft_wrap=True)
        places = "; ".join(f"{what}: {where}" for what, where in absent["get"].items())
        console.print(f"  {escape(places)}", soft_wrap=True)


def _show_set(one: "SetCheck") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    names = ("split", "images", "references", "expressions", "no target", "no pixel", "published")
    table = Table(*names, box=box.SIMPLE_HEAD)
    for column in table.columns[1:6]:
        column.justify = "right"
    for name, split in one.splits.items():
        published = "[yellow]differs[/yellow]" if split.deviates else "agrees" if split.published else ""
        numbers = (split.images, split.references, split.expressions, split.zero_target, split.zero_area)
        table.add_row(name, *map(str, numbers), published)
    console.print(f"\n[bold]{one.title}[/bold]  {escape(one.references_file)}", soft_wrap=True)
    console.print(table)
    for name, split in one.splits.items():
        if split.deviates:
            console.print(f"[yellow]{name}: {split.deviates}[/yellow]", soft_wrap=True)
    _show_missing_splits(console, one)
    _show_pictures(console, one.pictures)
    _show_faults(console, one)


def _show_tree(console: "Console", one: "TreeCheck") -> None:
    from rich.markup import escape

    console.print(f"\n[bold]{one.title}[/bold]  {escape(one.folder)}", soft_wrap=True)
    for name, split in one.splits.items():
        agrees = ", as published" if split.published is not None else ""
        said = f"[yellow]{split.deviates}[/yellow]" if split.deviates else f"{split.images} pictures{agrees}"
        console.print(f"{name}: {said}", soft_wrap=True)
    _show_missing_splits(console, one)
    _show_pictures(console, one.pictures)
    _show_faults(console, one)


def _show_shards(console: "Console", one: "ShardCheck") -> None:
    from rich.markup import escape

    console.print(f"\n[bold]image-text shards[/bold]  {escape(one.folder)}", soft_wrap=True)
    console.print(f"{one.pairs} pairs in {one.shards} shards")
    if one.missing:
        some = ", ".join(map(str, one.missing[:10])) + (", ..." if len(one.missing) > 10 else "")
        console.print(f"[yellow]{len(one.missing)} numbers have no shard: {some}[/yellow]")
    for reason, count in one.skipped.items():
        console.print(f"[red]{count} x {reason}, by the headers[/red]")
    for reason, count in one.unreadable.items():
        console.print(f"[red]{count} x {reason}, of {one.decoded} pairs decoded[/red]")
    for example in one.examples:
        console.print(f"  {escape(example)}", soft_wrap=True)
    if one.decoded and not one.unreadable:
        console.print(f"{one.decoded} pairs were decoded, all are whole")


def _show_missing_splits(console: "Console", one: "SetCheck | TreeCheck") -> None:
    if one.missing_splits:
        console.print(f"[yellow]splits of the release that are missing: {', '.join(one.missing_splits)}[/yellow]")


def _show_pictures(console: "Console", pictures: "PictureCheck") -> None:
    from rich.markup import escape

    if pictures.missing or pictures.unreadable:
        unread = f", {pictures.unreadable} unreadable" if pictures.unreadable else ""
        console.print(f"[yellow]of {pictures.expected} pictures {pictures.missing} are missing{unread}[/yellow]")
        for example in pictures.examples:
            console.print(f"  {escape(example)}", soft_wrap=True)
    else:
        state = "there and whole" if pictures.unreadable is not None else "there"
        console.print(f"all {pictures.expected} pictures are {state}")


def _show_faults(console: "Console", one: "SetCheck | TreeCheck") -> None:
    from rich.markup import escape

    for fault in one.faults:
        console.print(f"[red]{fault.count} x {fault.kind}[/red]")
        for example in fault.examples:
            console.print(f"  {escape(example)}", soft_wrap=True)
    for note, number in one.notes.items():
        console.print(f"[dim]{number} {note}[/dim]")
