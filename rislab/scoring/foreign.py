"""Masks that other code made, from a file or a folder.

Forms: a JSON list of ``{"sent_id": int, "segmentation": {"size": [h, w], "counts": RLE}}``, masks at the original image size,
run lengths as COCO writes them; or a folder of ``<sent_id>.png``, where anything but 0 is foreground (`decoding.mask`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rislab.data import decoding, masks
from rislab.data.annotations import whole
from rislab.data.masks import RLE
from rislab.errors import DataError, brief
from rislab.paths import contents, visible

Reader = Callable[[int, int], RLE]
"""(height, width) of the image -> the mask. Raises DataError when it has another size, or is none."""


class Predictions(Mapping[int, Reader]):
    """sent_id -> how to read its mask; nothing is decoded before it is used.

    Attributes:
        others: names of files and folders in a folder of masks that are no PNG and were left alone, hidden ones not among them.

    Raises:
        DataError: No such file, another format, an entry without an id, an id given twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        self._readers, self.others = _of_folder(path) if path.is_dir() else (_of_file(path), [])
        if not self._readers:
            raise DataError(
                f"{path}: holds no masks; expected {'<sent_id>.png' if path.is_dir() else 'a list of masks'}"
            )

    def __getitem__(self, sent_id: int) -> Reader:
        return self._readers[sent_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _of_file(path: Path) -> dict[int, Reader]:
    try:
        entries = json.loads(contents(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of masks, found {type(entries).__name__}")
    readers: dict[int, Reader] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        try:
            sent_id = whole(entry.get("sent_id") if isinstance(entry, dict) else None, "sent_id")
        except (TypeError, ValueError, OverflowError):
            expected = '{"sent_id": int, "segmentation": ...}'
            raise DataError(f"{where}: expected {expected}, found {brief(entry, 80)}") from None
        if sent_id in readers:
            raise DataError(f"{where}: sent_id {sent_id} occurs more than once")
        readers[sent_id] = _RunLengths(f"{where} (sent_id {sent_id})", entry.get("segmentation"))
    return readers


class _RunLengths:
    def __init__(self, where: str, segmentation: Any) -> None:
        self.where, self.segmentation = where, segmentation

    def __call__(self, height: int, width: int) -> RLE:
        if not isinstance(self.segmentation, dict):
            raise DataError(f'{self.where}: segmentation is no RLE {{"size": [h, w], "counts": ...}}')
        try:
            return masks.from_segmentation(self.segmentation, height, width)
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from None


def _of_folder(path: Path) -> tuple[dict[int, Reader], list[str]]:
    """Readers by sent_id, and the names of what is no PNG."""
    readers: dict[int, Reader] = {}
    others: list[str] = []
    try:
        there = visible(path.iterdir(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    for file in there:
        if file.suffix.lower() != ".png" or file.is_dir():
            others.append(file.name)
            continue
        if not (file.stem.isascii() and file.stem.isdecimal()):
            raise DataError(f"{file}: its name is no sent_id; expected <sent_id>.png")
        if int(file.stem) in readers:
            raise DataError(f"{file}: sent_id {int(file.stem)} occurs more than once")
        readers[int(file.stem)] = _Picture(file)
    return readers, others


class _Picture:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, height: int, width: int) -> RLE:
        expected = decoding.Expected(height, width, "the image has")
        return masks.encode(decoding.mask(contents(self.path), str(self.path), expected))
