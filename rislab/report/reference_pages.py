"""Pages of the documentation site that are made from the source: a method's, the commands', the table schema's (no torch)."""

import argparse
import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rislab.ablation import lookup, plan, plugins, signature, stages, switches, table
from rislab.errors import ConfigError
from rislab.report.markdown import md_escape, md_row

Switched = list[tuple[str, str, str]]
"""(table, row, option)."""


def method_page(name: str, class_path: str, experiments: Path) -> str:
    """What a method is, its differences from paper and code, official weights, options, recipes, tables.

    Args:
        name: `cris`.
        class_path: Of its task.
        experiments: The folder with a folder of recipes a method.
    """
    module, _, short = class_path.rpartition(".")
    package = module.rpartition(".")[0]
    task = ast.parse(signature.source_file(module).read_text())
    node = next(node for node in task.body if isinstance(node, ast.ClassDef) and node.name == short)
    title, _, about = _docstring(f"{package}.model").partition("\n\n")
    summary, meanings = described(ast.get_docstring(node) or "")
    parts = [f"# {name}", " ".join(title.split()), as_markdown(about)]
    how = ast.get_docstring(task)
    parts += ["## Training", *([as_markdown(how)] if how else []), as_markdown(summary), *_facts(class_path)]
    parts += ["## Official weights", as_markdown(_docstring(f"{package}.official"))]
    parts += ["## Options", _options(class_path, meanings)]
    recipes = sorted(experiments.glob(f"{name}/*.yaml"))
    if recipes:
        parts += ["## Recipes", "\n\n".join(f"**{path.stem}**. {_head(path)}" for path in recipes)]
    found = tables_of(class_path)
    if found:
        parts += ["## Tables", "\n".join(f"- `rislab ablate run {stem}`: {title}" for stem, title in found.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def commands_page(parser: argparse.ArgumentParser) -> str:
    """The help of every command, in the order in which `--help` lists them."""
    return "# Commands\n\n" + "\n\n".join(_command(parser, parser.prog, 1)) + "\n"


def schema_page(schema: Mapping[str, Any]) -> str:
    """Every key of a table's YAML file, with what it takes and means."""
    rows = [md_row(["key", "takes", "meaning"]), "|---|---|---|"]
    rows += [md_row([f"`{key}`", md_escape(takes), md_escape(meaning)]) for key, takes, meaning in _keys(schema, "")]
    head = "Keys of `ablations/NAME.yaml`. `ablations/schema.json` is the same as JSON Schema, which editors read."
    return f"# Table schema\n\n{head}\n\n" + "\n".join(rows) + "\n"


def api_page(names: Sequence[str], modules: Sequence[Path]) -> str:
    """Signature and docstring of each public name, and of the public methods of classes.

    Args:
        names: Of functions and classes; those that no module defines are left out.
        modules: Files that define them.
    """
    nodes = {
        node.name: node
        for path in modules
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    parts = ["# Python interface", "`import rislab` gives these names; no others are public."]
    for name in sorted(nodes.keys() & set(names), key=lambda name: (name[0].isupper(), name)):
        parts += list(_documented(nodes[name], f"rislab.{name}", 2))
    return "\n\n".join(parts) + "\n"


def switched(class_path: str) -> Switched:
    """Options that tables switch, of every table whose first profile runs this method in any stage."""
    found: Switched = []
    for path in lookup.every_table().values():
        try:
            loaded = table.load(path)
        except ConfigError:
            continue  # `rislab methods` names it
        first = next(iter(loaded.profiles.values()))
        for stage in first.stages or stages.ONLY:
            config = plan.merged(first, stage)
            if config["model"]["class_path"] == class_path:
                found += [
                    (path.stem, row.name, key.removeprefix("model.init_args."))
                    for row in loaded.rows
                    for key in switches.of_stage(row.switches, stage.name, config)
                    if key.startswith("model.init_args.")
                ]
    return found


def tables_of(class_path: str) -> dict[str, str]:
    """Titles of the tables that run a method, by file name."""
    names = {name for name, _, _ in switched(class_path)}
    return {path.stem: table.load(path).title for path in lookup.every_table().values() if path.stem in names}


def described(docstring: str) -> tuple[str, dict[str, str]]:
    """Text of a Google-style docstring before its sections, and what its `Args` say of each name."""
    sections = _sections(docstring)
    return sections[""], _meanings(sections.get("Args", ""))


def _sections(docstring: str) -> dict[str, str]:
    """The parts of a Google-style docstring by their title, without their indent; what comes first is ""."""
    parts = re.split(r"(?m)^(Args|Attributes|Returns|Raises|Yields):\n", docstring)
    found = {"": parts[0].strip()}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = re.sub(r"(?m)^ {4}", "", text).rstrip()
    return found


def _meanings(section: str) -> dict[str, str]:
    """`name: what it is` by name; a line may describe several names, and what it says may take several lines."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        head = re.match(r"([A-Za-z_]\w*(?:, [a-z_]\w*)*): (.*)", line)
        if head:
            names = head[1].split(", ")
            meanings |= dict.fromkeys(names, head[2])
        else:
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings


def as_markdown(text: str) -> str:
    """A docstring's paragraphs and lists: markdown wants an empty line before a list and after it."""
    text = re.sub(r"(?m)^(?!- |  )(.+)\n- ", r"\1\n\n- ", text.strip())
    return re.sub(r"(?m)^(- .*(?:\n  .*)*)\n(?!- |  |\n)", r"\1\n\n", text)


def _docstring(module: str) -> str:
    file = plugins.source_of(module) or signature.source_file(module)
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def _facts(class_path: str) -> Iterator[str]:
    read = signature.read(class_path)
    if read.stages:
        yield f"Stages: {' → '.join(read.stages)}."


def _options(class_path: str, meanings: Mapping[str, str]) -> str:
    by_option: dict[str, set[str]] = {}
    for name, _, key in switched(class_path):
        by_option.setdefault(key, set()).add(name)
    rows = [md_row(["option", "type", "default", "meaning", "switched in"]), "|---|---|---|---|---|"]
    for option in signature.read(class_path).options.values():
        default = "required" if option.default is signature.REQUIRED else f"`{option.default}`"
        meaning = meanings.get(option.name, "").replace("<", "&lt;")
        names = ", ".join(sorted(by_option.get(option.name, ())))
        rows.append(md_row([f"`{option.name}`", f"`{option.annotation}`", default, meaning, names]))
    return "\n".join(rows)


def _head(path: Path) -> str:
    """The comment at the head of a config."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return md_escape(" ".join(lines))


def _documented(node: ast.ClassDef | ast.FunctionDef, title: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {title}"
    if isinstance(node, ast.FunctionDef) and not _has(node, "property"):
        result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
        yield f"```python\n{node.name}({ast.unparse(node.args)}){result}\n```"
    sections = _sections(ast.get_docstring(node) or "")
    yield as_markdown(sections[""])
    for section in ("Args", "Attributes", "Raises"):
        rows = [f"- `{name}`: {meaning}" for name, meaning in _meanings(sections.get(section, "")).items()]
        if rows:
            yield f"**{'Arguments' if section == 'Args' else section}**\n\n" + "\n".join(rows)
    if "Returns" in sections:
        yield f"**Returns**\n\n{sections['Returns']}"
    for inner in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not _has(inner, "overload"):
            yield from _documented(inner, inner.name, level + 1)


def _has(node: ast.FunctionDef, decorator: str) -> bool:
    return any(ast.unparse(each) == decorator for each in node.decorator_list)


def _command(parser: argparse.ArgumentParser, prog: str, level: int) -> Iterator[str]:
    if level > 1:
        yield f"{'#' * min(level, 4)} {prog}"
        yield "```text\n" + re.sub(r"(?m)[ \t]+$", "", parser.format_help()).strip() + "\n```"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _command(inner, f"{prog} {name}", level + 1)


def _keys(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        key = f"{prefix}{name}"
        yield key, _takes(inner), ("required. " if name in required else "") + str(inner.get("description", ""))
        yield from _keys(inner, f"{key}.")
        for part, mark in (("additionalProperties", ".NAME."), ("items", "[].")):
            if isinstance(inner.get(part), Mapping):
                yield from _keys(inner[part], f"{key}{mark}")


def _takes(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
