"""What folders of image-text shards hold, and what of it training would skip."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rislab.data.check.report import EXAMPLES, Progress
from rislab.data.shards import Shards, index
from rislab.errors import DataError
from rislab.paths import is_hidden

NUMBERED = re.compile(r"(\d{5,})\.tar$")
"""img2dataset's names end in a number of five digits or more; archives of other data sets end in a year, if at all."""
DEEPEST = 2  # folders below the one that is checked
DECODED = 1000
"""Pairs of a folder that are decoded, evenly spread: all of a real set would take days."""


@dataclass
class ShardCheck:
    """Shards of one folder.

    headers of all shards. decoded: pairs that were decoded; unreadable: why some of these are of no use, and how many.

    Attributes:
        missing: numbers between the first and the last that no shard has.
        skipped: why members are no pair, and how many, by the
    """

    folder: str
    shards: int
    pairs: int
    missing: list[int]
    skipped: dict[str, int]
    decoded: int
    unreadable: dict[str, int]
    examples: list[str]

    @property
    def is_sound(self) -> bool:
        return not (self.missing or self.skipped or self.unreadable)


def folders(root: Path) -> dict[Path, list[Path]]:
    """Shards by folder, `root` among them."""
    found: dict[Path, list[Path]] = {}
    for depth in range(DEEPEST + 1):
        for path in sorted(root.glob("*/" * depth + "*.tar")):
            if NUMBERED.search(path.name) and not is_hidden(path) and path.is_file():
                found.setdefault(path.parent, []).append(path)
    return found


def check_shards(root: Path, decode: bool, progress: Progress | None) -> list[ShardCheck]:
    return [_check(folder, paths, decode, progress) for folder, paths in folders(root).items()]


def _check(folder: Path, paths: Sequence[Path], decode: bool, progress: Progress | None) -> ShardCheck:
    skipped: Counter[str] = Counter()
    examples: list[str] = []
    pairs = 0
    for number, path in enumerate(paths):
        one = index(path)
        pairs += len(one.extents)
        skipped.update(one.skipped)
        named = {"unknown member": f", e.g. {one.example}"}
        examples += [f"{path}: {count} x {reason}{named.get(reason, '')}" for reason, count in one.skipped.items()]
        if progress is not None:
            progress(number + 1, len(paths))
    unreadable: Counter[str] = Counter()
    decoded = min(pairs, DECODED) if decode else 0
    if decoded:
        shards = Shards([str(path) for path in paths])
        for number, at in enumerate(np.linspace(0, pairs - 1, decoded).astype(int).tolist()):
            try:
                shards.pair(at)
            except DataError as error:
                unreadable[str(error)] += 1
                examples.append(f"{shards.where(at)}: {error}")
            if progress is not None:
                progress(number + 1, decoded)
    return ShardCheck(
        str(folder), len(paths), pairs, _gaps(paths), dict(skipped), decoded, dict(unreadable), examples[:EXAMPLES]
    )


def _gaps(paths: Sequence[Path]) -> list[int]:
    """Of the names that differ in their number only; a folder may hold several series."""
    series: dict[str, set[int]] = {}
    for path in paths:
        match = NUMBERED.search(path.name)
        assert match is not None, "only numbered files come here"
        series.setdefault(path.name[: match.start()], set()).add(int(match.group(1)))
    return sorted({n for have in series.values() for n in range(min(have), max(have)) if n not in have})
