"""`rislab data ACTION`: check, compare and draw data sets, pack them, write the toy world."""

import argparse

from rislab.cli.data import check, clip, leaks, pack, show, toy


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("data", help="check, compare and draw data sets; write the toy world")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for module in (check, leaks, show, pack, toy, clip):
        module.add_parser(actions)
