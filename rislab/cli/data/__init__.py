"""`rislab data ACTION`: import, check, compare, draw, pack and export data sets, write the toy world."""

import argparse

from rislab.cli.data import check, clip, export, import_set, leaks, pack, show, toy


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "data", help="import your own pictures; check, compare and draw data sets; write the toy world"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for module in (import_set, export, check, leaks, show, pack, toy, clip):
        module.add_parser(actions)
