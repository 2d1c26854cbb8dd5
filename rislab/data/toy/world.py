"""The toy world as sets like RefCOCO, RefCOCO+, RefCOCOg, Ref-ZOM and gRefCOCO, in the files that their releases have.

One pool of pictures serves all of them, as COCO does; splits part pictures, never objects. Same recipe, same bytes.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data.toy.scene import say_drawing, scene
from rislab.data.toy.writers import SHARES, GRefCOCO, Objects, RefCOCO, RefCOCOg, RefCOCOPlus, RefZOM
from rislab.errors import DataError
from rislab.files import read_json, write_json

VERSION = 3
"""Raise it when the same recipe would give other bytes: worlds of earlier versions are then made anew."""

RECIPE = "world.json"
IMAGES = Path("images") / "train2014"
JPEG_QUALITY = 92
SETS = (RefCOCO, RefCOCOPlus, RefCOCOg, RefZOM, GRefCOCO)
"""In this order: what one draws decides what the next sees, so a new set goes to the end and changes no byte of the others."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ToyWorld:
    """The recipe of a world.

    Attributes:
        scenes: pictures of the release's splits, at least 20.
        size: their side in pixels, at least 48.
        seed: of everything, 0 or more.
        test_scenes: further pictures, with a split of their own, `test`, in which every shape is meant, as in val. Ref-ZOM and
            RefCOCOg have a split of this name, which they add to. The other pictures and sentences stay as they are.
        grouped: what sentences of the Ref-ZOM- and gRefCOCO-like sets speak of. `places`: as in the RefCOCO-like set; every
            second picture has a zero target, which differs from a thing by one attribute. `attributes`: attributes alone; a zero
            target's words each fit a thing of the picture, but never all of them the same; three of five pictures have one.
    """

    absent_means: ClassVar[dict[str, Any]] = {"test_scenes": 0, "grouped": "places"}
    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.data.toy.world.VERSION": {}}

    scenes: int = 4000
    size: int = 96
    seed: int = 0
    test_scenes: int = 0
    grouped: Literal["places", "attributes"] = "places"

    def __post_init__(self) -> None:
        if self.scenes < 20:
            raise DataError(f"a toy world needs at least 20 scenes for its four splits, got {self.scenes}")
        if self.size < 48:
            raise DataError(f"toy scenes need a side of at least 48 pixels, got {self.size}")
        if self.seed < 0:
            raise DataError(f"the seed of a toy world is 0 or more, got {self.seed}")
        if self.test_scenes < 0:
            raise DataError(f"the test_scenes of a toy world are 0 or more, got {self.test_scenes}")
        if self.grouped not in ("places", "attributes"):
            raise DataError(f"grouped of a toy world is places or attributes, got {self.grouped!r}")

    @property
    def recipe(self) -> dict[str, Any]:
        # Without options that stand at what worlds meant before they existed, so that those worlds stay these ones.
        options = {name: value for name, value in asdict(self).items() if value != self.absent_means.get(name)}
        return options | {"version": VERSION, "sets": [kind.folder for kind in SETS]}

    def matches(self, root: Path) -> bool:
        """Whether `root` holds this very world, whole: the recipe is the last file written."""
        return bool(read_json(root / RECIPE) == self.recipe)

    def write(self, root: Path, progress: Progress | None = None) -> None:
        """Write the world to `root`, all or nothing; do nothing when it is there.

        The same world by an earlier version of ours is replaced; DataError when `root` holds anything else, or cannot
        be written. One writer at a time: who may meet others holds a lock, as `ReferringData` does.

        Args:
            progress: called with (scenes done, scenes in all).
        """
        if self.matches(root):
            return
        say_drawing(self.scenes + self.test_scenes, self.size, root)
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
            raise DataError(f"{root}: the toy world could not be written: {error.strerror or error}") from error
        finally:
            for leftover in (unfinished, replaced):
                shutil.rmtree(leftover, ignore_errors=True)

    def _is_outdated(self, root: Path) -> bool:
        """Whether `root` is this world by an earlier version, and nothing else lies there that would be lost."""
        held = read_json(root / RECIPE)
        if not isinstance(held, dict) or not isinstance(held.get("version"), int) or held["version"] > VERSION:
            return False
        ours = {IMAGES.parts[0], RECIPE, *(kind.folder for kind in SETS)}
        same = all(held.get(name, self.absent_means.get(name)) == value for name, value in asdict(self).items())
        return same and {path.name for path in root.iterdir()} <= ours

    def _refuse_other(self, root: Path) -> None:
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return
        if not root.is_dir():
            raise DataError(f"{root} is a file; the toy world needs a folder")
        held = read_json(root / RECIPE)
        what = f"the toy world {held}" if held else "files that are no toy world"
        raise DataError(f"{root} holds {what}; choose another folder or remove it (wanted: {self.recipe})")

    def _write(self, root: Path, progress: Progress | None) -> None:
        objects = Objects()
        sets = [kind(self.grouped) for kind in SETS]
        splits = _partition(self.scenes, self.seed) + ["test"] * self.test_scenes
        for number in range(len(splits)):
            # A generator a scene: any scene can be drawn again alone.
            rng = np.random.default_rng([self.seed, number])
            drawn = scene(rng, self.size)
            name = f"COCO_train2014_{number + 1:012d}.jpg"
            (root / IMAGES / name).write_bytes(_jpeg(drawn.image))
            first = objects.add(drawn, number + 1, name)
            for each in sets:
                each.write_queries(rng, drawn, first, number + 1, name, splits[number])
            if progress is not None:
                progress(number + 1, len(splits))
        instances = objects.as_json()
        for each in sets:
            each.write(root, instances)
        write_json(root / RECIPE, self.recipe)


def _partition(scenes: int, seed: int) -> list[str]:
    """A split of the release for each scene; every split has one at least."""
    counts = {split: max(1, round(scenes * share)) for split, share in SHARES.items() if split != "train"}
    names = ["train"] * (scenes - sum(counts.values()))
    for split, count in counts.items():
        names += [split] * count
    return [names[i] for i in np.random.default_rng([seed, 1 << 31]).permutation(scenes)]


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return bytes(data.tobytes())
