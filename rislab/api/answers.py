"""Answers: masks of sentences or class names in one picture, drawn, written and as data."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from rislab.errors import ConfigError, from_system, nearest
from rislab.files import json_text, replacing, write_text
from rislab.paths import user_path

if TYPE_CHECKING:
    import os

    from PIL import Image

DRAWN = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Pillow's names of the formats of drawings, by suffix."""
LOSSLESS = {suffix: name for suffix, name in DRAWN.items() if name in ("PNG", "BMP", "TIFF")}
"""Those that keep the edges of a mask."""


@dataclass(frozen=True)
class Answer:
    """The mask of one sentence or class name in one picture.

    Attributes:
        text: The sentence or class name.
        mask: bool [h, w], at the picture's size.
        score: Mean foreground probability of the mask's pixels, 0 to 1; 0 of an empty mask, None of a class name.
        image: Path of the picture as it was given; "" where it came from no file.
        picture: uint8 RGB [h, w, 3], upright.
    """

    text: str
    mask: NDArray[np.bool_]
    score: float | None
    image: str = ""
    picture: NDArray[np.uint8] = field(repr=False, default_factory=lambda: np.zeros((0, 0, 3), np.uint8))

    def __repr__(self) -> str:
        height, width = self.mask.shape
        score = "" if self.score is None else f", score {self.score:.3f}"
        return f"Answer({self.text!r}: {int(self.mask.sum())} of {height} x {width} pixels{score})"

    def plot(self) -> "Image.Image":
        """The picture with the mask tinted and outlined, and the text below; notebooks show it."""
        return Answers(self.picture, self.image, [self]).plot()

    def save(self, path: "str | os.PathLike[str]") -> Path:
        """Write the answer; the suffix says how: `.json` as `to_coco`, .png, .jpg, .webp, .bmp or .tif as `plot`.

        Returns:
            The file.

        Raises:
            ConfigError: Another suffix.
            DataError, DiskError: A place where nothing can be written.
        """
        return Answers(self.picture, self.image, [self]).save(path)

    def save_mask(self, path: "str | os.PathLike[str]") -> Path:
        """Write the mask alone, 255 on 0, as .png, .bmp or .tif.

        Returns:
            The file.

        Raises:
            ConfigError: Another suffix; JPEG has no clean edges.
            DataError, DiskError: A place where nothing can be written.
        """
        from PIL import Image

        return _write(Image.fromarray(self.mask), user_path(path), LOSSLESS)

    def to_coco(self) -> dict[str, Any]:
        """As a result of COCO, JSON's types alone.

        Returns:
            image (path), text, score (0 to 1, or None), area (pixels), bbox ([x, y, width, height] in pixels), segmentation
            (run lengths: {"size": [h, w], "counts": str}).
        """
        from rislab.data import masks

        return {
            "image": self.image,
            "text": self.text,
            "score": self.score,
            "area": int(self.mask.sum()),
            "bbox": _box(self.mask),
            "segmentation": masks.to_json(masks.encode(self.mask)),
        }


class Answers(Sequence[Answer]):
    """All answers about one picture, in the order of the texts.

    Args:
        picture: uint8 RGB [h, w, 3], upright.
        image: Path of the picture; "" where it came from no file.
        answers: One for each text.
    """

    def __init__(self, picture: NDArray[np.uint8], image: str, answers: Iterable[Answer]) -> None:
        self.picture, self.image = picture, image
        self._answers = list(answers)

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> "Answers": ...

    def __getitem__(self, index: int | slice) -> "Answer | Answers":
        if isinstance(index, slice):
            return Answers(self.picture, self.image, self._answers[index])
        return self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"Answers({self._answers!r})"

    def plot(self) -> "Image.Image":
        """The picture with all masks tinted and outlined, and a legend; notebooks show it."""
        from rislab.api.drawing import overlay

        return overlay(self.picture, [each.mask for each in self], [each.text for each in self])

    def save(self, path: "str | os.PathLike[str]") -> Path:
        """Write all answers into one file; see `Answer.save`."""
        target = user_path(path)
        if target.suffix.lower() == ".json":
            with _told():
                write_text(target, json_text(self.to_coco()))
            return target
        check_suffix(target, (*DRAWN, ".json"))
        return _write(self.plot(), target, DRAWN)

    def to_coco(self) -> list[dict[str, Any]]:
        """As results of COCO; see `Answer.to_coco`."""
        return [each.to_coco() for each in self]


def check_suffix(path: Path, known: Iterable[str]) -> None:
    """Raises ConfigError for a file whose suffix is none of the known ones."""
    suffixes = list(known)
    if path.suffix.lower() not in suffixes:
        near = nearest(path.suffix.lower(), suffixes)
        raise ConfigError(f"{path}: suffix {path.suffix!r} names no format{near}; expected {', '.join(suffixes)}")


def _write(image: "Image.Image", path: Path, formats: dict[str, str]) -> Path:
    check_suffix(path, formats)
    with _told(), replacing(path) as temporary:
        image.save(temporary, format=formats[path.suffix.lower()])
    return path


@contextmanager
def _told() -> Iterator[None]:
    """Raises DataError or DiskError for a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise from_system(error) from error


def _box(mask: NDArray[np.bool_]) -> list[int]:
    """[x, y, width, height] of a mask in pixels; four zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
