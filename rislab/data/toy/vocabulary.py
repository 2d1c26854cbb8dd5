"""The toy world as a VOC tree with class names, and as shards of captioned pictures: masks for test, none for training."""

import io
import json
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rislab.data.toy import captions
from rislab.data.toy.kinds import kind_of, kinds_scene
from rislab.data.toy.scene import Scene, say_drawing
from rislab.errors import DataError
from rislab.files import read_json, write_json

VERSION = 2
"""Raise it when the same recipe would give other bytes."""

RECIPE = "vocabulary.json"
SPLITS = ("train", "val", "test", "test", "test")
"""Of pictures one after the other. `val` is for choosing checkpoints, `test` for what is reported."""
BORDER = 1  # pixels around a thing that are void, as in VOC
SHARD = 1000  # pairs a shard


@dataclass(frozen=True)
class ToyVocabulary:
    """The recipe.

    Attributes:
        scenes: labelled pictures, a fifth of them `train`, a fifth `val`, the rest `test`.
        pairs: captioned ones.
        size: their side.
        seed: of everything.
        whole_captions: captions name all things and how they lie, else one of them.
        grounds: one or two large things on a ground of one of four kinds, which captions mostly name; it is no class.
        image_labels: write the world for weak supervision of this size and seed instead, see `rislab.data.toy.image_labels`.
    """

    absent_means: ClassVar[dict[str, Any]] = {"whole_captions": False, "grounds": False, "image_labels": False}
    hashed_with: ClassVar[dict[str, dict[str, object]]] = {
        "rislab.data.toy.vocabulary.VERSION": {},
        "rislab.data.toy.image_labels.VERSION": {"image_labels": True},
    }

    scenes: int = 400
    pairs: int = 6000
    size: int = 96
    seed: int = 0
    whole_captions: bool = False
    grounds: bool = False
    image_labels: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("scenes", self.scenes, 5), ("pairs", self.pairs, 1), ("size", self.size, 48)):
            if value < least:
                raise DataError(f"{name} of a toy vocabulary is {value}, expected {least} or more")
        if self.grounds and self.image_labels:
            raise DataError(
                "grounds: true of a toy vocabulary is for captioned pictures, and image_labels: true has none"
            )

    @property
    def recipe(self) -> dict[str, Any]:
        given = asdict(self)
        del given["image_labels"]
        for later in ("whole_captions", "grounds"):  # worlds of before have none
            if not given[later]:
                del given[later]
        return given | {"version": VERSION}

    def write(self, root: Path) -> None:
        """Write it to `root`, all or nothing; do nothing when it is there. DataError when something else is."""
        if self.image_labels:
            from rislab.data.toy.image_labels import ToyImageLabels  # it is made of this class

            ToyImageLabels(scenes=self.scenes, size=self.size, seed=self.seed).write(root)
            return
        held = read_json(root / RECIPE)
        if held == self.recipe:
            return
        own = self.recipe
        is_kind = isinstance(held, dict) and held.get("kind") == own.get("kind")
        is_ours = is_kind and held.get("version", VERSION) < own["version"]
        if root.exists() and any(root.iterdir()) and not is_ours:
            raise DataError(f"{root} holds {held or 'other files'}; choose another folder or remove it")
        say_drawing(self.scenes, self.size, root)
        unfinished = root.with_name(f".{root.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._make(unfinished)
            write_json(unfinished / RECIPE, self.recipe)
            shutil.rmtree(root, ignore_errors=True)
            unfinished.rename(root)
        except OSError as error:
            raise DataError(f"{root}: the toy vocabulary could not be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _make(self, root: Path) -> None:
        """All but the recipe."""
        self._write_voc(root / "VOCdevkit" / "VOC2012")
        self._write_shards(root / "shards")

    def _write_voc(self, folder: Path) -> None:
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        for number in range(self.scenes):
            drawn = kinds_scene(np.random.default_rng([self.seed, 11, number]), self.size, self.grounds)
            name = f"2026_{number:06d}"
            (folder / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(drawn.image))
            palette(labels(drawn)).save(folder / "SegmentationClass" / f"{name}.png")
            splits[SPLITS[number % len(SPLITS)]].append(name)
        for split, names in splits.items():
            (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))

    def _write_shards(self, folder: Path) -> None:
        folder.mkdir()
        images, texts = captions.kinds_pairs(self.pairs, self.size, self.seed + 100, self.whole_captions, self.grounds)
        for start in range(0, self.pairs, SHARD):
            with tarfile.open(folder / f"toy-train-{start // SHARD:06d}.tar", "w") as tar:
                for number in range(start, min(start + SHARD, self.pairs)):
                    key = f"{number:09d}"
                    add(tar, f"{key}.jpg", jpeg(images[number]))
                    add(tar, f"{key}.txt", texts[number].encode())
                    add(tar, f"{key}.json", json.dumps({"key": key, "caption": texts[number]}).encode())


def labels(drawn: Scene) -> NDArray[np.uint8]:
    """uint8 [S, S]: 0 for the ground, 1 .. 16 for things, 255 along their edges."""
    found = np.zeros(drawn.image.shape[:2], np.uint8)
    for thing, mask in zip(drawn.things, drawn.masks, strict=True):
        found[mask] = kind_of(thing)
    edges = np.zeros_like(found)
    for mask in drawn.masks:
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(edges, outline, -1, 1, BORDER)
    found[edges == 1] = 255
    return found


def palette(values: NDArray[np.uint8]) -> Image.Image:
    """A PNG of indices with colours, as VOC's: read as RGB, it loses the labels."""
    picture = Image.fromarray(values, mode="P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    return picture


def jpeg(image: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=92)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member with nothing in its header that changes from run to run."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
