"""PASCAL-5i, COCO-20i and FSS-1000: pictures with one class each, from their official files.

    VOC2012/   JPEGImages/ID.jpg  SegmentationClassAug/ID.png               splits/pascal/{trn,val}/fold{0..3}.txt
    COCO2014/  {train,val}2014/NAME.jpg  annotations/{train,val}2014/NAME.png    splits/coco/{trn,val}/fold{0..3}.pkl
    FSS-1000/  CLASS/{1..10}.jpg  CLASS/{1..10}.png                         splits/fss/{trn,val,test}.txt

Source: juhongm999/hsnet, whose files isl-org/lang-seg took over; test episodes are those of its code with seed 0 and no support.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.data import decoding
from rislab.data.benchmark_trees import class_names, read_labels
from rislab.data.plain_pickle import unpickled
from rislab.errors import ConfigError, DataError, about, brief, nearest
from rislab.paths import contents, is_file, lines, unsafe_name

FOLDS = 4
IGNORED = 255
OTHERS = "other_folds"
"""Name of the split of the classes of all other folds, in turn, in pictures that training does not see."""
FSS_PICTURES = 10
"""Of each class."""


@dataclass(frozen=True)
class Pair:
    """A picture and the class that is to be segmented in it.

    Attributes:
        picture: Its file, below the set's folder.
        class_id: From 0.
    """

    picture: str
    class_id: int


def numbers_of(pairs: Sequence[Pair]) -> dict[str, int]:
    """The distinct pictures of some pairs with their numbers, in order."""
    return {name: number for number, name in enumerate(sorted({pair.picture for pair in pairs}))}


def stretched(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask [h, w] at another size (height, width): the pixels that torch's `nearest` picks; official scores depend on it."""
    rows, columns = (_picked(old, new) for old, new in zip(mask.shape, size, strict=True))
    return mask[rows][:, columns]


def _picked(old: int, new: int) -> NDArray[np.int64]:
    """Places of `new` pixels among `old` ones; torch computes them in single precision."""
    scale = np.float32(old) / np.float32(new)
    places = np.floor(np.arange(new, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(places, old - 1)


class EpisodeFiles(ABC):
    """One of the sets on disk.

    Args:
        root: Holds the set's folder.
        split_files: Holds `pascal`, `coco` or `fss`; None for `splits` below the root.
        names: Of all classes, by number; None for the official ones.

    Attributes:
        title: As reports print it.
        folder: Of pictures and masks, below the root.
        has_folds: Whether the classes are divided into four folds.
        val, test: Names of the splits that validation and test read.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    has_folds: ClassVar[bool] = True
    val: ClassVar[str] = "val"
    test: ClassVar[str] = "val"

    def __init__(self, root: Path, split_files: Path | None = None, names: Sequence[str] | None = None) -> None:
        self.root = root / self.folder
        self.split_files = split_files or root / "splits"
        self._names = None if names is None else tuple(names)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of all classes, by number."""

    @abstractmethod
    def classes(self, fold: int, split: str) -> tuple[int, ...]:
        """Numbers of the classes of a split, ascending; of a fold: those that it tests, or all the others for `OTHERS`."""

    @abstractmethod
    def training(self, fold: int) -> list[Pair]:
        """Every (picture, class) pair that training may see. Raises DataError."""

    def tested(self, fold: int) -> set[str]:
        """Pictures of the training lists that hold a class that the fold tests. Raises DataError, for no folds, too."""
        raise DataError(f"{self.title} has no folds")

    @abstractmethod
    def episodes(self, fold: int, split: str, count: int) -> list[Pair]:
        """The episodes of a split, the same in every run. Raises DataError.

        Args:
            fold: Its number.
            split: Its name.
            count: Episodes; of no effect where a split is a fixed list.
        """

    def drawn(self, fold: int, split: str, count: int) -> list[Pair]:
        """As `episodes`, or for `OTHERS`: classes of the other folds, which training sees, in pictures that it does not see.

        Raises:
            DataError: As `episodes`; a set without folds.
        """
        if split != OTHERS:
            return self.episodes(fold, split, count)
        if not self.has_folds:
            raise DataError(f"{self.title} has no folds, so no other folds to validate on")
        each = [self.episodes(other, self.val, count) for other in range(FOLDS) if other != fold]
        return [pair for together in zip(*each, strict=True) for pair in together][:count]

    @abstractmethod
    def label_path(self, picture: str) -> str:
        """The mask's file of a picture, below the set's folder."""

    def order(self, pairs: Sequence[Pair], rng: np.random.Generator) -> NDArray[np.int64]:
        """An epoch of training: numbers of pairs, each once, shuffled."""
        return rng.permutation(len(pairs))

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raises DataError for files that are not there: the first of them, and how many."""
        pictures = dict.fromkeys(pair.picture for pair in pairs)
        wanted = (self.root / name for picture in pictures for name in (picture, self.label_path(picture)))
        missing = [path for path in wanted if not is_file(path)]
        if missing:
            raise DataError(f"{self.title}: {len(missing)} files are missing, the first is {missing[0]}")

    def sample(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A picture, uint8 RGB [h, w, 3] as stored, and its mask [h, w]: 1 the class, 0 the rest, 255 ignored.

        Raises:
            DataError: Damaged files, sizes that differ, a value that is no label.
        """
        path = self.root / pair.picture
        image = decoding.picture(contents(path), str(path))
        height, width = image.shape[:2]
        expected = decoding.Expected(height, width, f"its picture {path} has")
        return image, self._mask(self.root / self.label_path(pair.picture), pair.class_id, expected)

    def mask(self, pair: Pair) -> NDArray[np.uint8]:
        """The mask of `sample` alone; of the picture, only the header is read. Raises DataError."""
        path = self.root / pair.picture
        found = decoding.header(contents(path), str(path))
        expected = decoding.Expected(found.height, found.width, f"its picture {path} has")
        return self._mask(self.root / self.label_path(pair.picture), pair.class_id, expected)

    def _mask(self, path: Path, class_id: int, expected: decoding.Expected) -> NDArray[np.uint8]:
        values = read_labels(path, expected)
        strange = [
            v for v in np.unique(values).tolist() if v > len(self.names) and not (v == IGNORED and self._ignores)
        ]
        if strange:
            raise DataError(f"{path}: value {strange[0]} is no label of {self.title} ({len(self.names)} classes)")
        mask = (values == class_id + 1).astype(np.uint8)
        mask[values == IGNORED] = IGNORED
        return mask

    _ignores: ClassVar[bool] = False


class Pascal5i(EpisodeFiles):
    """20 classes in blocks of five. Test: a list in file order, from the beginning again until there are 1,000 episodes."""

    title = "PASCAL-5i"
    folder = "VOC2012"
    _ignores = True

    @property
    def names(self) -> tuple[str, ...]:
        return self._names or class_names("voc", "mmseg")

    def classes(self, fold: int, split: str) -> tuple[int, ...]:
        block = len(self.names) // FOLDS
        own = range(fold * block, (fold + 1) * block)
        return tuple(number for number in range(FOLDS * block) if number not in own) if split == OTHERS else tuple(own)

    def label_path(self, picture: str) -> str:
        return f"SegmentationClassAug/{Path(picture).stem}.png"

    def training(self, fold: int) -> list[Pair]:
        return [pair for other in range(FOLDS) if other != fold for pair in self._listed("trn", other)]

    def tested(self, fold: int) -> set[str]:
        return {pair.picture for pair in self._listed("trn", fold)}

    def episodes(self, fold: int, split: str, count: int) -> list[Pair]:
        listed = self._listed("val", fold)
        return [listed[number % len(listed)] for number in range(count)]

    def _listed(self, split: str, fold: int) -> list[Pair]:
        path = self.split_files / "pascal" / split / f"fold{fold}.txt"
        found, classes = [], self.classes(fold, split)
        for number, line in enumerate(lines(path), 1):
            name, _, label = line.rpartition("__")
            class_id = int(label) - 1 if label.isascii() and label.isdigit() else -1
            if not name or unsafe_name(name) or "/" in name:
                raise DataError(f"{path}:{number}: {brief(line)}, expected IMAGE__CLASS")
            if class_id not in classes:
                raise DataError(
                    f"{path}:{number}: class {brief(label)}, fold {fold} has {classes[0] + 1} to {classes[-1] + 1}"
                )
            found.append(Pair(f"JPEGImages/{name}.jpg", class_id))
        if not found:
            raise DataError(f"{path}: holds no pair of a picture and a class")
        return found


class Coco20i(EpisodeFiles):
    """80 classes, every fourth of them in a fold. A class is drawn, then one of its pictures, in training and test alike."""

    title = "COCO-20i"
    folder = "COCO2014"

    @property
    def names(self) -> tuple[str, ...]:
        return self._names or class_names("coco_things", "lseg")

    def classes(self, fold: int, split: str) -> tuple[int, ...]:
        return tuple(number for number in range(len(self.names)) if (number % FOLDS == fold) != (split == OTHERS))

    def label_path(self, picture: str) -> str:
        return f"annotations/{picture.removesuffix('.jpg')}.png"

    def training(self, fold: int) -> list[Pair]:
        held = self.classes(fold, "val")
        classes = [number for number in range(len(self.names)) if number not in held]
        pictures = self._pictures("trn", fold, classes)
        return [Pair(picture, number) for number in classes for picture in pictures[number]]

    def tested(self, fold: int) -> set[str]:
        """By the list of another fold, for which the same classes are trained on."""
        of_classes = self._pictures("trn", (fold + 1) % FOLDS, self.classes(fold, "val"))
        return {picture for pictures in of_classes.values() for picture in pictures}

    def episodes(self, fold: int, split: str, count: int) -> list[Pair]:
        """The draws of numpy's generator of before 1.17 with seed 0: `choice` without replacement permutes the whole list."""
        classes = self.classes(fold, split)
        pictures = self._pictures("val", fold, classes)
        rng, found = np.random.RandomState(0), []
        for _ in range(count):
            number = classes[int(rng.choice(len(classes), 1, replace=False)[0])]
            at = int(rng.choice(len(pictures[number]), 1, replace=False)[0])
            found.append(Pair(pictures[number][at], number))
        return found

    def order(self, pairs: Sequence[Pair], rng: np.random.Generator) -> NDArray[np.int64]:
        """As many draws as there are pictures: a class uniformly, then one of its pairs."""
        classes, first, counts = np.unique([pair.class_id for pair in pairs], return_index=True, return_counts=True)
        chosen = rng.integers(0, len(classes), len({pair.picture for pair in pairs}))
        return np.asarray(first[chosen] + rng.integers(0, counts[chosen]), np.int64)

    def _pictures(self, split: str, fold: int, classes: Sequence[int]) -> Mapping[int, list[str]]:
        """Pictures of each class, in the order of the file."""
        path = self.split_files / "coco" / split / f"fold{fold}.pkl"
        with about(path):
            held = unpickled(contents(path))
            if not isinstance(held, dict) or not all(type(key) is int for key in held):
                raise DataError(f"expected a dict from class numbers to lists of pictures, found {brief(held)}")
            for number in classes:
                self._check_names(held.get(number), number)
        return {number: held[number] for number in classes}

    def _check_names(self, pictures: Any, number: int) -> None:
        what = f"class {number}, {self.names[number]!r}"
        if not isinstance(pictures, list) or not pictures:
            raise DataError(f"{what}: no picture, so no episode of it can be drawn")
        for name in pictures:
            if not isinstance(name, str) or unsafe_name(name) or not name.endswith(".jpg"):
                raise DataError(f"{what}: {brief(name)} is no name of a picture, expected val2014/COCO_val2014_*.jpg")


class FSS1000(EpisodeFiles):
    """1,000 classes of ten pictures; 520 for training, 240 for validation, 240 for test, all pictures of each."""

    title = "FSS-1000"
    folder = "FSS-1000"
    has_folds = False
    test = "test"

    def __init__(self, root: Path, split_files: Path | None = None, names: Sequence[str] | None = None) -> None:
        super().__init__(root, split_files, names)
        self._lists: dict[str, list[str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all splits: a class's number is its place in the sorted list of its split, behind those of the splits before."""
        return tuple(name for split in ("trn", "val", "test") for name in self._listed(split))

    def classes(self, fold: int, split: str) -> tuple[int, ...]:
        before = {"trn": (), "val": ("trn",), "test": ("trn", "val")}[split]
        first = sum(len(self._listed(other)) for other in before)
        return tuple(range(first, first + len(self._listed(split))))

    def label_path(self, picture: str) -> str:
        return f"{picture.removesuffix('.jpg')}.png"

    def training(self, fold: int) -> list[Pair]:
        return self.episodes(fold, "trn", 0)

    def episodes(self, fold: int, split: str, count: int) -> list[Pair]:
        # In the order of the names as texts: 1, 10, 2, ...
        pictures = sorted(f"{number}.jpg" for number in range(1, FSS_PICTURES + 1))
        named = zip(self.classes(fold, split), self._listed(split), strict=True)
        return [Pair(f"{name}/{picture}", number) for number, name in named for picture in pictures]

    def _listed(self, split: str) -> list[str]:
        if split in self._lists:
            return self._lists[split]
        path = self.split_files / "fss" / f"{split}.txt"
        found = sorted(lines(path))
        for name in found:
            if unsafe_name(name) or "/" in name:
                raise DataError(f"{path}: the name {brief(name)} {unsafe_name(name) or 'has a folder in it'}")
        if not found:
            raise DataError(f"{path}: holds no class")
        self._lists[split] = found
        return found

    def _mask(self, path: Path, class_id: int, expected: decoding.Expected) -> NDArray[np.uint8]:
        """Foreground is what is at least 128 as grey; colours by the weights of ITU-R 601, as Pillow makes them grey."""
        rgb = decoding.picture(contents(path), str(path), expected, noun="mask").astype(np.uint32)
        grey = (rgb @ np.array([19595, 38470, 7471], np.uint32) + 0x8000) >> 16
        return (grey >= 128).astype(np.uint8)


SETS: dict[str, type[EpisodeFiles]] = {"pascal5i": Pascal5i, "coco20i": Coco20i, "fss1000": FSS1000}


def files_of(
    name: str, root: Path, split_files: Path | None = None, names: Sequence[str] | None = None
) -> EpisodeFiles:
    """The files of a set. Raises ConfigError naming the nearest one."""
    if name not in SETS:
        raise ConfigError(f"no set of episodes {name!r}; there are {', '.join(SETS)}{nearest(name, SETS)}")
    return SETS[name](root, split_files, names)
