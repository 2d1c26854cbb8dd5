"""Image-text pairs in tar shards, as img2dataset writes them (CC3M, CC12M, YFCC, RedCaps): KEY.jpg and KEY.txt, side by side.

Shards are indexed once (a scan of their headers, kept in the user's cache folder), then any pair can be read by itself. That is
why an epoch knows its length, ranks and loader processes never share a pair, any number of processes is served by any number of
shards, and a run goes on in the middle of an epoch with the very pairs that it would have seen; a stream of shards can promise
none of it.
"""

import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rislab.errors import DataError
from rislab.files import cache_dir, replacing
from rislab.messages import preparing, progress
from rislab.paths import user_path

IMAGES, TEXTS = ("jpg", "png", "jpeg", "webp"), ("txt", "text")
METADATA = "json"
"""What img2dataset writes beside each pair."""
OPEN_FILES = 32
MOST_SHARDS = 1_000_000
LARGEST_PICTURE, LARGEST_TEXT = 1 << 28, 1 << 24
"""Bytes of a member; what is larger is no picture and no caption."""
MOST_PIXELS = 100_000_000
VERSION = 3
"""Of the index files."""
SECONDS_A_GIGABYTE = 1.0
"""To read the headers of 25,000 pairs on one core, without waiting for the disk."""

_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


def expand(pattern: str) -> list[Path]:
    """`cc3m/gcc-{000000..000347}.tar` -> 348 paths; the digits of the first number are kept. Without braces: that one path.

    Raises:
        DataError: Other braces than those of numbers, more shards than `MOST_SHARDS`.
    """
    literals, ranges = _RANGE.split(pattern)[::3], _RANGE.findall(pattern)
    if any(brace in literal for literal in literals for brace in "{}"):
        if user_path(pattern).exists():
            return [user_path(pattern)]
        raise DataError(f"{pattern}: braces hold two numbers, {{000000..000347}}, and not each other")
    count = 1
    for first, last in ranges:
        if int(first) > int(last):
            raise DataError(f"{pattern}: {first} comes after {last}")
        count *= int(last) - int(first) + 1
    if count > MOST_SHARDS:
        raise DataError(f"{pattern}: names {count} shards, expected at most {MOST_SHARDS}")
    numbers = [[f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] for first, last in ranges]
    return [
        user_path("".join(part for pair in zip(literals, (*chosen, ""), strict=True) for part in pair))
        for chosen in itertools.product(*numbers)
    ]


@dataclass(frozen=True)
class Index:
    """Where the pairs of one shard lie, and what its other members are.

    Attributes:
        extents: int64 [N, 4], offset and size of the picture, offset and size of the text.
        skipped: why members are no pair, and how many. "empty text" counts a picture and its text as one.
        ignored: members that are no pairs, by kind: metadata, hidden files, further members of a pair.
        members: files in the shard. Every one is in exactly one place, so that the numbers add up.
        example: the name of a member with an unknown suffix, or "".
    """

    extents: NDArray[np.int64]
    skipped: dict[str, int]
    ignored: dict[str, int] = field(default_factory=dict)
    members: int = 0
    example: str = ""


def scan(path: Path) -> Index:
    """Read a shard's headers. A shard that ends early gives the pairs before. Raises DataError: it cannot be opened.

    A member is `KEY.SUFFIX`; the key ends at the first dot of the file's name, as in webdataset: `a.input.jpg` is no picture of
    `a`.
    """
    skipped: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    found: dict[str, dict[str, tuple[int, int]]] = {}
    others: list[tuple[str, str]] = []
    members = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isdir():
                        continue
                    members += 1
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    key, suffix = f"{folder}/{stem}", suffix.lower()
                    kind = "picture" if suffix in IMAGES else "text" if suffix in TEXTS else ""
                    if name.startswith(".") or "__MACOSX" in folder.split("/"):
                        ignored["hidden file"] += 1
                    elif not member.isreg() or member.issparse():
                        skipped["link or special file"] += 1
                    elif suffix == METADATA:
                        ignored["metadata"] += 1
                    elif not kind:
                        others.append((key, member.name))
                    elif member.offset_data + member.size > size:
                        skipped["truncated shard"] = 1
                    elif member.size > (LARGEST_PICTURE if kind == "picture" else LARGEST_TEXT):
                        skipped["member too large"] += 1
                    elif kind in found.setdefault(key, {}):
                        skipped["second picture or text of a key"] += 1
                    else:
                        found[key][kind] = (member.offset_data, member.size)
                # tarfile takes a damaged header behind the first for the end, which is a block of zeros.
                file.seek(tar.offset)
                if any(file.read(tarfile.BLOCKSIZE)) and tar.offset < size:
                    skipped["truncated shard"] = 1
        except Exception:  # tarfile has many for a damaged header
            skipped["truncated shard" if members else "no tar archive"] = 1
    whole = {key for key, parts in found.items() if len(parts) == 2}
    unknown = [name for key, name in others if key not in whole]
    ignored.update({"further member of a pair": len(others) - len(unknown)} if len(others) > len(unknown) else {})
    skipped.update({"unknown member": len(unknown)} if unknown else {})
    extents = []
    for parts in found.values():
        if len(parts) == 1:
            skipped["no picture" if "text" in parts else "no text"] += 1
        elif len(parts) == 2 and parts["text"][1] == 0:
            skipped["empty text"] += 1
        elif parts:
            extents.append((*parts["picture"], *parts["text"]))
    array = np.array(extents, np.int64).reshape(-1, 4)
    return Index(array, dict(skipped), dict(ignored), members, unknown[0] if unknown else "")


def index(path: Path) -> Index:
    """The index of a shard, from the cache when the file is as it was (by place, size and time of change).

    A damaged index is made again; a cache that cannot be written is none.
    """
    kept, size = _place(path)
    found = _kept(kept, size)
    if found is None:
        found = scan(path)
        about = json.dumps([found.skipped, found.ignored, found.members, found.example])
        with suppress(OSError), replacing(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, extents=found.extents, about=np.array(about))
    return found


def _place(path: Path) -> tuple[Path, int]:
    """(where the index of a shard is kept, the shard's bytes). Raises DataError."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    key = hashlib.sha256(f"{VERSION} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:20]
    return cache_dir() / "shards" / f"{key}.npz", stat.st_size


def _kept(path: Path, size: int) -> Index | None:
    """The index in a file of the cache, or None when it is not there or not sound for a shard of so many bytes."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            extents = stored["extents"]
            skipped, ignored, members, example = json.loads(str(stored["about"]))
    except Exception:  # numpy and zipfile have many for a damaged file
        return None
    if extents.dtype != np.int64 or extents.ndim != 2 or extents.shape[1] != 4 or (extents < 0).any():
        return None
    is_inside = ((extents[:, 0] <= size - extents[:, 1]) & (extents[:, 2] <= size - extents[:, 3])).all()
    return Index(extents, skipped, ignored, members, example) if is_inside else None


class Shards:
    """All pairs of some shards, numbered in order. Raises DataError when there is no shard, or no pair in any.

    Args:
        patterns: paths, with braces for numbers.

    Attributes:
        missing: of the shards that the patterns name, those that are not there.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        named = [path for pattern in patterns for path in expand(pattern)]
        if len(named) > MOST_SHARDS:
            raise DataError(f"{', '.join(patterns)}: {len(named)} shards, expected at most {MOST_SHARDS}")
        self.paths = [path for path in named if path.is_file()]
        self.missing = [path for path in named if not path.is_file()]
        if not self.paths:
            raise DataError(f"none of {len(named)} shards is there: {', '.join(patterns)}")
        new = [size for kept, size in map(_place, self.paths) if not kept.is_file()]
        preparing(f"indexing {len(new)} shards", SECONDS_A_GIGABYTE * sum(new) / 2**30, str(cache_dir() / "shards"))
        indices = []
        with progress("indexing shards") as show:
            for number, path in enumerate(self.paths):
                indices.append(index(path))
                show(number + 1, len(self.paths))
        self.skipped: Counter[str] = Counter()
        for one in indices:
            self.skipped.update(one.skipped)
        self.example = next((one.example for one in indices if one.example), "")
        self.shard = np.repeat(np.arange(len(indices), dtype=np.int32), [len(one.extents) for one in indices])
        self.extents = np.concatenate([one.extents for one in indices])
        if not len(self.extents):
            raise DataError(f"{len(self.paths)} shards hold no pair of a picture and a text: {self.skipped_text()}")
        self._open: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.extents)

    def skipped_text(self) -> str:
        """Why members are no pair, and how many, with the name of one that is unknown."""
        example = f", e.g. {self.example}" if self.example else ""
        return f"{dict(self.skipped)}{example}"

    def __getstate__(self) -> dict[str, object]:
        """Open files stay in the process that opened them."""
        return self.__dict__ | {"_open": OrderedDict()}

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._open:
            self._open[shard] = os.open(self.paths[shard], os.O_RDONLY)
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(shard)
        found = os.pread(self._open[shard], size, offset)
        if len(found) < size:
            raise DataError("truncated shard")  # since it was indexed
        return found

    def where(self, number: int) -> str:
        """A name for messages."""
        return f"{self.paths[self.shard[number]]}, byte {self.extents[number, 0]}"

    def pair(self, number: int) -> tuple[Image.Image, str]:
        """RGB picture and text. Raises DataError for a picture that cannot be decoded and a text that says nothing."""
        shard = int(self.shard[number])
        at, size, text_at, text_size = self.extents[number].tolist()
        text = self._read(shard, text_at, text_size).decode("utf-8", "replace").strip()
        if not text:
            raise DataError("empty text")
        data = self._read(shard, at, size)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise DataError("picture too large")
                return picture.convert("RGB"), text
        except (DataError, MemoryError):
            raise
        except Exception as error:  # Pillow's plug-ins have many for a damaged file
            raise DataError("unreadable picture") from error
