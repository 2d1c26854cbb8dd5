"""Whether two directories of one trial hold the same result: the first value of each file that differs."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = ("metrics.json", "scores.parquet", "log/metrics.csv")
KEPT_BY_CHOICE = ("answers.parquet",)
"""What an option of the trial keeps or leaves out, and earlier releases did not write: compared where both have it."""
KEPT = "predictions"
EXPORT = "masks.json"
ABSENT = "not there"


@dataclass(frozen=True)
class Difference:
    """file: below the trial's directory. where: the place in it, "" for the whole. before, again: what stands there."""

    file: str
    where: str
    before: str
    again: str

    def __str__(self) -> str:
        position = f"{self.file}: {self.where}" if self.where else self.file
        return f"{position} was {self.before}, is {self.again}"


def differences(before: Path, again: Path) -> list[Difference]:
    """One for each file of a result that is not equal to the byte, in a fixed order. Raises OSError."""
    kept = {path.name for folder in (before, again) for path in _files(folder / KEPT)}
    both = tuple(name for name in KEPT_BY_CHOICE if (before / name).is_file() and (again / name).is_file())
    names = (*FILES, *both, *(f"{KEPT}/{name}" for name in sorted(kept)))
    found = (_difference(before / name, again / name, name) for name in names)
    return [each for each in found if each is not None]


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (p for p in folder.iterdir() if p.is_file() and p.name != EXPORT and not p.name.startswith("."))


def _difference(before: Path, again: Path, name: str) -> Difference | None:
    one, other = (path.read_bytes() if path.is_file() else None for path in (before, again))
    if one == other:
        return None
    if one is None or other is None:
        return Difference(name, "", ABSENT if one is None else "there", ABSENT if other is None else "there")
    inner: tuple[str, str, str] | None = None
    if name.endswith(".json"):
        inner = _in_json(json.loads(one), json.loads(other), "")
    elif name.endswith(".parquet"):
        inner = _in_table(before, again)
    elif name.endswith(".csv"):
        inner = _in_lines(*(data.decode(errors="replace").splitlines() for data in (one, other)))
    return Difference(name, *(inner or ("", f"{len(one)} bytes", f"{len(other)} other bytes")))


def _in_json(before: Any, again: Any, position: str) -> tuple[str, str, str] | None:
    if isinstance(before, dict) and isinstance(again, dict):
        for key in sorted(before.keys() | again.keys()):
            found = _in_json(before.get(key, ABSENT), again.get(key, ABSENT), f"{position}.{key}".lstrip("."))
            if found is not None:
                return found
        return None
    if isinstance(before, list) and isinstance(again, list) and len(before) == len(again):
        pairs = enumerate(zip(before, again, strict=True))
        return next((found for n, (a, b) in pairs if (found := _in_json(a, b, f"{position}[{n}]")) is not None), None)
    return None if before == again else (position, _short(before), _short(again))


def _short(value: Any) -> str:
    text = ABSENT if value is ABSENT else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]}..."


def _in_table(before: Path, again: Path) -> tuple[str, str, str] | None:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path) for path in (before, again)]
    names = [table.column_names for table in tables]
    if names[0] != names[1]:
        return "columns", ", ".join(names[0]), ", ".join(names[1])
    if tables[0].num_rows != tables[1].num_rows:
        return "rows", str(tables[0].num_rows), str(tables[1].num_rows)
    columns = {name: [table.column(name).to_pylist() for table in tables] for name in names[0]}
    for row in range(tables[0].num_rows):
        for name, (one, other) in columns.items():
            if one[row] != other[row]:
                ids = [
                    f"{key} {columns[key][0][row]}"
                    for key in ("split", "unit", "sent_id", "image_id")
                    if key in columns
                ]
                return f"{name} of {', '.join(ids)}", str(one[row]), str(other[row])
    return None


def _in_lines(before: Sequence[str], again: Sequence[str]) -> tuple[str, str, str] | None:
    for number, (one, other) in enumerate(itertools.zip_longest(before, again), 1):
        if one != other:
            return f"line {number}", ABSENT if one is None else repr(one), ABSENT if other is None else repr(other)
    return None
