"""`rislab bench ACTION`: what this machine can do."""

import argparse

from rislab.cli.bench import cost, data, grouping, labels, method, names, page, savings, step, weak


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("bench", help="measure what this machine can do")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for module in (data, step, page, method, labels, names, grouping, savings, weak, cost):
        module.add_parser(actions)
