"""The toy vocabulary for weak supervision: a VOC tree whose many training pictures have image-level labels, as VOC writes them.

`train` is the part of `train_aug` whose label maps activation maps are scored on, as in PASCAL VOC. Label maps of all pictures
are there, for the row of full supervision.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import cv2
import numpy as np

from rislab.data.benchmark_trees import class_names
from rislab.data.image_labels import XML
from rislab.data.toy.kinds import kind_of, kinds_scene
from rislab.data.toy.scene import Scene
from rislab.data.toy.vocabulary import VERSION as VOCABULARY
from rislab.data.toy.vocabulary import ToyVocabulary, jpeg, labels, palette

VERSION = 1
"""Raise it when the same recipe would give other bytes."""

SPLITS = (("train", "train_aug"), *(("train_aug",),) * 6, ("val",), ("test",), ("test",))
"""Of pictures one after the other. `test` is for what is reported of a network that is trained on pseudo masks."""


@dataclass(frozen=True)
class ToyImageLabels(ToyVocabulary):
    """The recipe.

    Attributes:
        scenes: pictures, seven tenths of them `train_aug`, a tenth `train`, a tenth `val`, the rest `test`.
        size: their side.
        seed: of everything.
        pairs: of no effect, since no captions are written.
    """

    hashed_with: ClassVar[dict[str, dict[str, object]]] = {
        "rislab.data.toy.vocabulary.VERSION": {},
        "rislab.data.toy.image_labels.VERSION": {},
    }

    scenes: int = 1200
    pairs: int = 1
    size: int = 96
    seed: int = 0

    @property
    def recipe(self) -> dict[str, Any]:
        return super().recipe | {"kind": "image labels", "version": 1000 * VOCABULARY + VERSION}

    def _make(self, root: Path) -> None:
        folder = root / "VOCdevkit" / "VOC2012"
        for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        listed: dict[str, list[str]] = {split: [] for splits in SPLITS for split in splits}
        for number in range(self.scenes):
            drawn = kinds_scene(np.random.default_rng([self.seed, 12, number]), self.size)
            name = f"2026_{number:06d}"
            (folder / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(drawn.image))
            palette(labels(drawn)).save(folder / "SegmentationClass" / f"{name}.png")
            (folder / XML.format(name)).write_bytes(annotation(drawn, name))
            for split in SPLITS[number % len(SPLITS)]:
                listed[split].append(name)
        for split, names in listed.items():
            (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


def annotation(drawn: Scene, name: str) -> bytes:
    """A scene as a VOC annotation: its size, and the class and box of each thing."""
    height, width = drawn.image.shape[:2]
    names = class_names("toy", "mmseg")
    root = ElementTree.Element("annotation")
    _texts(root, folder="VOC2012", filename=f"{name}.jpg", segmented=1)
    _texts(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    for thing, mask in zip(drawn.things, drawn.masks, strict=True):
        item = ElementTree.SubElement(root, "object")
        _texts(item, name=names[kind_of(thing) - 1], pose="Unspecified", truncated=0, difficult=0)
        x, y, wide, high = cv2.boundingRect(mask.astype(np.uint8))
        _texts(ElementTree.SubElement(item, "bndbox"), xmin=x + 1, ymin=y + 1, xmax=x + wide, ymax=y + high)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root)


def _texts(parent: ElementTree.Element, **values: object) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)
