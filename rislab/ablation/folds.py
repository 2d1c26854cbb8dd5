"""Folds of a profile: a row is one training a fold, its cells show the mean over them. Also: switches of rows in one profile."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rislab.ablation import switches
from rislab.ablation.switches import Parts, dotted
from rislab.errors import nearest


def full(given: Mapping[str, Any]) -> dict[str, Any]:
    """Switches with their full keys."""
    return {dotted(key): value for key, value in given.items()}


def names(profiles: Iterable[Mapping[str, Any]], column: str) -> list[str]:
    """Folds of the profiles whose results stand beside a column of the paper's."""
    return list(dict.fromkeys(fold for one in profiles if one["column"] == column for fold in one.get("folds", {})))


def mistakes(
    profile: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    stages: Mapping[str, Parts],
    name_mistake: Callable[[Any], str | None],
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with folds and switches of a profile: (keys below the profile, what).

    Args:
        profile: As in the file, with its structure checked.
        rows: Of the table, the same.
        stages: The profile's model and data by stage; empty where they are not known.
        name_mistake: Says what is wrong with a name, or None.
    """
    by_name = {row["name"]: row for row in rows}
    for fold, given in profile.get("folds", {}).items():
        who = f"fold {fold!r}"
        if wrong := name_mistake(fold):
            yield ("folds", fold), f"{who}: {wrong}"
        elif fold in stages:
            yield ("folds", fold), f"{who}: a stage has this name"
        yield from ((("folds", fold, key), f"{who}: {text}") for key, text in _wrong(given, stages))
    varied = {key for given in profile.get("folds", {}).values() for key in full(given)}
    own = {name: full(row["switches"]) for name, row in by_name.items()}
    for name, given in profile.get("switches", {}).items():
        if name not in by_name:
            yield ("switches", name), f"switches of {name!r}, which is no row{nearest(name, by_name)}"
            continue
        yield from ((("switches", name, key), f"row {name!r}: {text}") for key, text in _wrong(given, stages))
        own[name] |= full(given)
    for name, keys in own.items():
        for key in sorted(varied & keys.keys()):
            yield ("folds",), f"row {name!r} sets {key}, which the folds set"


def _wrong(given: Mapping[str, Any], stages: Mapping[str, Parts]) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        wrong = switches.mistake(key, value, stages) if any(stages.values()) else None
        if wrong:
            yield key, wrong
