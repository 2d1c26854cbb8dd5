"""From scenes to the annotation files of the referring releases: one writer a release, with its fields and its habits."""

import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.toy import language
from rislab.data.toy.scene import SHAPES, Scene

TEST_A = frozenset(SHAPES[:2])
"""testA asks for these shapes only, testB for the others, as RefCOCO's ask for people and for things."""

SHARES = {"train": 0.8, "val": 0.1, "testA": 0.05, "testB": 0.05}
REFERENCES = 4
Subjects = Literal["places", "attributes"]


class Objects:
    """Pictures and annotations, the same for every set of a world: all things of all scenes, also unreferred ones."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, drawn: Scene, image_id: int, name: str) -> int:
        """The annotation id of the scene's first thing; the others follow."""
        size = drawn.image.shape[0]
        self.images.append({"id": image_id, "file_name": name, "height": size, "width": size, "license": 1})
        first = len(self.annotations) + 1
        for thing, mask in zip(drawn.things, drawn.masks, strict=True):
            category = SHAPES.index(thing.shape) + 1
            self.annotations.append(annotation(len(self.annotations) + 1, image_id, category, mask))
        if drawn.clutter.any():
            crowd = len(SHAPES) + 1
            self.annotations.append(annotation(len(self.annotations) + 1, image_id, crowd, drawn.clutter, crowd=True))
        return first

    def as_json(self) -> Callable[[str], str]:
        """`instances.json` by its description. Encoded once: it is most of what a world writes besides pictures."""
        categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
        categories.append({"id": len(SHAPES) + 1, "name": "confetti", "supercategory": "clutter"})
        url = "https://www.apache.org/licenses/LICENSE-2.0"
        common = {
            "licenses": [{"id": 1, "name": "Apache License 2.0", "url": url}],
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        text = json.dumps(common)
        return lambda description: f'{{"info": {json.dumps({"description": description})}, {text[1:]}'


class Writer(ABC):
    """What becomes the references of one set, scene by scene.

    Args:
        grouped: see `ToyWorld`.

    Attributes:
        folder, split_by: where they go.
        splits: what the release calls each of our splits.
    """

    folder: ClassVar[str]
    split_by: ClassVar[str]
    splits: ClassVar[dict[str, str]] = {split: split for split in (*SHARES, "test")}

    def __init__(self, grouped: Subjects = "places") -> None:
        self.grouped = grouped
        self.refs: list[dict[str, Any]] = []
        self.sentences = 0

    @abstractmethod
    def write_queries(
        self, rng: np.random.Generator, drawn: Scene, first: int, image_id: int, name: str, split: str
    ) -> None:
        """Add references to things of a scene. first: annotation id of the scene's first thing."""

    def refer(
        self, rng: np.random.Generator, texts: list[str], ids: dict[str, Any], image_id: int, name: str, split: str
    ) -> None:
        """One reference. ids: `ann_id`, `category_id` and whatever else this release says of a referent."""
        ref_id = len(self.refs) + 1
        sentences = []
        for text in texts:
            self.sentences += 1
            sentences.append(
                {"sent_id": self.sentences, "raw": _as_typed(rng, text), "sent": text, "tokens": text.split()}
            )
        self.refs.append(
            {
                "ref_id": ref_id,
                "ann_id": ids["ann_id"],
                "image_id": image_id,
                **{key: value for key, value in ids.items() if key != "ann_id"},
                "file_name": self.file_name(name, ref_id, ids["ann_id"]),
                "split": self.splits[split],
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
            }
        )

    def file_name(self, name: str, ref_id: int, ann_id: Any) -> str:
        """What the reference says, which is not the picture's name: so in the official files."""
        return name.replace(".jpg", f"_{ref_id}.jpg")

    def write(self, root: Path, instances: Callable[[str], str]) -> None:
        """instances: see `Objects.as_json`."""
        folder = root / self.folder
        folder.mkdir()
        (folder / "instances.json").write_text(instances(f"{self.folder}-like set of the rislab toy world"))
        self.write_refs(folder)

    def write_refs(self, folder: Path) -> None:
        # Protocol 2, as in the releases, which Python 2 wrote.
        (folder / f"refs({self.split_by}).p").write_bytes(pickle.dumps(self.refs, protocol=2))


class RefCOCO(Writer):
    """Up to four things of a scene, each with up to three sentences that single it out."""

    folder = "refcoco"
    split_by = "unc"

    def write_queries(
        self, rng: np.random.Generator, drawn: Scene, first: int, image_id: int, name: str, split: str
    ) -> None:
        written = 0
        for index in rng.permutation(len(drawn.things)).tolist():
            thing = drawn.things[index]
            if written == REFERENCES or (split == "testA" and thing.shape not in TEST_A):
                continue
            if split == "testB" and thing.shape in TEST_A:
                continue
            texts = language.sentences(rng, drawn.things, index, self.folder, drawn.image.shape[0])
            if texts:
                ids = {"ann_id": first + index, "category_id": SHAPES.index(thing.shape) + 1}
                self.refer(rng, texts, ids, image_id, name, split)
                written += 1


class RefCOCOPlus(RefCOCO):
    """Attributes only."""

    folder = "refcoco+"


class RefCOCOg(RefCOCO):
    """Whole sentences, mostly relations; one test split, and file names that end in the annotation's id."""

    folder = "refcocog"
    split_by = "umd"
    splits: ClassVar[dict[str, str]] = {
        "train": "train",
        "val": "val",
        "testA": "test",
        "testB": "test",
        "test": "test",
    }

    def file_name(self, name: str, ref_id: int, ann_id: Any) -> str:
        return name.replace(".jpg", f"_{ann_id}.jpg")


class Grouped(Writer):
    """One, several or no referent; a sentence a reference."""

    def write_queries(
        self, rng: np.random.Generator, drawn: Scene, first: int, image_id: int, name: str, split: str
    ) -> None:
        size = drawn.image.shape[0]
        attributes = self.grouped == "attributes"
        worded_as = RefCOCOPlus.folder if attributes else RefCOCO.folder
        for index in rng.permutation(len(drawn.things))[:2].tolist():
            texts = language.sentences(rng, drawn.things, index, worded_as, size)[:1]
            if texts:
                self.refer(rng, texts, self.ids(drawn, first, [index]), image_id, name, split)
        several = language.group(rng, drawn.things, size)
        if several is not None:
            self.refer(rng, [several[0]], self.ids(drawn, first, several[1]), image_id, name, split)
        absent = language.no_such_combination if attributes else language.nothing_there
        nothing = absent(rng, drawn.things)
        if nothing is not None and (attributes or rng.random() < 0.5):
            self.refer(rng, [nothing], self.ids(drawn, first, []), image_id, name, split)

    @abstractmethod
    def ids(self, drawn: Scene, first: int, meant: list[int]) -> dict[str, Any]:
        """How this release says what is meant."""


class RefZOM(Grouped):
    """`ann_id` is a list, empty for nothing, which `source` says, too. Two splits: train and test."""

    folder = "ref-zom"
    split_by = "final"
    splits: ClassVar[dict[str, str]] = {
        "train": "train",
        "val": "test",
        "testA": "test",
        "testB": "test",
        "test": "test",
    }

    def ids(self, drawn: Scene, first: int, meant: list[int]) -> dict[str, Any]:
        return {"ann_id": [first + index for index in meant], "source": "toy" if meant else "zero"}


class GRefCOCO(Grouped):
    """JSON; `ann_id` is a list, [-1] for nothing, and `category_id` another."""

    folder = "grefcoco"
    split_by = "unc"

    def ids(self, drawn: Scene, first: int, meant: list[int]) -> dict[str, Any]:
        categories = [SHAPES.index(drawn.things[index].shape) + 1 for index in meant]
        return {"ann_id": [first + index for index in meant] or [-1], "category_id": categories or [-1]}

    def write_refs(self, folder: Path) -> None:
        (folder / f"grefs({self.split_by}).json").write_text(json.dumps(self.refs))


def _as_typed(rng: np.random.Generator, text: str) -> str:
    """The `raw` text of a sentence: now and then capitals and a full stop."""
    style = rng.random()
    return text.upper() if style < 0.08 else text.capitalize() + "." if style < 0.3 else text


def annotation(
    ann_id: int, image_id: int, category: int, mask: NDArray[np.bool_], crowd: bool = False
) -> dict[str, Any]:
    """A COCO annotation. Polygons, one a visible part; run lengths for crowds and for what has a hole."""
    pixels = mask.astype(np.uint8)
    # Contours run through pixel centres, COCO's polygons around the pixels: at twice the size, the centres lie near enough
    # to the edges for the polygon to cover exactly the mask.
    doubled = np.kron(pixels, np.ones((2, 2), np.uint8))
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = hierarchy is not None and bool((hierarchy[0][:, 3] >= 0).any())
    polygons = [((c.reshape(-1) + 0.5) / 2).tolist() for c in contours]
    if crowd:
        segmentation: Any = _uncompressed(pixels)
    elif holes or not polygons:
        segmentation = masks.to_json(masks.encode(pixels))
    else:
        segmentation = polygons
    x, y, width, height = cv2.boundingRect(pixels)
    return {
        "id": ann_id,
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        "area": int(pixels.sum()),
        "bbox": [x, y, width, height],
        "iscrowd": int(crowd),
    }


def _uncompressed(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, the first run of zeros."""
    flat = pixels.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    counts = runs.tolist() if flat[0] == 0 else [0, *runs.tolist()]
    return {"size": list(pixels.shape), "counts": counts}
