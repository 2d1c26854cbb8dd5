"""Image-text pairs in tar shards, as img2dataset writes them (CC3M, CC12M, YFCC, RedCaps): KEY.jpg and KEY.txt, side by side.

Shards are indexed once (a scan of their headers, kept in the user's cache folder), then any pair can be read by itself. That is
why an epoch knows its length, ranks and loader processes never share a pair, any number of processes is served by any number of
shards, and a run goes on in the middle of an epoch with the very pairs that it would have seen; a stream of shards can promise
none of it.
"""

import hashlib
import io
import os
import re
import tarfile
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rislab.errors import DataError
from rislab.files import cache_dir, replacing
from rislab.paths import user_path

IMAGES, TEXTS = ("jpg", "png", "jpeg"), ("txt", "text")
OPEN_FILES = 32
VERSION = 1
"""Of the index files."""


def expand(pattern: str) -> list[Path]:
    """`cc3m/gcc-{000000..000347}.tar` -> 348 paths; the digits of the first number are kept. Without braces: that one path."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [user_path(pattern)]
    first, last = match.group(1), match.group(2)
    if int(first) > int(last):
        raise DataError(f"{pattern}: {first} comes after {last}")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for n in range(int(first), int(last) + 1) for path in expand(f"{before}{n:0{len(first)}d}{after}")]


@dataclass(frozen=True)
class Index:
    """Where the pairs of one shard lie.

    places: int64 [N, 4], offset and size of the picture, offset and size of the text. skipped: why members are no pair, and
        how many.
    """

    places: NDArray[np.int64]
    skipped: dict[str, int]


def scan(path: Path) -> Index:
    """Read a shard's headers. Never raises for what is in it: a shard that ends early gives the pairs before."""
    skipped: Counter[str] = Counter()
    members: dict[str, dict[str, tuple[int, int]]] = {}
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                kind = "image" if suffix.lower() in IMAGES else "text" if suffix.lower() in TEXTS else ""
                if not member.isfile() or not kind:
                    continue
                if member.offset_data + member.size > size:
                    skipped["truncated shard"] = 1
                    continue
                members.setdefault(f"{folder}/{stem}", {}).setdefault(kind, (member.offset_data, member.size))
    except (tarfile.TarError, EOFError, OSError):
        skipped["truncated shard"] = 1
    places = []
    for parts in members.values():
        if len(parts) < 2:
            skipped["no picture" if "text" in parts else "no text"] += 1
        elif parts["text"][1] == 0:
            skipped["empty text"] += 1
        else:
            places.append((*parts["image"], *parts["text"]))
    return Index(np.array(places, np.int64).reshape(-1, 4), dict(skipped))


def index(path: Path) -> Index:
    """The index of a shard, from the cache when the file is as it was (by place, size and time of change)."""
    stat = path.stat()
    key = hashlib.sha256(f"{VERSION} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:20]
    kept = cache_dir() / "shards" / f"{key}.npz"
    if kept.exists():
        with np.load(kept) as stored:
            return Index(
                stored["places"], dict(zip(stored["reasons"].tolist(), stored["counts"].tolist(), strict=True))
            )
    found = scan(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    reasons, counts = list(found.skipped), list(found.skipped.values())
    with replacing(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, places=found.places, reasons=np.array(reasons, str), counts=np.array(counts, np.int64))
    return found


class Shards:
    """All pairs of some shards, numbered in order. Raises DataError when there is no shard, or no pair in any.

    patterns: paths, with braces for numbers. missing: of the shards that the patterns name, those that are not there.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        named = [path for pattern in patterns for path in expand(pattern)]
        self.paths = [path for path in named if path.is_file()]
        self.missing = [path for path in named if not path.is_file()]
        if not self.paths:
            raise DataError(f"none of {len(named)} shards is there: {', '.join(patterns)}")
        indices = [index(path) for path in self.paths]
        self.skipped: Counter[str] = Counter()
        for one in indices:
            self.skipped.update(one.skipped)
        self.shard = np.repeat(np.arange(len(indices), dtype=np.int32), [len(one.places) for one in indices])
        self.places = np.concatenate([one.places for one in indices])
        if not len(self.places):
            raise DataError(f"{len(self.paths)} shards hold no pair of a picture and a text: {dict(self.skipped)}")
        self._open: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.places)

    def __getstate__(self) -> dict[str, object]:
        """Open files stay in the process that opened them."""
        return self.__dict__ | {"_open": OrderedDict()}

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._open:
            self._open[shard] = os.open(self.paths[shard], os.O_RDONLY)
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(shard)
        return os.pread(self._open[shard], size, offset)

    def where(self, number: int) -> str:
        """A name for messages."""
        return f"{self.paths[self.shard[number]]}, byte {self.places[number, 0]}"

    def pair(self, number: int) -> tuple[Image.Image, str]:
        """RGB picture and text. Raises DataError for a picture that cannot be decoded and a text that says nothing."""
        shard = int(self.shard[number])
        at, size, text_at, text_size = self.places[number].tolist()
        text = self._read(shard, text_at, text_size).decode("utf-8", "replace").strip()
        if not text:
            raise DataError("empty text")
        try:
            with Image.open(io.BytesIO(self._read(shard, at, size))) as picture:
                return picture.convert("RGB"), text
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError("unreadable picture") from error
