"""Which source files a trial's result can depend on: what its classes and its entry point import, followed without importing."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rislab.ablation.plugins import packages as packages_of_plugins
from rislab.ablation.plugins import source_of

ENTRY = ("rislab.training.trial", "rislab.training.cli")
"""What runs a trial, whatever its method."""


def sources(config: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of each file that a trial of this config can reach, by path from the folder that holds its package.

    Imports are followed within rislab and within the packages of the config's classes, from these classes and from `ENTRY`. A
    package that is imported as a value counts with all its modules, since they may be found by name. Data files in folders of
    reached packages count. Imports that only a type checker sees do not.
    """
    return _sources(tuple(sorted({*ENTRY, *(path.rpartition(".")[0] for path in _class_paths(config))})))


def changed(before: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """Files that differ from what a finished trial was made with."""
    now = sources(config)
    if before == now:
        return []
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _class_paths(value: Any) -> Iterator[str]:
    """Every class path in a config, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _class_paths(item)
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for item in value.values():
            yield from _class_paths(item)


@cache
def _sources(modules: tuple[str, ...]) -> dict[str, str]:
    packages = frozenset({"rislab", *packages_of_plugins()})
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in found or file is None or name.partition(".")[0] not in packages:
            continue
        found[name] = file
        waiting += _imports(name, file, packages)
        # Importing a module runs the packages that it lies in.
        waiting += [name.rpartition(".")[0]] if "." in name else []
    files = {*found.values(), *_data_files(found.values())}
    roots = {package: file.parents[1] for package in packages if (file := _file(package)) is not None}
    return dict(sorted((_relative(path, roots.values()), _digest(path)) for path in files))


@cache
def _file(module: str) -> Path | None:
    """The source file of a module; None for what is none. Parents are not run: the file is found by its path."""
    return source_of(module)


@cache
def _imports(module: str, file: Path, packages: frozenset[str]) -> tuple[str, ...]:
    """Modules of the packages that a module imports, anywhere in it."""
    found: set[str] = set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _nodes(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, (base if node.level else "", node.module)))
            found.add(origin)
            for value in (f"{origin}.{alias.name}" for alias in node.names):
                inner = _file(value) if value.partition(".")[0] in packages else None
                if inner is not None:
                    found.add(value)
                    if inner.name == "__init__.py":
                        found |= {f"{value}.{each.stem}" for each in inner.parent.glob("*.py")}
    return tuple(sorted(name for name in found if name.partition(".")[0] in packages))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def _data_files(modules: Iterable[Path]) -> Iterator[Path]:
    """Files that are no Python in folders, not packages themselves, beside reached modules."""
    for folder in {module.parent for module in modules}:
        for inner in folder.iterdir():
            if inner.is_dir() and inner.name != "__pycache__" and not (inner / "__init__.py").exists():
                yield from (path for path in inner.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _relative(path: Path, roots: Iterable[Path]) -> str:
    root = next(root for root in roots if path.is_relative_to(root))
    return path.relative_to(root).as_posix()


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
