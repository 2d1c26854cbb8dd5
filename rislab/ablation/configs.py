"""Configs of a table's cells, and their hashes.

A table of thousands of cells has few different parts: a model for each row, data for each seed. Each is made once, and so
is its share of what is hashed.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rislab.ablation import identity, signature, switches
from rislab.ablation.stages import Stage
from rislab.ablation.switches import PARTS
from rislab.ablation.table import Profile, Row
from rislab.ablation.yaml_lines import overlay, read_yaml
from rislab.errors import ConfigError
from rislab.moved_names import moved_keys, with_options_moved
from rislab.paths import absolute

STAGE = "model.init_args.stage"
"""The option of a method that declares `stages`."""


def merged(profile: Profile, stage: Stage | None = None) -> dict[str, Any]:
    """The profile's config files, later ones over earlier ones, and those of a stage over them; by default of its first stage.

    Raises:
        ConfigError: No class of the model or of the data.
    """
    stage = stage or next(iter(profile.stages), Stage())
    config: dict[str, Any] = {}
    files = (*profile.config, *stage.config)
    for path in files:
        overlay(config, with_options_moved(read_yaml(path) or {}))
    for part in PARTS:
        if "class_path" not in config.get(part, {}):
            raise ConfigError(f"{', '.join(map(str, files))}: no {part}.class_path")
    return config


def put(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with a dotted key set; whatever is not on the way to it is shared with the one given."""
    first, _, rest = key.partition(".")
    return {**config, first: put(config.get(first, {}), rest, value) if rest else value}


def relocated(data: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The data part of a config with its files below another folder. Raises ConfigError for a class that does not say how."""
    class_path = data["class_path"]
    known = signature.read(class_path) if signature.is_described(class_path) else None
    if known is None or not known.root_option:
        raise ConfigError(
            f"{class_path} declares no root_option: it does not say where its files lie, and --data cannot"
        )
    before, place = identity.root_of(known, data.get("init_args", {})), str(root.absolute())
    options = data.get("init_args", {})
    *path, last = known.root_option.split(".")
    key = ""
    for name in path:
        inner = options.get(name, {})
        key += f"{name}.init_args." if "class_path" in inner else f"{name}."
        options = inner.get("init_args", inner)
    found = put(data, f"init_args.{key}{last}", place)
    for name in known.below_root:
        if name in found["init_args"]:
            found = put(found, f"init_args.{name}", identity.moved(found["init_args"][name], before, place))
    return found


def of_folder(data: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The data part of a config with what its folder says of itself, as an imported set says its name and its version.

    Args:
        data: the part, with its root where the files lie.
        folder: what `--data` names; None without it.
    """
    class_path = data["class_path"]
    function = signature.read(class_path).folder_options if signature.is_described(class_path) else ""
    if not function:
        return dict(data)
    module, _, name = function.rpartition(".")
    said = getattr(importlib.import_module(module), name)(data.get("init_args", {}), folder)
    return {**data, "init_args": {**data.get("init_args", {}), **said}} if said else dict(data)


def with_outputs(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config whose data read the outputs of an earlier stage from this folder."""
    return put(config, f"data.init_args.{signature.read(config['data']['class_path']).from_stage}", str(folder))


def seed_key(data: Mapping[str, Any]) -> str:
    """The dotted key of a config that seeds what the data draw; "" where nothing is drawn.

    Data that are not described take `seed`, as Lightning's examples do.
    """
    class_path = data["class_path"]
    name = signature.read(class_path).seed_option if signature.is_described(class_path) else "seed"
    return f"data.init_args.{name}" if name else ""


class Configs:
    """Configs of a profile's cells. They share their parts: nothing in one may be changed in place."""

    def __init__(self, profile: Profile, data: str | None) -> None:
        self.profile = profile
        self.data = absolute(data) if data is not None else None
        self._bases: dict[Stage, dict[str, Any]] = {}
        self._parts: dict[tuple[str, ...], tuple[Any, str | None]] = {}

    def base(self, stage: Stage | None = None) -> dict[str, Any]:
        """The config of a stage before any switch; by default of the first."""
        stage = stage or next(iter(self.profile.stages), Stage())
        if stage not in self._bases:
            base = merged(self.profile, stage)
            data = base["data"] if self.data is None else relocated(base["data"], self.data)
            self._bases[stage] = {**base, "data": of_folder(data, self.data)}
        return self._bases[stage]

    def cell(
        self, row: Row, seed: int, stage: Stage, parent: str | None, fold: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], str]:
        """(config, hash) of a row with a seed and a stage.

        Args:
            row: With the switches that it has in this profile.
            seed: Of everything that draws.
            stage: One of the row's.
            parent: Hash of what it starts from.
            fold: Switches of a fold, over the row's.
        """
        base = self.base(stage)
        changes = switches.of_stage({**row.switches, **(fold or {})}, stage.name, base)
        if stage.name in stages_of(base):
            changes[STAGE] = stage.name
        if key := seed_key(base["data"]):
            changes[key] = seed
        by_part: dict[str, dict[str, Any]] = {}
        for key, value in changes.items():
            by_part.setdefault(key.partition(".")[0], {})[key] = value
        config: dict[str, Any] = {}
        texts = {"parent": json.dumps(parent)} if parent is not None else {}
        if stage.takes == "outputs":
            texts[identity.TAKES] = json.dumps(stage.takes)
        moved = moved_keys(base)
        for name in {**base, **by_part}:
            here = by_part.get(name, {})
            if name == "data":
                here = here | {key: changes[key] for key in moved if key in changes}
            config[name], text = self._part(name, base, stage, here, moved)
            if text is not None:
                texts[name] = text
        config["seed_everything"], texts["seed_everything"] = seed, json.dumps(seed)
        # The canonical JSON of the whole, put together from that of its parts.
        whole = "{" + ",".join(f"{json.dumps(name)}:{texts[name]}" for name in sorted(texts)) + "}"
        return config, hashlib.sha256(whole.encode()).hexdigest()

    def _part(
        self, name: str, base: dict[str, Any], stage: Stage, changes: dict[str, Any], moved: tuple[str, ...]
    ) -> tuple[Any, str | None]:
        """A part of the config as it is written, and the canonical JSON of what of it is hashed, if anything is.

        Args:
            name: Of the part.
            base: The config before any switch.
            stage: Of the cell.
            changes: Dotted keys of the part, for data also those that are hashed with it, and their values.
            moved: Dotted keys that are hashed with the data and not where they stand.
        """
        key = (name, stage.name, stage.takes, repr(changes))
        if key not in self._parts:
            parts = dict.fromkeys([name, *(each.partition(".")[0] for each in moved if name == "data")])
            config = {part: base[part] for part in parts if part in base}
            for changed, value in changes.items():
                config = put(config, changed, value)
            hashed = identity.identity(config, takes_outputs=stage.takes == "outputs")
            for each in moved:
                part, _, option = each.partition(".init_args.")
                if part == name:
                    hashed[name]["init_args"].pop(option, None)
            text = identity.canonical(hashed[name]) if name in hashed else None
            # What a run fills in anyway is written out, so that the file says all that was hashed.
            self._parts[key] = (identity.resolve(config[name]) if name in PARTS else config[name], text)
        return self._parts[key]


def stages_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that the method of a config declares."""
    class_path = config["model"]["class_path"]
    return signature.read(class_path).stages if signature.is_described(class_path) else ()
