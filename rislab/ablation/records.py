"""The JSON files of a trial directory, checked where they are read: whatever is in one, that ends in a value or a reason."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rislab.ablation.schema import METRICS

LARGEST = 64 << 20
"""Bytes of a record; nothing that a trial writes comes near it."""

SLACK = 1e-6
"""By so much a sum of floats may exceed 100 percent."""


class DamagedError(Exception):
    """What is wrong with a record, for the line that says so."""


@dataclass(frozen=True)
class Kind:
    """A plain value: what a message calls it, and whether a value is one."""

    name: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Record:
    """An object with known keys. required, optional: what each holds; rest: what any other key holds, None for anything."""

    required: Mapping[str, "Shape"] = field(default_factory=dict)
    optional: Mapping[str, "Shape"] = field(default_factory=dict)
    rest: "Shape | None" = None


@dataclass(frozen=True)
class Mapped:
    """An object with any keys."""

    of: "Shape"


@dataclass(frozen=True)
class Listed:
    """An array."""

    of: "Shape"


Shape = Kind | Record | Mapped | Listed


def is_number(value: Any) -> bool:
    """A finite int or float; True and False are none."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_percent(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 100 + SLACK


def is_file_name(value: Any) -> bool:
    """The name of a file in a folder: no path, and nothing that leads out of it."""
    return isinstance(value, str) and value not in ("", ".", "..") and not any(c in value for c in "/\\\0")


def is_inside(value: Any) -> bool:
    """A path below a folder, by its letters."""
    parts = PurePosixPath(value).parts if isinstance(value, str) else ()
    return bool(parts) and not value.startswith("/") and all(map(is_file_name, parts))


def _or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.fits(value))


TEXT = Kind("a text", lambda value: isinstance(value, str))
NUMBER = Kind("a finite number", is_number)
POSITIVE = Kind("a number, 0 or more", lambda value: is_number(value) and value >= 0)
COUNT = Kind("a whole number, 0 or more", is_count)
PERCENT = Kind("a number from 0 to 100", is_percent)
FILE_NAME = Kind("the name of a file beside it", is_file_name)
DIGEST = Kind(
    "a sha256", lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
)
INTEGER = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))

SCORES = Record(
    optional=dict.fromkeys(METRICS, PERCENT)
    | {"expressions": COUNT, "images": COUNT, "classes": Mapped(_or_null(PERCENT))},
    rest=NUMBER,
)
RESULT = Record(
    {"splits": Mapped(SCORES)},
    {
        "benchmark": TEXT,
        "protocol": TEXT,
        "precision": TEXT,
        "parameters": Record(optional={"total": COUNT, "trainable": COUNT}),
        "step": COUNT,
        "names": TEXT,
        "classes": COUNT,
        "no_target_min_pixels": COUNT,
    },
)
IDENTITY = Record({"hash": DIGEST}, {"config": Record(), "sources": Mapped(TEXT)})
IDENTIFIED = Record({"hash": DIGEST})
"""What of it says whose a directory is."""

MANIFEST = Record({"hash": _or_null(DIGEST), "files": Mapped(Record({"sha256": DIGEST, "size": COUNT}))})
CODE = Record({"commit": _or_null(TEXT), "dirty": _or_null(TEXT)})
PROVENANCE = Record(
    {
        "code": CODE,
        "packages": Mapped(TEXT),
        "python": TEXT,
        "hardware": Record({"gpus": Listed(TEXT), "processor": TEXT}, {"gpu_driver": _or_null(TEXT)}),
        "threads": COUNT,
    },
    {
        "seconds": Mapped(POSITIVE),
        "steps_per_second": POSITIVE,
        "peak_memory_mb": _or_null(POSITIVE),
        "peak_gpu_memory_mb": _or_null(POSITIVE),
        "starts": Listed(Record(optional={"code": CODE})),
    },
)
JOB = Record({"launcher": TEXT, "id": TEXT}, {"submitted": NUMBER, "attempts": COUNT})
STATUS: dict[str, Shape] = {
    "state": TEXT,
    "stage": TEXT,
    "host": TEXT,
    "pid": COUNT,
    "boot_id": _or_null(TEXT),
    "heartbeat": NUMBER,
    "started": NUMBER,
    "ended": NUMBER,
    "step": COUNT,
    "max_steps": INTEGER,  # -1 where the epochs decide
    "epoch": COUNT,
    "speed": POSITIVE,
    "metrics": Mapped(NUMBER),
    "error": _or_null(TEXT),
    "kind": _or_null(TEXT),
    "traceback": _or_null(TEXT),
}
"""By key, since a status is no evidence: what is damaged of it is left out, and the rest is shown."""

RLE = Record({"counts": TEXT, "size": Listed(COUNT)})
EXPRESSION = Record(
    {"sent_id": INTEGER, "image_id": INTEGER, "text": TEXT, "image": FILE_NAME, "target": RLE, "prediction": RLE}
)
LABEL_MAP = Record(
    {
        "image_id": INTEGER,
        "image": FILE_NAME,
        "target": FILE_NAME,
        "prediction": FILE_NAME,
        "classes": Mapped(TEXT),
        "right": PERCENT,
    },
    {"groups": Mapped(FILE_NAME)},
)


def wrong(value: Any, shape: Shape, position: str = "") -> str | None:
    """What is the matter with a value, in a few words, or None."""
    return next(_wrong(value, shape, position), None)


def _wrong(value: Any, shape: Shape, position: str) -> Iterator[str]:
    what = position or "it"
    match shape:
        case Kind():
            if not shape.fits(value):
                yield f"{what} is {short(value)}, expected {shape.name}"
        case Listed():
            if not isinstance(value, list):
                yield f"{what} is {short(value)}, expected a list"
                return
            for number, item in enumerate(value):
                yield from _wrong(item, shape.of, f"{position}[{number}]")
        case Mapped() | Record():
            if not isinstance(value, dict):
                yield f"{what} is {short(value)}, expected an object"
            elif isinstance(shape, Mapped):
                for key, item in value.items():
                    yield from _wrong(item, shape.of, _inner(position, key))
            else:
                for key in shape.required:
                    if key not in value:
                        yield f"{what} has no {key!r}"
                for key, item in value.items():
                    inner = shape.required.get(key) or shape.optional.get(key) or shape.rest
                    if inner is not None:
                        yield from _wrong(item, inner, _inner(position, key))


def _inner(position: str, key: str) -> str:
    return f"{position}.{key[:60]}" if position else key[:60]


def short(value: Any) -> str:
    """A value for a message; of what may be large, only what it is."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not -(10**15) < value < 10**15:
        return "a huge number"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


def content(path: Path) -> bytes | None:
    """A record's bytes, or None when there is no such file. Raises DamagedError for one that is far too large, and OSError."""
    try:
        with path.open("rb") as file:
            found = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(found) > LARGEST:
        raise DamagedError(f"{path.name} is larger than {LARGEST >> 20} MiB")
    return found


def parsed(data: bytes, name: str, shape: Shape) -> Any:
    """Raises DamagedError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(f"{name} is no JSON" if data.strip() else f"{name} is empty") from None
    fault = wrong(value, shape)
    if fault is not None:
        raise DamagedError(f"{name}: {fault}")
    return value


def load(path: Path, shape: Shape) -> Any:
    """A record, or None when there is no such file. Raises DamagedError with what is wrong with it, and OSError."""
    data = content(path)
    return None if data is None else parsed(data, path.name, shape)


def status(path: Path) -> dict[str, Any]:
    """What of a `status.json` can be used. Raises OSError."""
    try:
        found = load(path, Record())
    except DamagedError:
        return {}
    return {
        key: value for key, value in (found or {}).items() if key not in STATUS or wrong(value, STATUS[key]) is None
    }
