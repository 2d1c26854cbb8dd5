"""Modules that have moved: configs and identities written before still mean the same."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType

MOVED = {
    "rislab.clip": "rislab.encoders.clip",
    "rislab.data.referring": "rislab.datamodules.referring",
    "rislab.data.semantic": "rislab.datamodules.semantic",
    "rislab.data.pairs": "rislab.datamodules.pairs",
}
"""New name of a package or module by its first name. An entry stays for as long as trials with the first name are of use."""


MOVED_OPTIONS = {
    "rislab.datamodules.pairs.PairsData": {"augment": "model.init_args.augment"},
    "rislab.datamodules.referring.ReferringData": {"flip": "model.init_args.flip"},
}
"""Options that a class had once, and where a config gives them today: what training does with a picture is the method's."""


def moved_option(class_path: str, name: str) -> str:
    """Where an option of a class is given today, as the end of a message; "" for one that has not moved."""
    where = MOVED_OPTIONS.get(current(class_path), {}).get(name)
    return f"; it is {where} now" if where else ""


def current(path: str) -> str:
    """The name that a dotted path has today."""
    return _renamed(path, MOVED.items())


def original(path: str) -> str:
    """The name that a dotted path had first, which identities are made of: a move changes no hash."""
    return _renamed(path, [(new, old) for old, new in MOVED.items()])


def _renamed(path: str, names: Iterable[tuple[str, str]]) -> str:
    for before, after in names:
        if path == before or path.startswith(f"{before}."):
            return f"{after}{path[len(before) :]}"
    return path


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a moved module under its first name, as a config may give it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if current(fullname) != fullname else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(current(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run under its new name, which importlib has just overwritten in its spec."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def register() -> None:
    """Make first names importable, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
