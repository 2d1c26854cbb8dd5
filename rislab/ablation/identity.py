"""What makes a trial the trial it is: its resolved config, less what cannot change the result."""

import hashlib
import json
from pathlib import PurePath
from typing import Any

from rislab.ablation import signature
from rislab.moved_names import current, move_options_back, original, with_options_moved

NEUTRAL = (
    "trial",
    "ckpt_path",
    "export",
    "trainer.default_root_dir",
    "trainer.accelerator",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)
"""Dotted keys that cannot change the result: paths, kind of device, logging. Classes declare theirs in `neutral`, at any depth.

The number of devices and nodes does count: the batch is so many times as large.
"""


TAKES = "takes"
"""Key of an identity that says what a stage takes of its parent, where that is not its weights."""


def resolve(config: Any, hashed: bool = False) -> Any:
    """`config` with every default of our classes filled in, at every depth; classes of others stay as written.

    Options that have the value which their class declares in `absent_means` are left out, so that adding such an option
    changes no identity.

    Args:
        hashed: as it is hashed: without the options that classes declare as `neutral`, with the constants that they declare in
            `hashed_with`, and with paths below the data's root written from there.
    """
    if isinstance(config, list):
        return [resolve(item, hashed) for item in config]
    if not isinstance(config, dict):
        return config
    class_path = config.get("class_path")
    if not isinstance(class_path, str) or not signature.is_described(class_path):
        return {key: resolve(value, hashed) for key, value in config.items()}
    class_path = current(class_path)
    init_args = _filled(class_path, config.get("init_args") or {}, hashed)
    return {"class_path": original(class_path) if hashed else class_path, "init_args": init_args}


def _filled(class_path: str, given: dict[str, Any], hashed: bool) -> dict[str, Any]:
    known = signature.read(class_path)
    full = {name: option.default for name, option in known.options.items() if option.default is not signature.REQUIRED}
    for name, value in given.items():
        option = known.options.get(name)
        if isinstance(value, dict) and "class_path" not in value and option is not None and option.of is not None:
            full[name] = _filled(option.of, value, hashed)  # a dataclass of ours, given by its fields
        else:
            full[name] = resolve(value, hashed)
    kept = {name: value for name, value in full.items() if not _is_absent(known, name, value)}
    if hashed:
        for name in known.neutral:
            kept.pop(name, None)
        root = root_of(known, given)
        for name in known.below_root if root is not None else ():
            kept[name] = moved(kept[name], root, "")
        for path, options in known.hashed_with.items():
            if options.items() <= full.items():
                kept[original(path).removeprefix(signature.PACKAGE)] = signature.constant(*path.rsplit(".", 1))
    return kept


def root_of(known: signature.Signature, given: dict[str, Any]) -> Any:
    """The value of a class's `root_option` in the options given to it; None where there is none."""
    options: Any = given
    *path, last = known.root_option.split(".")
    for name in path:
        inner = options.get(name)
        options = inner.get("init_args", inner) if isinstance(inner, dict) else {}
    return options.get(last) if isinstance(options, dict) else None


def moved(value: Any, before: Any, after: str) -> Any:
    """Paths, one or a list, with those below one folder put below another; "": written from there."""
    if isinstance(value, list):
        return [moved(item, before, after) for item in value]
    if not isinstance(value, str) or not isinstance(before, str) or not PurePath(value).is_relative_to(before):
        return value
    return str(PurePath(after) / PurePath(value).relative_to(before))


def _is_absent(known: signature.Signature, name: str, value: Any) -> bool:
    return name in known.absent_means and known.absent_means[name] == value


def identity(config: dict[str, Any], parent: str | None = None, takes_outputs: bool = False) -> dict[str, Any]:
    """The part of a config that is hashed.

    Args:
        config: Of a trial.
        parent: Hash of the trial that it starts from.
        takes_outputs: Its data read the files that the parent made. The parent's hash says which; where they lie is left out.
    """
    full = resolve(with_options_moved(config), hashed=True)
    if takes_outputs:
        full[TAKES] = "outputs"
        data = full.get("data")
        if isinstance(data, dict) and signature.is_described(data.get("class_path")):
            data["init_args"].pop(signature.read(data["class_path"]).from_stage, None)
    model = full.get("model", {})
    if isinstance(model, dict) and isinstance(model.get("init_args"), dict) and "class_path" in model:
        known = signature.read(model["class_path"]) if signature.is_described(model["class_path"]) else None
        for name in known.unused_in.get(model["init_args"].get("stage"), ()) if known is not None else ():
            model["init_args"].pop(name, None)
    move_options_back(full)
    if parent is not None:
        full["parent"] = parent
    for key in NEUTRAL:
        *path, last = key.split(".")
        place = full
        for name in path:
            place = place.get(name, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place.pop(last, None)
    return dict(full)


def digest(value: Any) -> str:
    """sha256 of canonical JSON: the order of keys and the way numbers were written do not matter."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """The JSON that is hashed."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # 1, 1.0 and 1e0 are one number in YAML
    return value
