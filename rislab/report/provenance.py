"""What the finished trials of a table were made with, and where they differ: which of them, and in what."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rislab.report.results import Cell, Results

NAMED = 3
"""So many trials are named where they differ from the others; more are counted."""


def provenance(results: Results) -> list[tuple[str, str]]:
    """(what, value) lines; a value on which the trials do not agree says which of them have it."""
    done = [cell for cell in results.cells if cell.state == "done"]
    made = [cell for cell in done if cell.provenance]
    said: list[tuple[str, str]] = []
    if undigested := [cell for cell in done if not cell.has_digests]:
        said.append(
            ("no digests", f"{_names(undigested)}: finished by an earlier release; changed files would not be noticed")
        )
    said += [("changed since, not shown", f"{c.planned.name}: {', '.join(c.changed)}") for c in done if c.changed]
    said += [("not known", f"{cell.planned.name}: {cell.provenance_fault}") for cell in done if cell.provenance_fault]
    return [*(_of(made) if made else []), *said]


def _of(made: Sequence[Cell]) -> list[tuple[str, str]]:
    lines = [
        ("commit", _values(made, _commit)),
        ("packages", _packages(made)),
        ("Python", _values(made, lambda p: str(p["python"]))),
        ("hardware", _values(made, _hardware)),
        ("threads a trial", _values(made, lambda p: str(p["threads"]))),
    ]
    again = [cell for cell in made if len(cell.provenance.get("starts", [])) > 1]
    if again:
        lines.append(("started more than once", _names(again)))
    mixed = [
        cell for cell in again if len({_commit(start) for start in cell.provenance["starts"] if "code" in start}) > 1
    ]
    if mixed:
        lines.append(("begun with other code", f"{_names(mixed)}: see starts in provenance.json"))
    # The same gradient up to rounding, and other random numbers: no longer the very trial that was planned.
    by_parts: dict[int, list[Cell]] = {}
    for cell in made:
        with suppress(OSError):
            by_parts.setdefault(cell.planned.trial.attempts.parts, []).append(cell)
    lines += [(f"batches in {n} parts, for want of memory", _names(by_parts[n])) for n in sorted(by_parts) if n > 1]
    return lines


def _values(made: Sequence[Cell], get: Callable[[Mapping[str, Any]], str]) -> str:
    return _by_value(made, [get(cell.provenance) for cell in made])


def _by_value(made: Sequence[Cell], values: Sequence[str]) -> str:
    """The value, or every value with the trials that have it, the commonest first."""
    by_value: dict[str, list[Cell]] = {}
    for cell, value in zip(made, values, strict=True):
        by_value.setdefault(value, []).append(cell)
    if len(by_value) == 1:
        return values[0]
    order = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[0]))
    return "; ".join(f"{value} ({_names(cells)})" for value, cells in order)


def _names(cells: Sequence[Cell]) -> str:
    if len(cells) > NAMED:
        return f"{len(cells)} trials"
    return ", ".join(cell.planned.name for cell in cells)


def _commit(made: Mapping[str, Any]) -> str:
    dirty = made["code"]["dirty"]
    return (made["code"]["commit"] or "unknown")[:12] + (f" + changes {dirty}" if dirty else "")


def _hardware(made: Mapping[str, Any]) -> str:
    hardware = made["hardware"]
    if not hardware["gpus"]:
        return f"{hardware['processor']}, no GPU"
    driver = hardware.get("gpu_driver")
    return ", ".join(hardware["gpus"]) + (f", driver {driver}" if driver else "")


def _packages(made: Sequence[Cell]) -> str:
    """The main packages, and any other one in which trials differ."""
    locks = [_lock(cell) for cell in made]
    packages = [cell.provenance["packages"] for cell in made]
    names = dict.fromkeys(name for each in packages for name in each)
    main = {name: [str(each.get(name, "none")) for each in packages] for name in names}
    said = [f"{name} {_by_value(made, versions)}" for name, versions in sorted(main.items())]
    whole = [(cell, lock) for cell, lock in zip(made, locks, strict=True) if lock]
    known = {_plain(name) for name in main}
    for name in sorted({name for _, lock in whole for name in lock}):
        versions = [lock.get(name, "none") for _, lock in whole]
        if name not in known and len(set(versions)) > 1:
            said.append(f"{name} {_by_value([cell for cell, _ in whole], versions)}")
    return ", ".join(said)


def _lock(cell: Cell) -> dict[str, str]:
    """packages.txt of a trial: version by name; empty for one of an earlier release."""
    try:
        lines = (cell.planned.trial.path / "packages.txt").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines)}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
