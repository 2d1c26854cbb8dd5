"""The surface is frozen: commands, options, metrics, method switches and the table's schema change only on purpose.

After a change that is meant: `UPDATE_SURFACE=1 .venv/bin/pytest -n 0 tests/test_surface.py`, and the diff is part of the review.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rislab.ablation import signature, table
from rislab.cli.main import parser
from tests.worlds import ROOT

FILE = Path(__file__).parent / "surface.json"


def commands(root: argparse.ArgumentParser, prefix: str = "rislab") -> dict[str, list[str]]:
    found = {}
    options = []
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found |= commands(inner, f"{prefix} {name}")
        elif not isinstance(action, argparse._HelpAction):
            options.append("/".join(action.option_strings) or action.metavar or action.dest)
    return {prefix: sorted(options)} | found


def options_of(class_path: str) -> dict[str, str]:
    read = signature.read(class_path).options.values()
    return {o.name: f"{o.annotation} = {'required' if o.default is signature.REQUIRED else o.default!r}" for o in read}


def surface() -> dict[str, Any]:
    return {
        "commands": commands(parser()),
        "metrics": list(table.METRICS),
        "methods": {name: options_of(class_path) for name, class_path in signature.methods().items()},
        "data": options_of("rislab.datamodules.referring.ReferringData"),
        "world": options_of("rislab.data.toy.world.ToyWorld"),
        "trial": options_of("rislab.training.cli.TrialOptions"),
        "table": table.SCHEMA,
    }


def test_the_surface_has_not_moved_unnoticed() -> None:
    now = json.loads(json.dumps(surface()))
    if os.environ.get("UPDATE_SURFACE"):
        FILE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    assert now == json.loads(FILE.read_text())


def test_every_command_shows_an_example() -> None:
    def walk(root: argparse.ArgumentParser) -> None:
        inner = [a for a in root._actions if isinstance(a, argparse._SubParsersAction)]
        for action in inner:
            for name, command in action.choices.items():
                if command.add_help:  # the training commands print LightningCLI's own help
                    walk(command)
                assert not command.add_help or command._subparsers or "example:" in (command.epilog or ""), name

    walk(parser())


def test_the_schema_for_editors_is_the_one_that_is_checked() -> None:
    shipped = json.loads((ROOT / "ablations" / "schema.json").read_text())
    assert shipped == json.loads(json.dumps(table.SCHEMA))
