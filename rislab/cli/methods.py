"""`rislab methods [NAME]`: what can be trained and scored here, with which switches, and how large it is."""

import argparse
import ast
import json
from typing import Any

from rislab.errors import ConfigError, nearest, one_line
from rislab.messages import warn


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "methods",
        help="list methods, or one method's switches, tables and sizes",
        description="Without NAME: every method, the tables that it can run and its stages. With NAME: every option with type, "
        "default and the tables that switch it, and the parameters of its recipes, all and trained.",
        epilog="example: rislab methods risclip",
    )
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.ablation import plugins, signature

    known = signature.methods()
    if options.name is None:
        found: Any = [_summary(name, class_path) for name, class_path in known.items()]
        print(json.dumps(found, indent=1)) if options.json else _show_all(found)
        for entry in plugins.broken():
            warn(f"{entry.group} {entry.name} of {entry.distribution} is not used: {entry.fault}")
        _name_broken_tables()
        return 0
    if options.name not in known:
        raise ConfigError(f"no method {options.name!r}{nearest(options.name, known)}; methods are {', '.join(known)}")
    found = _summary(options.name, known[options.name]) | _details(options.name, known[options.name])
    print(json.dumps(found, indent=1)) if options.json else _show_one(found)
    _name_broken_tables()
    return 0


def _name_broken_tables() -> None:
    """One that cannot be read hides no method: what it switches is not shown, and it is named."""
    from rislab.ablation import lookup, table

    for path in lookup.every_table().values():
        try:
            table.load(path)
        except ConfigError as error:
            warn(f"{path} is left out: {one_line(error)}")


def _summary(name: str, class_path: str) -> dict[str, Any]:
    from rislab.ablation import lookup, plugins, signature
    from rislab.report.reference_pages import switched

    module = class_path.rpartition(".")[0]
    file = plugins.source_of(f"{module.rpartition('.')[0]}.model") or signature.source_file(module)
    head = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0]
    return {
        "name": name,
        "class_path": class_path,
        "about": " ".join(head.split()),
        "stages": list(signature.read(class_path).stages),
        "tables": sorted({name for name, _, _ in switched(class_path)}),
        "experiments": list(lookup.files(f"experiments/{name}/*.yaml")),
    }


def _details(name: str, class_path: str) -> dict[str, Any]:
    from rislab.ablation import signature
    from rislab.report.reference_pages import switched

    tables = switched(class_path)
    options = [
        {
            "name": option.name,
            "type": option.annotation,
            "default": None if option.default is signature.REQUIRED else option.default,
            "required": option.default is signature.REQUIRED,
            "tables": sorted({table for table, _, key in tables if key == option.name}),
        }
        for option in signature.read(class_path).options.values()
    ]
    module, _, short = class_path.rpartition(".")
    tree = ast.parse(signature.source_file(module).read_text())
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == short)
    return {"options": options, "documentation": ast.get_docstring(node) or "", "parameters": _sizes(name, class_path)}


def _sizes(name: str, class_path: str) -> dict[str, dict[str, Any]]:
    """Parameters of each recipe and stage, all and trained, or why they are unknown; nothing is downloaded and no memory
    taken: shapes alone."""
    import torch
    import yaml

    from rislab.ablation import lookup, signature
    from rislab.bench.random_weights import with_random_weights
    from rislab.encoders.weight_sources import without_network
    from rislab.training.cli import quiet

    quiet()
    found: dict[str, dict[str, Any]] = {}
    for path in lookup.files(f"experiments/{name}/*.yaml").values():
        recipe = (yaml.safe_load(path.read_text()) or {}).get("model") or {}
        if recipe.get("class_path") != class_path:
            continue  # what a stage puts over a recipe
        for stage in signature.read(class_path).stages or ("",):
            options = recipe["init_args"] | ({"stage": stage} if stage else {})
            title = f"{path.stem} {stage}".strip()
            try:
                with torch.device("meta"), without_network():
                    model = with_random_weights({**recipe, "init_args": options})
            except ConfigError as error:  # a file that the recipe names and that is not on this machine
                found[title] = {"unknown": one_line(error)}
                continue
            sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
            total, trained = sum(n for n, _ in sizes), sum(n for n, on in sizes if on)
            found[title] = {"total": total, "trained": trained}
    return found


def _show_all(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "paper", "stages", "tables", box=box.SIMPLE_HEAD)
    for one in found:
        table.add_row(one["name"], one["about"], " -> ".join(one["stages"]), ", ".join(one["tables"]))
    Console(highlight=False).print(table)


def _show_one(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{found['name']}[/bold]  {found['about']}", soft_wrap=True)
    console.print(f"\n{found['documentation']}\n", markup=False, soft_wrap=True)
    table = Table("option", "type", "default", "switched in", box=box.SIMPLE_HEAD)
    for option in found["options"]:
        default = "required" if option["required"] else str(option["default"])
        table.add_row(option["name"], option["type"].replace("[", r"\["), default, ", ".join(option["tables"]))
    console.print(table)
    sizes = Table("recipe", "parameters, millions", "trained", box=box.SIMPLE_HEAD)
    for column in sizes.columns[1:]:
        column.justify = "right"
    unknown: dict[str, list[str]] = {}
    for recipe, size in found["parameters"].items():
        if "unknown" in size:
            unknown.setdefault(size["unknown"], []).append(recipe)
        else:
            sizes.add_row(recipe, f"{size['total'] / 1e6:.2f}", f"{size['trained'] / 1e6:.2f}")
    console.print(sizes)
    for reason, recipes in unknown.items():
        console.print(f"not counted: {', '.join(recipes)}: {reason}", markup=False, soft_wrap=True)
