"""`rislab ablate ACTION TABLE`: a paper's table from YAML to verdicts."""

import argparse
from pathlib import Path

from rislab.cli.ablate import browse, cancel, gc, plan, report, retry, run, status, sweep, verify
from rislab.cli.tables_option import add_tables_option
from rislab.paths import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("ablate", help="plan, run, watch and report a paper's ablation table")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("table", metavar="TABLE", help="a name (cris: ablations/cris.yaml) or a file")
    add_tables_option(common)
    common.add_argument("--profile", help="scale of the table (default: its first)")
    common.add_argument("--data", metavar="DIR", help="where the data set lies")
    common.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)"
    )
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--seeds", metavar="N|A,B", help="how many seeds, or which (default: the table's)")
    choice.add_argument("--rows", metavar="A,B", help="only these rows")

    def action(name: str, text: str, example: str, chooses: bool = True) -> argparse.ArgumentParser:
        parents = [common, choice] if chooses else [common]
        return actions.add_parser(
            name, parents=parents, help=text, description=text, epilog=f"example: rislab ablate {name} {example}"
        )

    for module in (plan, run, status, report, browse, verify, retry, cancel, sweep):
        module.add(action)
    gc.add(actions)
