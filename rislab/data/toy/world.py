"""The toy world as RefCOCO-, RefCOCO+- and RefCOCOg-like sets, in the files that the official releases have.

One pool of pictures serves the three sets, as COCO does; splits part pictures, never objects. Same recipe, same bytes.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.toy import language
from rislab.data.toy.scene import SHAPES, Scene, scene
from rislab.errors import DataError
from rislab.files import read_json, write_json

VERSION = 3
"""Raise it when the same recipe would give other bytes: worlds of earlier versions are then made anew."""

RECIPE = "world.json"
IMAGES = Path("images") / "train2014"
JPEG_QUALITY = 92
TEST_A = frozenset(SHAPES[:2])
"""testA asks for these shapes only, testB for the others, as RefCOCO's ask for people and for things."""

SHARES = {"train": 0.8, "val": 0.1, "testA": 0.05, "testB": 0.05}
REFERENCES = 4


@dataclass(frozen=True)
class RefSet:
    """A referring data set of the family: its folder, its partition, and what its splits are called."""

    name: str
    split_by: str
    splits: dict[str, str]


SETS = (
    RefSet("refcoco", "unc", {split: split for split in SHARES}),
    RefSet("refcoco+", "unc", {split: split for split in SHARES}),
    RefSet("refcocog", "umd", {"train": "train", "val": "val", "testA": "test", "testB": "test"}),
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ToyWorld:
    """The recipe of a world.

    scenes: pictures in all, at least 20; size: their side in pixels, at least 48; seed: of everything, 0 or more.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.data.toy.world.VERSION": {}}

    scenes: int = 4000
    size: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenes < 20:
            raise DataError(f"a toy world needs at least 20 scenes for its four splits, got {self.scenes}")
        if self.size < 48:
            raise DataError(f"toy scenes need a side of at least 48 pixels, got {self.size}")
        if self.seed < 0:
            raise DataError(f"the seed of a toy world is 0 or more, got {self.seed}")

    @property
    def recipe(self) -> dict[str, int]:
        return asdict(self) | {"version": VERSION}

    def matches(self, root: Path) -> bool:
        """Whether `root` holds this very world, whole: the recipe is the last file written."""
        return bool(read_json(root / RECIPE) == self.recipe)

    def write(self, root: Path, progress: Progress | None = None) -> None:
        """Write the world to `root`, all or nothing; do nothing when it is there.

        progress: called with (scenes done, scenes in all).
        The same world by an earlier version of ours is replaced; DataError when `root` holds anything else, or cannot
        be written. One writer at a time: who may meet others holds a lock, as `ReferringData` does.
        """
        if self.matches(root):
            return
        target = root.resolve()
        outdated = self._is_outdated(target)
        if not outdated:
            self._refuse_other(root)
        unfinished, replaced = (target.with_name(f".{target.name}.{state}") for state in ("unfinished", "replaced"))
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            (unfinished / IMAGES).mkdir(parents=True)
            self._write(unfinished, progress)
            if outdated:
                target.rename(replaced)
            elif target.exists():
                target.rmdir()
            unfinished.rename(target)
        except OSError as error:
            raise DataError(f"{root}: the toy world could not be written: {error}") from error
        finally:
            for leftover in (unfinished, replaced):
                shutil.rmtree(leftover, ignore_errors=True)

    def _is_outdated(self, root: Path) -> bool:
        """Whether `root` is this world by an earlier version, and nothing else lies there that would be lost."""
        held = read_json(root / RECIPE)
        if not isinstance(held, dict) or not isinstance(held.get("version"), int) or held["version"] >= VERSION:
            return False
        ours = {IMAGES.parts[0], RECIPE, *(refs.name for refs in SETS)}
        return held | {"version": VERSION} == self.recipe and {path.name for path in root.iterdir()} <= ours

    def _refuse_other(self, root: Path) -> None:
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return
        if not root.is_dir():
            raise DataError(f"{root} is a file; the toy world needs a folder")
        held = read_json(root / RECIPE)
        what = f"the toy world {held}" if held else "files that are no toy world"
        raise DataError(f"{root} holds {what}; choose another folder or remove it (wanted: {self.recipe})")

    def _write(self, root: Path, progress: Progress | None) -> None:
        sets = {refs.name: _Files(refs) for refs in SETS}
        splits = _partition(self.scenes, self.seed)
        for number in range(self.scenes):
            # A generator a scene: any scene can be drawn again alone.
            rng = np.random.default_rng([self.seed, number])
            drawn = scene(rng, self.size)
            name = f"COCO_train2014_{number + 1:012d}.jpg"
            (root / IMAGES / name).write_bytes(_jpeg(drawn.image))
            for refs in sets.values():
                refs.add(rng, drawn, number + 1, name, splits[number])
            if progress is not None:
                progress(number + 1, self.scenes)
        for refs in sets.values():
            refs.write(root)
        write_json(root / RECIPE, self.recipe)


def _partition(scenes: int, seed: int) -> list[str]:
    """A split for each scene; every split has one at least."""
    counts = {split: max(1, round(scenes * share)) for split, share in SHARES.items() if split != "train"}
    names = ["train"] * (scenes - sum(counts.values()))
    for split, count in counts.items():
        names += [split] * count
    return [names[i] for i in np.random.default_rng([seed, 1 << 31]).permutation(scenes)]


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return bytes(data.tobytes())


class _Files:
    """What becomes `instances.json` and `refs(<split by>).p` of one set."""

    def __init__(self, refs: RefSet) -> None:
        self.set = refs
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.refs: list[dict[str, Any]] = []
        self.sentences = 0

    def add(self, rng: np.random.Generator, drawn: Scene, image_id: int, name: str, split: str) -> None:
        """All things of the scene become annotations; up to four of them, references with sentences."""
        size = drawn.image.shape[0]
        self.images.append({"id": image_id, "file_name": name, "height": size, "width": size, "license": 1})
        first = len(self.annotations) + 1
        for thing, mask in zip(drawn.things, drawn.masks, strict=True):
            category = SHAPES.index(thing.shape) + 1
            self.annotations.append(_annotation(len(self.annotations) + 1, image_id, category, mask))
        if drawn.clutter.any():
            crowd = len(SHAPES) + 1
            self.annotations.append(_annotation(len(self.annotations) + 1, image_id, crowd, drawn.clutter, crowd=True))
        asked = 0
        for index in rng.permutation(len(drawn.things)).tolist():
            thing = drawn.things[index]
            if asked == REFERENCES or (split == "testA" and thing.shape not in TEST_A):
                continue
            if split == "testB" and thing.shape in TEST_A:
                continue
            texts = language.sentences(rng, drawn.things, index, self.set.name, size)
            if texts:
                self._refer(rng, texts, first + index, image_id, name, split)
                asked += 1

    def _refer(
        self, rng: np.random.Generator, texts: list[str], ann_id: int, image_id: int, name: str, split: str
    ) -> None:
        ref_id = len(self.refs) + 1
        suffix = ann_id if self.set.name == "refcocog" else ref_id
        sentences = []
        for text in texts:
            self.sentences += 1
            sentences.append(
                {"sent_id": self.sentences, "raw": _as_typed(rng, text), "sent": text, "tokens": text.split()}
            )
        self.refs.append(
            {
                "ref_id": ref_id,
                "ann_id": ann_id,
                "image_id": image_id,
                "category_id": self.annotations[ann_id - 1]["category_id"],
                "file_name": name.replace(".jpg", f"_{suffix}.jpg"),  # not the picture's name: so in the official files
                "split": self.set.splits[split],
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
            }
        )

    def write(self, root: Path) -> None:
        folder = root / self.set.name
        folder.mkdir()
        categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
        categories.append({"id": len(SHAPES) + 1, "name": "confetti", "supercategory": "clutter"})
        instances = {
            "info": {"description": f"{self.set.name}-like set of the rislab toy world"},
            "licenses": [{"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        (folder / "instances.json").write_text(json.dumps(instances))
        # Protocol 2, as in the releases, which Python 2 wrote.
        (folder / f"refs({self.set.split_by}).p").write_bytes(pickle.dumps(self.refs, protocol=2))


def _as_typed(rng: np.random.Generator, text: str) -> str:
    """The `raw` text of a sentence: now and then capitals and a full stop."""
    style = rng.random()
    return text.upper() if style < 0.08 else text.capitalize() + "." if style < 0.3 else text


def _annotation(
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
