"""The toy world in the layouts of PASCAL-5i, COCO-20i and FSS-1000: 16 kinds of things in folds of four.

A kind is a pattern with a colour. Every colour of a fold appears in other folds with the other pattern: a name that was never
trained on is made of words that were.
"""

import pickle
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rislab.data.benchmark_trees import class_names
from rislab.data.episodes import FOLDS, FSS_PICTURES
from rislab.data.toy.kinds import kinds_scene
from rislab.data.toy.scene import say_drawing
from rislab.data.toy.vocabulary import jpeg, labels
from rislab.errors import DataError
from rislab.files import read_json, write_json

VERSION = 1
"""Raise it when the same recipe would give other bytes."""

RECIPE = "folds.json"
COLOURS = 8
IGNORED = 255


def blocks() -> list[list[int]]:
    """Kinds of each fold, places in `rislab.data.toy.kinds.KINDS`: two plain ones, and two striped ones of the next colours."""
    per = COLOURS // FOLDS
    plain = [[2 * (fold * per + k) for k in range(per)] for fold in range(FOLDS)]
    striped = [[2 * ((fold + 1) % FOLDS * per + k) + 1 for k in range(per)] for fold in range(FOLDS)]
    return [one + other for one, other in zip(plain, striped, strict=True)]


@dataclass(frozen=True)
class ToyFolds:
    """The recipe.

    Attributes:
        scenes: Pictures of the first two sets, two thirds of them for training.
        size: Their side.
        seed: Of everything.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {
        "rislab.data.toy.folds.VERSION": {},
        "rislab.data.toy.vocabulary.VERSION": {},
    }

    scenes: int = 300
    size: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("scenes", self.scenes, 90), ("size", self.size, 48)):
            if value < least:
                raise DataError(f"{name} of toy folds is {value}, expected {least} or more")

    @property
    def recipe(self) -> dict[str, Any]:
        return asdict(self) | {"version": VERSION}

    def names(self, name: str) -> tuple[str, ...]:
        """The classes of a set by number; of FSS-1000 they stand in its lists."""
        words = class_names("toy", "mmseg")
        return tuple(words[kind] for kind in self._kinds(name))

    @staticmethod
    def _kinds(name: str) -> list[int]:
        """Kinds by class number: in blocks for PASCAL-5i, in turn for COCO-20i."""
        folds = blocks()
        if name == "coco20i":
            return [kind for together in zip(*folds, strict=True) for kind in together]
        return [kind for fold in folds for kind in fold]

    def write(self, root: Path) -> None:
        """Write it to `root`, all or nothing; do nothing when it is there. DataError when something else is."""
        held = read_json(root / RECIPE)
        if held == self.recipe:
            return
        if (
            root.exists()
            and any(root.iterdir())
            and not (isinstance(held, dict) and held.get("version", VERSION) < VERSION)
        ):
            raise DataError(f"{root} holds {held or 'other files'}; choose another folder or remove it")
        say_drawing(self.scenes, self.size, root)
        unfinished = root.with_name(f".{root.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._write_scenes(unfinished)
            self._write_fss(unfinished)
            write_json(unfinished / RECIPE, self.recipe)
            shutil.rmtree(root, ignore_errors=True)
            unfinished.rename(root)
        except OSError as error:
            raise DataError(f"{root}: the toy folds could not be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _scene(self, *key: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A picture and its kinds from 1, 0 for the ground, 255 along edges."""
        drawn = kinds_scene(np.random.default_rng([self.seed, *key]), self.size)
        return drawn.image, labels(drawn)

    def _write_scenes(self, root: Path) -> None:
        """Both sets show the same scenes; their class numbers differ."""
        voc, coco = root / "VOC2012", root / "COCO2014"
        for folder in (voc / "JPEGImages", voc / "SegmentationClassAug"):
            folder.mkdir(parents=True)
        listed: dict[tuple[str, int], list[str]] = defaultdict(list)
        pickled: dict[str, dict[int, list[str]]] = {split: defaultdict(list) for split in ("trn", "val")}
        numbers = {name: _numbers(self._kinds(name)) for name in ("pascal5i", "coco20i")}
        for number in range(self.scenes):
            split = "val" if number % 3 == 2 else "trn"
            image, kinds = self._scene(21, number)
            data, name = jpeg(image), f"2026_{number:06d}"
            values = numbers["pascal5i"][kinds]
            (voc / "JPEGImages" / f"{name}.jpg").write_bytes(data)
            Image.fromarray(values).save(voc / "SegmentationClassAug" / f"{name}.png")
            for label in _present(values):
                listed[split, (label - 1) // FOLDS].append(f"{name}__{label:02d}")
            part = "train2014" if split == "trn" else "val2014"
            picture = f"{part}/COCO_{part}_{number:012d}"
            values = numbers["coco20i"][np.where(kinds == IGNORED, 0, kinds)]  # COCO's maps ignore nothing
            for folder in (coco / part, coco / "annotations" / part):
                folder.mkdir(parents=True, exist_ok=True)
            (coco / f"{picture}.jpg").write_bytes(data)
            Image.fromarray(values).save(coco / "annotations" / f"{picture}.png")
            for label in _present(values):
                pickled[split][label - 1].append(f"{picture}.jpg")
        for (split, fold), entries in listed.items():
            path = root / "splits" / "pascal" / split / f"fold{fold}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{entry}\n" for entry in entries))
        for split, held in pickled.items():
            for fold in range(FOLDS):
                path = root / "splits" / "coco" / split / f"fold{fold}.pkl"
                path.parent.mkdir(parents=True, exist_ok=True)
                classes = range(FOLDS * FOLDS)
                mine = {c: held[c] if (c % FOLDS == fold) == (split == "val") else [] for c in classes}
                path.write_bytes(pickle.dumps(mine, protocol=3))

    def _write_fss(self, root: Path) -> None:
        """The first fold is the test, half of the last one validation, the rest training."""
        words, folds = class_names("toy", "mmseg"), blocks()
        half = len(folds[-1]) // 2
        splits = {"trn": [*folds[1], *folds[2], *folds[3][:half]], "val": folds[3][half:], "test": folds[0]}
        (root / "splits" / "fss").mkdir(parents=True)
        for split, kinds in splits.items():
            names = [words[kind].replace(" ", "_") for kind in kinds]
            (root / "splits" / "fss" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
            for kind, name in zip(kinds, names, strict=True):
                folder = root / "FSS-1000" / name
                folder.mkdir(parents=True)
                for number, (image, mask) in enumerate(self._of_kind(kind), 1):
                    (folder / f"{number}.jpg").write_bytes(jpeg(image))
                    Image.fromarray(mask).save(folder / f"{number}.png")

    def _of_kind(self, kind: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Ten pictures that hold a kind, with its mask of 0 and 255."""
        found = number = 0
        while found < FSS_PICTURES:
            image, kinds = self._scene(22, kind, number)
            number += 1
            if (kinds == kind + 1).any():
                found += 1
                yield image, np.where(kinds == kind + 1, 255, 0).astype(np.uint8)


def _numbers(kinds: list[int]) -> NDArray[np.uint8]:
    """A table from kinds, from 1, to class numbers, from 1; 0 and 255 stay."""
    table = np.zeros(256, np.uint8)
    table[IGNORED] = IGNORED
    table[np.array(kinds) + 1] = np.arange(1, len(kinds) + 1)
    return table


def _present(values: NDArray[np.uint8]) -> list[int]:
    return [label for label in np.unique(values).tolist() if label not in (0, IGNORED)]
