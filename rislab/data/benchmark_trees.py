"""Benchmarks of open-vocabulary segmentation: pictures, label maps and class names from their official trees.

A benchmark is a module of `rislab/data/benchmarks`; class names are files of `rislab/data/names`, because changing a name changes
a score by several points: mmsegmentation's strings, which TCL takes as they are, and the renames that others publish with.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from rislab.data import benchmarks, decoding
from rislab.errors import ConfigError, DataError, brief, nearest
from rislab.paths import contents, is_file, lines, unsafe_name, visible

IGNORE = 255
NAMES = Path(__file__).parent / "names"


@dataclass(frozen=True)
class Benchmark:
    """title: as reports print it. folders: below the data root; the first that is there is taken.

    Attributes:
        images, labels: files below the folder; `{split}` is the split's folder, `{}` the picture's name.
        list_file: names of a split, one a line; None: whatever pictures there are, sorted.
        names: file of `rislab/data/names`, by label.
        has_background: label 0 is background, the named classes follow from 1.
        reduce_zero_label: label 0 is ignored, the others count from 0.
        raw, raw_labels: label files of the release before the usual conversion, and what each value means; used where `labels` is
            absent, or the same file.
        split_folders: what a split's folder is called, if not by the split.
        counts: published numbers of pictures.
        get: where to get it.
        listed_splits: splits with label maps, where lists name them: TCL watches its training on VOC's and Context's train.
        groups: file of `rislab/data/names` with groups of the names: each name is a query, answers and labels count by group.
            Such a benchmark is for scoring alone.
        answers: of that file, other groups of single names for answers alone; None: those of labels.
        label_channel: of label maps in colours, the channel that holds the label; RGB.
        is_variant: it shares its pictures with another benchmark; `data check` looks at it where its own list or maps are.
    """

    title: str
    folders: tuple[str, ...]
    images: str
    labels: str
    names: str
    list_file: str | None = None
    has_background: bool = False
    reduce_zero_label: bool = False
    raw: str | None = None
    raw_labels: Mapping[int, int] = field(default_factory=dict)
    split_folders: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    get: str = ""
    listed_splits: tuple[str, ...] = ("train", "val")
    groups: str | None = None
    answers: str | None = None
    label_channel: int | None = None
    is_variant: bool = False


def known() -> list[str]:
    """Names of the benchmarks."""
    return [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]


def benchmark(name: str) -> Benchmark:
    """Raises ConfigError naming the nearest one."""
    there = known()
    if name not in there:
        raise ConfigError(f"no benchmark {name!r}; there are {', '.join(there)}{nearest(name, there)}")
    found = importlib.import_module(f"{benchmarks.__name__}.{name}").BENCHMARK
    assert isinstance(found, Benchmark)
    return found


@cache
def class_names(file: str, name_set: str) -> tuple[str, ...]:
    """Names by label, background not among them. Raises ConfigError for a set that is not there."""
    content = _content(file)
    first = _first_set(file)
    renames: dict[str, dict[str, str]] = {first: {}} | content["renames"]
    if name_set not in renames:
        raise ConfigError(
            f"no names {name_set!r} of {file} were found in a source; there are {', '.join(renames)}{nearest(name_set, renames)}"
        )
    changed = renames[name_set]
    return tuple(changed.get(name, name) for name in content[first])


def scored_classes(of: Benchmark, name_set: str | None = None) -> tuple[str, ...]:
    """What labels stand for, in their order: groups of names, or the names, after background where there is one.

    Args:
        of: the benchmark.
        name_set: None: the one that its file begins with. Groups have the same names in all.

    Raises:
        ConfigError: A set of names that is not there.
    """
    if of.groups is not None:
        return tuple(_content(of.groups)["groups"])
    names = class_names(of.names, name_set or _first_set(of.names))
    return ("background", *names) if of.has_background else names


def group_of_name(of: Benchmark, for_answers: bool = False) -> tuple[int, ...] | None:
    """The group of each name, by number; None for a benchmark without groups.

    Args:
        of: the benchmark.
        for_answers: where answers count, not labels; the same but for what `Benchmark.answers` says.
    """
    if of.groups is None:
        return None
    content = _content(of.groups)
    numbers = {group: number for number, group in enumerate(content["groups"])}
    found = {name: numbers[group] for group, members in content["groups"].items() for name in members}
    if for_answers and of.answers is not None:
        found |= {name: numbers[group] for name, group in content["answers"][of.answers].items()}
    return tuple(found[name] for name in class_names(of.names, _first_set(of.names)))


@cache
def _content(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((NAMES / f"{file}.yaml").read_text())
    return content


def _first_set(file: str) -> str:
    """The set of names that a file gives in full."""
    return next(key for key, value in _content(file).items() if isinstance(value, list))


@dataclass(frozen=True)
class Item:
    """One picture and its label map on disk; is_raw: in the values of the release."""

    name: str
    image: Path
    label: Path
    is_raw: bool


class Tree:
    """A benchmark's files below a data root.

    Args:
        root: folder that holds the benchmark's folder, or that folder itself.

    Raises:
        DataError: Where neither is there.
    """

    def __init__(self, root: Path, of: Benchmark) -> None:
        self.of = of
        candidates = [root / folder for folder in of.folders]
        self.folder = next((path for path in candidates if path.is_dir()), root)
        if not (self.folder / self._top).is_dir():
            wanted = ", ".join(str(path / self._top) for path in candidates)
            raise DataError(f"{root}: no {of.title} here; looked for {wanted} and {root / self._top}")

    @property
    def _top(self) -> str:
        return self.of.images.split("/")[0].format(split="val")

    def _path(self, pattern: str, split: str, name: str) -> Path:
        return self.folder / pattern.format(name, split=self.of.split_folders.get(split, split))

    def items(self, split: str) -> list[Item]:
        """Raises DataError: no such split, pictures or label maps that are not there (the first of them, and how many)."""
        found = self.listed(split)
        missing = [path for item in found for path in (item.image, item.label) if not is_file(path)]
        if missing:
            raise DataError(f"{self.of.title}, {split}: {len(missing)} files are missing, the first is {missing[0]}")
        return found

    def listed(self, split: str, refused: list[str] | None = None) -> list[Item]:
        """The same, whether the files are there or not.

        Args:
            refused: takes what is wrong with names that cannot be files of this folder; without it the first one raises.

        Raises:
            DataError: No such split, a list that is no text.
        """
        found = []
        for name in self._names(split):
            reason = unsafe_name(name)
            if reason:
                what = f"{self.list_of(split)}: the name {brief(name)} {reason}"
                if refused is None:
                    raise DataError(what)
                refused.append(what)
                continue
            image, label = self._path(self.of.images, split, name), self._path(self.of.labels, split, name)
            raw = None if self.of.raw is None else self._path(self.of.raw, split, name)
            is_raw = raw is not None and (raw == label or (not is_file(label) and is_file(raw)))
            found.append(Item(name, image, raw if is_raw and raw is not None else label, is_raw))
        return found

    def list_of(self, split: str) -> Path:
        """The file that lists a split's names, or the folder that its pictures lie in."""
        return self._path(self.of.list_file or self.of.images.rpartition("{}")[0], split, "")

    def _names(self, split: str) -> Sequence[str]:
        if self.of.list_file is not None:
            path = self.list_of(split)
            if not is_file(path):
                raise DataError(f"{self.of.title}: no list of split {split!r}, expected at {path}")
            return lines(path)
        before, after = self.of.images.format("\0", split=self.of.split_folders.get(split, split)).split("\0")
        folder = self.folder / before
        there = visible(folder.rglob(f"*{after}"), folder)
        names = sorted(str(path.relative_to(folder))[: -len(after)] for path in there)
        if not names:
            raise DataError(f"{self.of.title}: no pictures of split {split!r} below {folder}")
        return names

    def sample(self, item: Item, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A picture, uint8 RGB [h, w, 3] as stored, and its labels [h, w]. Raises DataError that names both when sizes differ."""
        data = contents(item.image)
        image = decoding.picture(data, str(item.image))
        height, width = image.shape[:2]
        return image, self.label(item, classes, expected_of(item, data, height, width))

    def label(self, item: Item, classes: int, expected: decoding.Expected | None = None) -> NDArray[np.uint8]:
        """uint8 [h, w]: 0 .. classes - 1, and 255 where nothing is scored. Raises DataError for a value that means nothing."""
        values = read_labels(item.label, expected, self.of.label_channel)
        table, valid = self._table(item.is_raw, classes)
        wrong = [value for value in np.unique(values).tolist() if not valid[value]]
        if wrong:
            raise DataError(f"{item.label}: value {wrong[0]} is no label of {self.of.title} ({classes} classes)")
        return table[values]

    def meaningless(self, values: Iterable[int], is_raw: bool, classes: int) -> list[int]:
        """Those of some stored values that are no label."""
        _, valid = self._table(is_raw, classes)
        return [value for value in values if not valid[value]]

    def _table(self, is_raw: bool, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """What each stored value means, looked up at once: a map applied value by value would map what it has mapped."""
        table, valid = np.full(256, IGNORE, np.uint8), np.zeros(256, bool)
        groups = group_of_name(self.of)
        classes = classes if groups is None else len(groups)
        if is_raw:
            meant = dict(self.of.raw_labels)
        elif self.of.reduce_zero_label:
            meant = {0: IGNORE, IGNORE: IGNORE} | {label + 1: label for label in range(classes)}
        else:
            meant = {IGNORE: IGNORE} | {label: label for label in range(classes)}
        for value, label in meant.items():
            table[value] = label if groups is None or label == IGNORE else groups[label]
            valid[value] = True
        return table, valid


def expected_of(item: Item, data: bytes, height: int, width: int) -> decoding.Expected:
    """The size that a label map must have: that of its picture's stored pixels.

    Args:
        data: the encoded picture.
        height, width: of its stored pixels.
    """
    value = decoding.orientation(data)
    turned = f" (EXIF orientation {value} is not applied: label maps are drawn on stored pixels)" if value > 1 else ""
    return decoding.Expected(height, width, f"its picture {item.image}{turned} has")


def read_labels(path: Path, expected: decoding.Expected | None = None, channel: int | None = None) -> NDArray[np.uint8]:
    """Stored values of a label map, uint8 [h, w]; see `decoding.label_map`. Raises DataError."""
    return decoding.label_map(contents(path), str(path), expected, channel)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 RGB [h, w, 3] as it is stored: EXIF orientation is not applied; see `decoding.picture`. Raises DataError."""
    return decoding.picture(contents(path), str(path))


def fitted(image: NDArray[np.uint8], short: int, long: int) -> NDArray[np.uint8]:
    """Scaled, ratio kept, to the largest size whose short side is at most `short` and long side at most `long`; bilinear.

    Source: mmcv.imrescale with a tuple, as mmsegmentation 0.x resizes for testing: sides are int(side * scale + 0.5).
    """
    height, width = image.shape[:2]
    scale = min(long / max(height, width), short / min(height, width))
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
