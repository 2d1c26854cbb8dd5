"""Configs of a table's cells, and their hashes.

A table of thousands of cells has few different parts: a model for each row, data for each seed. Each is made once, and so
is its share of what is hashed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rislab.ablation import identity
from rislab.ablation.table import PARTS, Profile, Row
from rislab.ablation.yamlfile import overlay, read_yaml
from rislab.errors import ConfigError
from rislab.paths import absolute

DATA_ROOT = "data.init_args.root"
DATA_SEED = "data.init_args.seed"
STAGE = "model.init_args.stage"


def merged(profile: Profile, stage: str = "") -> dict[str, Any]:
    """The profile's config files, later ones over earlier ones, and those of a stage over them."""
    config: dict[str, Any] = {}
    for path in (*profile.config, *profile.stages.get(stage, ())):
        overlay(config, read_yaml(path) or {})
    for part in PARTS:
        if "class_path" not in config.get(part, {}):
            raise ConfigError(f"{', '.join(map(str, profile.config))}: no {part}.class_path")
    return config


def put(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with a dotted key set; whatever is not on the way to it is shared with the one given."""
    first, _, rest = key.partition(".")
    return {**config, first: put(config.get(first, {}), rest, value) if rest else value}


class Configs:
    """Configs of a profile's cells. They share their parts: nothing in one may be changed in place."""

    def __init__(self, profile: Profile, data: str | None) -> None:
        self.profile = profile
        self.changes: dict[str, Any] = {} if data is None else {DATA_ROOT: str(absolute(data))}
        self._bases: dict[str, dict[str, Any]] = {}
        self._parts: dict[tuple[str, ...], tuple[Any, str | None]] = {}

    def base(self, stage: str = "") -> dict[str, Any]:
        if stage not in self._bases:
            self._bases[stage] = merged(self.profile, stage)
        return self._bases[stage]

    def cell(self, row: Row, seed: int, stage: str, parent: str | None) -> tuple[dict[str, Any], str]:
        """(config, hash) of a row with a seed and a stage. parent: hash of what it starts from."""
        changes = {**self.changes, **row.switches, **({STAGE: stage} if stage else {}), DATA_SEED: seed}
        by_part: dict[str, dict[str, Any]] = {}
        for key, value in changes.items():
            by_part.setdefault(key.partition(".")[0], {})[key] = value
        base = self.base(stage)
        config: dict[str, Any] = {}
        texts = {"parent": json.dumps(parent)} if parent is not None else {}
        for name in {**base, **by_part}:
            config[name], text = self._part(name, base, stage, by_part.get(name, {}))
            if text is not None:
                texts[name] = text
        config["seed_everything"], texts["seed_everything"] = seed, json.dumps(seed)
        # The canonical JSON of the whole, put together from that of its parts.
        whole = "{" + ",".join(f"{json.dumps(name)}:{texts[name]}" for name in sorted(texts)) + "}"
        return config, hashlib.sha256(whole.encode()).hexdigest()

    def _part(self, name: str, base: dict[str, Any], stage: str, changes: dict[str, Any]) -> tuple[Any, str | None]:
        """A part of the config as it is written, and the canonical JSON of what of it is hashed, if anything is."""
        key = (name, stage, repr(changes))
        if key not in self._parts:
            config = {name: base[name]} if name in base else {}
            for place, value in changes.items():
                config = put(config, place, value)
            hashed = identity.identity(config)
            text = identity.canonical(hashed[name]) if name in hashed else None
            # What a run fills in anyway is written out, so that the file says all that was hashed.
            self._parts[key] = (identity.resolve(config[name]) if name in PARTS else config[name], text)
        return self._parts[key]
