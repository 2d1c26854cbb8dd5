"""The surface is frozen: commands, options, metrics, method switches and the table's schema change only on purpose.

After a change that is meant: `UPDATE_SURFACE=1 .venv/bin/pytest -n 0 tests/test_surface.py`, and the diff is part of the review.
"""

import argparse
import dataclasses
import inspect
import json
import os
from pathlib import Path
from typing import Any

import rislab
from rislab.ablation import signature, table
from rislab.cli.main import parser
from tests.worlds import ROOT

FOLDER = Path(__file__).parent / "surface"


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


def api() -> dict[str, Any]:
    """What `rislab` exports: functions with their parameters, classes with their methods and attributes."""
    return {name: described(getattr(rislab, name)) for name in rislab.__all__ if name != "__version__"}


def described(value: Any) -> Any:
    if not inspect.isclass(value):
        return parameters(value)
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    names = [name for name in [*fields, *vars(value)] if not name.startswith("_")]
    members = {name: inspect.getattr_static(value, name, None) for name in names}
    return {name: parameters(member) if inspect.isfunction(member) else "" for name, member in members.items()}


def parameters(function: Any) -> list[str]:
    """`*` stands before those that are given by name alone."""
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        found.append(f"{parameter.name}{default}")
    return found


def surface() -> dict[str, Any]:
    """By file: what is common, and a file for each method and each data module."""
    common = {
        "api": api(),
        "commands": commands(parser()),
        "metrics": list(table.METRICS),
        "world": options_of("rislab.data.toy.world.ToyWorld"),
        "trial": options_of("rislab.training.cli.TrialOptions"),
        "table": table.SCHEMA,
    }
    methods = {f"methods/{name}": options_of(class_path) for name, class_path in signature.methods().items()}
    data = {f"data/{name}": options_of(class_path) for name, class_path in signature.data_modules().items()}
    return common | methods | data


def test_the_surface_has_not_moved_unnoticed() -> None:
    now = {name: json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in surface().items()}
    there = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.rglob("*.json")}
    if os.environ.get("UPDATE_SURFACE"):
        for name in there.keys() - now.keys():
            there[name].unlink()
        for name, text in now.items():
            (FOLDER / f"{name}.json").parent.mkdir(parents=True, exist_ok=True)
            (FOLDER / f"{name}.json").write_text(text)
        there = {name: FOLDER / f"{name}.json" for name in now}
    assert there.keys() == now.keys()
    for name, text in now.items():
        assert json.loads(text) == json.loads(there[name].read_text()), name


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
