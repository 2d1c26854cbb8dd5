"""Switches of a row: dotted keys of a config's model and data, for every stage that has them or for one stage."""

from collections.abc import Iterator, Mapping
from typing import Any

from rislab.ablation import signature
from rislab.errors import nearest

PARTS = ("model", "data")
"""Parts of a config that are classes with options."""

Parts = Mapping[str, Any]
"""A config's model and data, each as class path and options."""


def dotted(key: str) -> str:
    """The full key of a switch: `model.x` is short for `model.init_args.x`, also behind `STAGE:`."""
    stage, colon, key = key.rpartition(":")
    head, _, rest = key.partition(".")
    if head in PARTS and not rest.startswith(("init_args.", "class_path")):
        key = f"{head}.init_args.{rest}"
    return f"{stage}{colon}{key}"


def of_stage(switches: Mapping[str, Any], stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's switches set in one stage.

    Args:
        switches: Full keys and values. One with `STAGE:` before it is that stage's alone, and wins over one without, which is
            set wherever the class has the option.
        stage: Name of the stage.
        config: The stage's config, with the classes of its parts.

    Returns:
        Dotted keys of the config, and values.
    """
    found = {key: value for key, value in switches.items() if ":" not in key and _has_option(key, config)}
    own = f"{stage}:"
    return found | {key.removeprefix(own): value for key, value in switches.items() if key.startswith(own)}


def _has_option(key: str, config: Mapping[str, Any]) -> bool:
    """Whether the class of a part takes the option that a full key begins with; True where its options are not known."""
    part, *path = key.split(".")
    given = config.get(part)
    owner = given.get("class_path") if isinstance(given, Mapping) else None
    return not signature.is_described(owner) or len(path) < 2 or path[1] in signature.read(owner).options


def mistake(key: str, value: Any, stages: Mapping[str, Parts]) -> str | None:
    """What is wrong with a switch, or None.

    Args:
        key: As written, `model.x` or `STAGE:model.x`.
        value: What it sets.
        stages: Config parts by stage; one stage "" for a row that has none.
    """
    stage, colon, bare = key.rpartition(":")
    if colon and stage not in stages:
        known = ", ".join(filter(None, stages)) or "none"
        return f"switch {key!r}: no stage {stage!r}{nearest(stage, stages)}; stages are {known}"
    full = dotted(bare)
    candidates = {stage: stages[stage]} if colon else dict(stages)
    having = {name: parts for name, parts in candidates.items() if _has_option(full, parts)}
    found: dict[str, str] = {}
    for name, parts in (having or candidates).items():
        wrong = _mistake(bare, value, parts)
        if wrong is not None:
            found.setdefault(wrong, name)
    if not found:
        return None
    # Of several classes without the option, the one whose hint is nearest.
    wrong = next((text for text in found if having or "did you mean" in text), next(iter(found)))
    several = len({_class_paths(parts) for parts in candidates.values()}) > 1
    return f"stage {found[wrong]!r}: {wrong}" if several else wrong


def _class_paths(parts: Parts) -> tuple[str, ...]:
    return tuple(str((parts.get(part) or {}).get("class_path")) for part in PARTS)


def _mistake(key: str, value: Any, parts: Parts) -> str | None:
    """The same for one stage. The key is followed through the classes of the parts."""
    part, *path = dotted(key).split(".")
    if part not in PARTS or path[:1] != ["init_args"] or len(path) < 2:
        return f"switch {key!r} must begin with {' or '.join(f'{p}.' for p in PARTS)}"
    given: Any = parts.get(part)
    owner, shown = None, part
    while isinstance(given, dict):
        owner = given.get("class_path", owner)
        if not signature.is_described(owner):
            return None
        if path[0] == "init_args":
            path = path[1:]
        if not path:
            return f"switch {key!r} names no option"
        known = signature.read(owner).options
        if len(path) == 1 or path[0] not in known:
            wrong = signature.check(owner, path[0], value)
            return f"{shown}.{wrong}" if wrong else None
        owner, shown = known[path[0]].of, f"{shown}.{path[0]}"
        options = given.get("init_args") or {} if "class_path" in given else given
        given, path = options.get(path[0]), path[1:]
    return None


def shown(switches: Mapping[str, Any]) -> Iterator[str]:
    """`option=value` of each switch, with the stage where it is one stage's."""
    for key, value in switches.items():
        stage, colon, rest = key.rpartition(":")
        yield f"{stage}{colon}{rest.rpartition('.')[2]}={value}"
