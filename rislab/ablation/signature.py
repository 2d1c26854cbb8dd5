"""Constructors read from their source: options, types, defaults. Nothing is imported, so planning needs no torch.

This is possible because constructors here are flat, typed and have literal defaults; a class that breaks the habit is named.
"""

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rislab.errors import ConfigError, nearest

REQUIRED = object()
PACKAGE = "rislab."


@dataclass(frozen=True)
class Option:
    """One constructor argument: its annotation as written, its default (or REQUIRED), its literal choices if any."""

    name: str
    annotation: str
    default: Any
    choices: tuple[Any, ...] | None


@dataclass(frozen=True)
class Signature:
    """absent_means: values that an option has in configs written before it existed; see `identity`."""

    class_path: str
    options: dict[str, Option]
    absent_means: dict[str, Any] = field(default_factory=dict)


def source_file(module: str) -> Path:
    """File of one of our modules. Raises ConfigError when there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(f"no module {module}")
    return Path(spec.origin)


@cache
def read(class_path: str) -> Signature:
    """Signature of `package.module.Class`, one of ours. Raises ConfigError for an unknown module or class."""
    module, _, name = class_path.rpartition(".")
    tree = ast.parse(source_file(module).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ConfigError(f"{module} has no class {name!r}{nearest(name, classes)}")
    node = classes[name]
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    options = _from_init(init, class_path) if init is not None else _from_fields(node, class_path)
    return Signature(class_path, options, _absent_means(node))


def constant(module: str, name: str) -> Any:
    """A literal that a module of ours assigns at its top level. Raises ConfigError when there is none."""
    for node in ast.parse(source_file(module).read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return _literal(node.value, f"{module}.{name}")
    raise ConfigError(f"{module} assigns no {name}")


def _from_init(init: ast.FunctionDef, class_path: str) -> dict[str, Option]:
    arguments = init.args
    names = [a for a in (*arguments.posonlyargs, *arguments.args) if a.arg != "self"]
    missing = len(names) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(arguments.defaults)
    pairs = [*zip(names, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {a.arg: _option(a.arg, a.annotation, default, class_path) for a, default in pairs}


def _from_fields(node: ast.ClassDef, class_path: str) -> dict[str, Option]:
    """Fields of a dataclass."""
    return {
        item.target.id: _option(item.target.id, item.annotation, item.value, class_path)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    }


def _option(name: str, annotation: ast.expr | None, default: ast.expr | None, class_path: str) -> Option:
    value = REQUIRED if default is None else _literal(default, f"{class_path}: default of {name}")
    return Option(name, ast.unparse(annotation) if annotation else "Any", value, _choices(annotation))


def _literal(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Attribute):
        return node.attr  # an enum's member goes by its name in a config
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ConfigError(f"{where} is not a literal: {ast.unparse(node)}") from None
    return list(value) if isinstance(value, tuple) else value


def _choices(annotation: ast.expr | None) -> tuple[Any, ...] | None:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        inner = annotation.slice
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return tuple(ast.literal_eval(item) for item in items)
    return None


def _absent_means(node: ast.ClassDef) -> dict[str, Any]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == "absent_means":
            return dict(ast.literal_eval(item.value)) if item.value else {}
    return {}


def check(class_path: str, name: str, value: Any) -> str | None:
    """What is wrong with giving `value` to an option of a class, or None."""
    signature = read(class_path)
    short = class_path.rpartition(".")[2]
    option = signature.options.get(name)
    if option is None:
        return f"{name} is no option of {short}{nearest(name, signature.options)}"
    if option.choices is not None and not any(value == c and type(value) is type(c) for c in option.choices):
        return f"{name} is {value!r}, {short} takes one of {', '.join(map(repr, option.choices))}"
    plain: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
    wanted = plain.get(option.annotation)
    if wanted is not None and (not isinstance(value, wanted) or (bool not in wanted and isinstance(value, bool))):
        return f"{name} is {value!r}, {short} takes {option.annotation}"
    return None
