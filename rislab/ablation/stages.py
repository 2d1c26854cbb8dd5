"""The stages of a row: what a profile lists, or what its method declares. Each is a trial with a config of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rislab.ablation import signature
from rislab.ablation.switches import PARTS, Parts
from rislab.errors import nearest

Takes = Literal["", "weights", "outputs"]
TAKES = tuple(filter(None, get_args(Takes)))


@dataclass(frozen=True)
class Stage:
    """One training, or one production of files.

    Attributes:
        name: "" for the only one of a row without stages.
        config: Config files over the profile's. A class other than the profile's takes no options over from it.
        parent: Name of the stage that it starts from, earlier in the list; "" for none.
        takes: What it takes of its parent: `weights`, those of the best checkpoint, or `outputs`, the files that it made.
        split: What the table shows of it was measured on this split; "" for the profile's.
    """

    name: str = ""
    config: tuple[Path, ...] = ()
    parent: str = ""
    takes: Takes = ""
    split: str = ""


ONLY = (Stage(),)
"""Of a row without stages."""


def declared(class_path: Any) -> tuple[Stage, ...]:
    """The stages that a method declares, each from the weights of the one before; empty for one that declares none."""
    names = signature.read(class_path).stages if signature.is_described(class_path) else ()
    before = ("", *names)
    return tuple(
        Stage(name, (), parent, "weights" if parent else "") for name, parent in zip(names, before, strict=False)
    )


def listed(raw: Sequence[Mapping[str, Any]], configs: Mapping[str, tuple[Path, ...]]) -> tuple[Stage, ...]:
    """A profile's list that has been checked. configs: files by stage."""
    return tuple(
        Stage(
            one["name"],
            configs[one["name"]],
            one.get("from", ""),
            one.get("takes", "weights") if "from" in one else "",
            one.get("split", ""),
        )
        for one in raw
    )


def without(stages: Sequence[Stage], left_out: Sequence[str]) -> tuple[Stage, ...]:
    """The stages that remain of a list; one that starts from a stage left out starts from what that one starts from.

    What it takes stays what it is where there is something to take: the first stage that remains starts anew.
    """
    parents = {one.name: one.parent for one in stages}

    def kept(name: str) -> str:
        while name in left_out:
            name = parents[name]
        return name

    remaining = [replace(one, parent=kept(one.parent)) for one in stages if one.name not in left_out]
    return tuple(one if one.parent else replace(one, takes="") for one in remaining)


def mistakes(stages: Sequence[Stage], parts: Mapping[str, Parts]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with a list of stages: (stage, key of its entry, what).

    Args:
        stages: With names that are sound.
        parts: Model and data of each, by name.
    """
    names = [one.name for one in stages]
    for number, one in enumerate(stages):
        if one.name in names[:number]:
            yield one.name, "name", f"stage {one.name!r} is there already"
            continue
        if one.parent not in ("", *names):
            yield (
                one.name,
                "from",
                f"stage {one.name!r}: from {one.parent!r}, which is no stage{nearest(one.parent, names)}",
            )
            continue
        if one.parent and one.parent not in names[:number]:
            yield one.name, "from", f"stage {one.name!r}: from {one.parent!r}, which does not come before it"
            continue
        for key, text in _unfit(one, parts.get(one.name, {}), parts.get(one.parent, {})):
            yield one.name, key, f"stage {one.name!r}: {text}"


def _unfit(one: Stage, parts: Parts, of_parent: Parts) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of a stage whose classes do not fit what it takes."""
    for part in PARTS:
        if "class_path" not in (parts.get(part) or {}):
            yield "config", f"no {part}.class_path in its config files or in the profile's"
            return
    model, data = (_read(parts, part) for part in PARTS)
    if model is not None and model.stages and one.name not in model.stages and "stage" not in _options(parts["model"]):
        yield (
            "name",
            f"{_short(parts['model'])} has no stage {one.name!r}{nearest(one.name, model.stages)}; "
            f"stages are {', '.join(model.stages)}",
        )
    parent = _read(of_parent, "model")
    if one.takes == "weights" and parent is not None and parent.produces:
        yield "takes", f"{one.parent!r} makes files and trains nothing: it has no weights; takes: outputs"
    if one.takes == "outputs":
        if parent is not None and not parent.produces:
            yield (
                "takes",
                f"{one.parent!r} makes no files: {_short(of_parent['model'])} has no `produce`; takes: weights",
            )
        if data is not None and not data.from_stage:
            yield "takes", f"{_short(parts['data'])} declares no from_stage: it takes no outputs of a stage"


def _read(parts: Parts, part: str) -> signature.Signature | None:
    class_path = (parts.get(part) or {}).get("class_path")
    return signature.read(class_path) if signature.is_described(class_path) else None


def _options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return given.get("init_args") or {}


def _short(given: Mapping[str, Any]) -> str:
    return str(given["class_path"]).rpartition(".")[2]
