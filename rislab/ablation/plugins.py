"""Methods, data modules and tables of installed packages, found by their entry points. Nothing of theirs is imported here.

    [project.entry-points."rislab.methods"]
    probe = "my_package.task:ProbeTask"

    [project.entry-points."rislab.datasets"]
    MyData = "my_package.data:MyData"

    [project.entry-points."rislab.tables"]
    probe = "my_package"                       # the file probe.yaml beside my_package/__init__.py

A name of ours wins over one of a package. An entry that cannot be read is listed as broken, and the others work.
"""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

METHODS, DATASETS, TABLES = "rislab.methods", "rislab.datasets", "rislab.tables"


@dataclass(frozen=True)
class Entry:
    """One entry point.

    Attributes:
        group: `rislab.methods`, `rislab.datasets` or `rislab.tables`.
        name: what a command line calls it.
        value: class path with a dot before the class, or the file of a table.
        distribution: name and version of the package that brings it.
        fault: why it cannot be used; "" for a sound one.
    """

    group: str
    name: str
    value: str
    distribution: str
    fault: str = ""


@cache
def entries(group: str) -> tuple[Entry, ...]:
    """The entry points of a group, sorted by name; the broken ones, too."""
    found = importlib.metadata.entry_points(group=group)
    return tuple(sorted((_entry(point) for point in found), key=lambda entry: (entry.name, entry.value)))


def _entry(point: importlib.metadata.EntryPoint) -> Entry:
    dist = point.dist
    distribution = f"{dist.name}=={dist.version}" if dist is not None else ""
    module, _, attribute = point.value.partition(":")
    module, attribute = module.strip(), attribute.partition("[")[0].strip()
    if point.group == TABLES:
        value, fault = _table(module, point.name)
    else:
        value, fault = f"{module}.{attribute}", _class_fault(module, attribute)
    return Entry(point.group, point.name, value, distribution, fault)


def _table(module: str, name: str) -> tuple[str, str]:
    """(file, fault) of a table beside a package's `__init__.py`."""
    source = source_of(module)
    path = source.parent / f"{name}.yaml" if source is not None else Path(f"{module}/{name}.yaml")
    return str(path), "" if path.is_file() else f"there is no {path}"


def _class_fault(module: str, name: str) -> str:
    source = source_of(module)
    if source is None:
        return f"there is no module {module}"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return f"{source} cannot be read: {error}"
    is_there = any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)
    return "" if is_there else f"{source} has no class {name!r}"


def source_of(module: str) -> Path | None:
    """The source file of a module, found by its package's path: nothing is imported. None where there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not rest:
        found = [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
    else:
        bases = [folder.joinpath(*rest) for folder in folders]
        found = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    return next((file for file in found if file.is_file()), None)


def sound(group: str, ours: Iterable[str] = ()) -> dict[str, str]:
    """Value by name of a group's entries that can be used and whose names are not ours."""
    taken = set(ours)
    return {entry.name: entry.value for entry in entries(group) if not entry.fault and entry.name not in taken}


def broken() -> list[Entry]:
    """Entries that cannot be used, of all groups."""
    return [entry for group in (METHODS, DATASETS, TABLES) for entry in entries(group) if entry.fault]


@cache
def packages() -> frozenset[str]:
    """Top-level names of packages that bring methods or data modules: their classes are read, and hashed, as ours are."""
    return frozenset(entry.value.partition(".")[0] for group in (METHODS, DATASETS) for entry in entries(group))


def distributions() -> list[str]:
    """Names of the installed packages that bring methods or data modules."""
    every = [entry for group in (METHODS, DATASETS) for entry in entries(group)]
    return sorted({entry.distribution.partition("==")[0] for entry in every if entry.distribution})
