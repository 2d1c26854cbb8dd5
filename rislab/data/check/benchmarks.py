"""What is there of the open-vocabulary benchmarks, what is missing, and what is wrong with it: everything counted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rislab.data import benchmark_trees
from rislab.data.benchmark_trees import Benchmark, Item, Tree, benchmark, read_labels, read_picture, scored_classes
from rislab.data.check.report import EXAMPLES, FaultCount, PictureCheck, Progress
from rislab.data.decoding import header
from rislab.data.toy.vocabulary import RECIPE
from rislab.errors import DataError
from rislab.paths import contents, is_file

EVALUATED = "val"
"""The split looked at where no list names others."""


@dataclass
class TreeSplit:
    """deviates: how the number of pictures differs from the published one, "" if not."""

    images: int
    published: int | None
    deviates: str


@dataclass
class TreeCheck:
    """One release on disk. benchmarks: those that read the same label maps of it, by name.

    Attributes:
        notes: what is legal, and worth knowing.
        pictures: of all splits together.
    """

    benchmarks: list[str]
    title: str
    folder: str
    splits: dict[str, TreeSplit]
    missing_splits: list[str]
    faults: list[FaultCount]
    notes: dict[str, int]
    pictures: PictureCheck


def check_trees(root: Path, decode: bool, progress: Progress | None) -> list[TreeCheck]:
    """Every benchmark below a data root, or in its own folder. decode: also decode every picture; label maps are always read."""
    kept: dict[Path, Any] = {}  # what a file was found to be: COCO's pictures serve two benchmarks
    return [_check(tree, names, decode, progress, kept) for tree, names in trees(root)]


def trees(root: Path) -> list[tuple[Tree, list[str]]]:
    """Releases that are there, with the benchmarks that read the same files of them."""
    is_toy = is_file(root / RECIPE)
    found: dict[tuple[Path, str, str | None], tuple[Tree, list[str]]] = {}
    for name in benchmark_trees.known():
        of = benchmark(name)
        if name.startswith("toy") == is_toy and _is_there(root, of):
            tree = Tree(root, of)
            found.setdefault((tree.folder, of.labels, of.list_file), (tree, []))[1].append(name)
    return list(found.values())


def absent(root: Path) -> list[dict[str, Any]]:
    """Benchmarks that are not there, a release once, with what they need and where to get it."""
    there = {of.labels for of in (tree.of for tree, _ in trees(root))}
    missing: dict[str, dict[str, Any]] = {}
    for name in benchmark_trees.known():
        of = benchmark(name)
        if of.labels in there or of.is_variant or name.startswith("toy"):
            continue
        split = of.split_folders.get(EVALUATED, EVALUATED)
        images, labels, raw, listed = (
            "" if pattern is None else f"{of.folders[0]}/{pattern.format('NAME', split=split)}"
            for pattern in (of.images, of.labels, of.raw, of.list_file)
        )
        files = [images, f"{labels} or {raw}" if raw else labels, *([listed] if listed else [])]
        missing.setdefault(
            of.labels, {"dataset": name, "title": of.title, "files": files, "get": {"benchmark": of.get}}
        )
    return list(missing.values())


def _is_there(root: Path, of: Benchmark) -> bool:
    """Its own folder with pictures; `root` itself counts with label maps only, because many roots have a folder `images`."""
    split = of.split_folders.get(EVALUATED, EVALUATED)
    if of.is_variant:
        own = of.labels.format("*/*", split=split) if of.list_file is None else of.list_file.format(split=split)
        return any(next((root / folder).glob(own), None) is not None for folder in (*of.folders, ""))
    images, labels = (pattern.format("\0", split=split).split("\0")[0] for pattern in (of.images, of.labels))
    pictures, maps = (part if part.endswith("/") else part.rpartition("/")[0] for part in (images, labels))
    if any((root / folder / pictures).is_dir() for folder in of.folders):
        return True
    return (root / pictures).is_dir() and (root / maps).is_dir()


class _FaultTally:
    """Faults by kind, counted, the first few described."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        self.kinds.setdefault(kind, []).append(what)

    def counted(self) -> list[FaultCount]:
        return [FaultCount(kind, len(each), each[:EXAMPLES]) for kind, each in sorted(self.kinds.items())]


def _check(tree: Tree, names: list[str], decode: bool, progress: Progress | None, kept: dict[Path, Any]) -> TreeCheck:
    found, of = _FaultTally(), tree.of
    classes = len(scored_classes(of))
    splits: dict[str, TreeSplit] = {}
    missing_splits: list[str] = []
    items: dict[Path, Item] = {}
    for split in of.listed_splits if of.list_file is not None else (EVALUATED,):
        refused: list[str] = []
        try:
            listed = tree.listed(split, refused)
        except DataError as error:
            if is_file(tree.list_of(split)):
                found.add("unreadable list", str(error))
            else:
                missing_splits += [split] if split == EVALUATED else []
            continue
        for what in refused:
            found.add("name that is no file of the folder", what)
        for item in listed:
            items[item.image] = item
        splits[split] = _split(listed, of.counts.get(split))
        twice = len(listed) - len({item.name for item in listed})
        if twice:
            found.add("name listed twice", f"{split}: {twice} of {len(listed)} names")
    everything = list(items.values())
    missing = [str(item.image) for item in everything if not is_file(item.image)]

    def looked_at(item: Item) -> tuple[Any, Any]:
        size = _once(kept, item.image, lambda path: _picture(path, decode))
        return size, _once(kept, item.label, lambda path: _labels(path, of.label_channel))

    unreadable: list[str] = []
    occurring: set[int] = set()
    with ThreadPoolExecutor() as pool:  # decoding gives the interpreter free
        for number, (item, (size, stored)) in enumerate(zip(everything, pool.map(looked_at, everything), strict=True)):
            if isinstance(size, str):
                unreadable.append(size)
            if stored is None:
                found.add("missing label map", f"{item.label}: not found")
            elif isinstance(stored, str):
                found.add("unreadable label map", stored)
            else:
                shape, values = stored
                occurring.update(values)
                for value in tree.meaningless(values, item.is_raw, classes):
                    what = f"{item.label}: {value} in {values[value]} pixels"
                    found.add("value that is no label", what)
                if isinstance(size, tuple) and size != shape:
                    what = f"{item.label}: {shape[1]}x{shape[0]} pixels, its picture has {size[1]}x{size[0]}"
                    found.add("sizes differ", what)
            if progress is not None:
                progress(number + 1, len(everything))
    notes = {"label maps in the release's values, translated on the way": sum(item.is_raw for item in everything)}
    if everything and not any(item.is_raw for item in everything):
        labels = range(1, classes + 1) if of.reduce_zero_label else range(of.has_background, classes)
        notes["classes that occur in no label map"] = sum(label not in occurring for label in labels)
    return TreeCheck(
        names,
        " and ".join(benchmark(name).title for name in names),
        str(tree.folder),
        splits,
        missing_splits,
        found.counted(),
        {note: number for note, number in notes.items() if number},
        PictureCheck(
            len(everything),
            len(missing),
            len(unreadable) if decode or unreadable else None,
            [f"{path}: not found" for path in missing[:EXAMPLES]] + unreadable[:EXAMPLES],
        ),
    )


def _split(listed: list[Item], published: int | None) -> TreeSplit:
    count = len({item.name for item in listed})
    differs = published is not None and count != published
    return TreeSplit(count, published, f"{count} pictures (published: {published})" if differs else "")


def _once(kept: dict[Path, Any], path: Path, look: Callable[[Path], Any]) -> Any:
    if path not in kept:
        kept[path] = look(path)
    return kept[path]


def _picture(path: Path, decode: bool) -> tuple[int, int] | str | None:
    """(height, width), or what is wrong with it; None when it is not there."""
    if not is_file(path):
        return None
    try:
        if decode:
            height, width = read_picture(path).shape[:2]
            return height, width
        found = header(contents(path), str(path))
    except DataError as error:
        return str(error)
    return found.height, found.width


def _labels(path: Path, channel: int | None) -> tuple[tuple[int, int], dict[int, int]] | str | None:
    """Size and pixels by stored value, or what is wrong; None when it is not there."""
    if not is_file(path):
        return None
    try:
        values = read_labels(path, channel=channel)
    except DataError as error:
        return str(error)
    found, pixels = np.unique(values, return_counts=True)
    return (values.shape[0], values.shape[1]), dict(zip(found.tolist(), pixels.tolist(), strict=True))
