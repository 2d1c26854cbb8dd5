"""Modules and options that have moved: configs and identities written before still mean the same."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from rislab.errors import ConfigError

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
"""Options of data that are the model's today, since what training does with a picture is the method's.

A config of before that gives one is read as one of today; identities keep it where it was first.
"""


def moved_option(class_path: str, name: str) -> str:
    """Where an option of a class is given today, as the end of a message; "" for one that has not moved."""
    where = _moved_from(class_path).get(name)
    return f"; it is {where} now" if where else ""


def with_options_moved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, whole or a part that is laid over others, with every option where it is given today.

    Args:
        config: What a YAML file or a trial's config.yaml holds. It is not changed.

    Raises:
        ConfigError: An option is given in both places, with different values.
    """
    found: dict[str, Any] = dict(config)
    moved = _moved_from(_class_path(found.get("data")))
    given = _options(found.get("data"))
    for name in moved.keys() & given.keys():
        part, _, option = moved[name].partition(".init_args.")
        if not isinstance(found.get(part, {}), Mapping):
            continue
        value, options = given.pop(name), _options(found.get(part))
        if options.setdefault(option, value) != value:
            raise ConfigError(
                f"data.init_args.{name} is {value!r} and {moved[name]} is {options[option]!r}: one option, give the latter"
            )
        found[part] = {**found.get(part, {}), "init_args": options}
        found["data"] = {**found["data"], "init_args": given}
    return found


def move_options_back(hashed: dict[str, Any]) -> None:
    """Put options where they were first, in a config that is about to be hashed: a move changes no hash."""
    data = hashed.get("data")
    for name, where in _moved_from(_class_path(data)).items():
        part, _, option = where.partition(".init_args.")
        options = hashed.get(part, {}).get("init_args", {}) if isinstance(hashed.get(part), dict) else {}
        if isinstance(data, dict) and option in options:
            data.setdefault("init_args", {})[name] = options.pop(option)


def moved_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys of a config whose values are hashed as options of its data, where they were first."""
    return tuple(_moved_from(_class_path(config.get("data"))).values())


def _moved_from(class_path: str) -> Mapping[str, str]:
    return MOVED_OPTIONS.get(current(class_path), {})


def _class_path(part: Any) -> str:
    return str(part.get("class_path", "")) if isinstance(part, Mapping) else ""


def _options(part: Any) -> dict[str, Any]:
    options = part.get("init_args") if isinstance(part, Mapping) else None
    return dict(options) if isinstance(options, Mapping) else {}


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
