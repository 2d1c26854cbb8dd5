"""Reads the REFER layout: ``ROOT/<dataset>/{instances.json, refs(<split by>).p}`` and COCO's pictures.

The released pickles hold nothing but builtins; anything else in one is refused, because unpickling would execute it.
Source: lichengunc/refer (layout and fields).
"""

import io
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.errors import DataError, nearest

IMAGE_FOLDERS = (
    "images/train2014",
    "images/mscoco/images/train2014",
    "train2014",
    "trainval2014",
    "images/trainval2014",
    "images/val2014",
    "val2014",
    "images",
)
"""Where the code bases of the field keep COCO's pictures, below the data root or beside it."""


@dataclass(frozen=True)
class Expression:
    """One sentence. `sent` is the cleaned text, `raw` what was typed; papers differ in which they read."""

    sent_id: int
    sent: str
    raw: str


@dataclass(frozen=True)
class Reference:
    """One referent of one image and its sentences. `ann_ids` is empty for a zero-target reference."""

    ref_id: int
    image_id: int
    ann_ids: tuple[int, ...]
    split: str
    expressions: tuple[Expression, ...]


@dataclass(frozen=True)
class ImageRecord:
    image_id: int
    file_name: str
    height: int
    width: int


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise DataError(f"asks for {module}.{name}; a REFER file holds plain values only, refused")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The list of references in `path`. Raises DataError: missing, damaged, or asking to run code."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    try:
        # Python 2 wrote the releases: its byte strings are ASCII, or UTF-8 at worst.
        refs = _BuiltinsOnly(io.BytesIO(data), encoding="utf-8").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable pickle ({error})") from None
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{path}: expected a list of references, found {type(refs).__name__}")
    return refs


def _read_instances(path: Path) -> dict[str, Any]:
    try:
        instances = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from None
    missing = {"images", "annotations"} - instances.keys() if isinstance(instances, dict) else {"images"}
    if missing:
        raise DataError(f"{path}: no {sorted(missing)} in it; expected COCO's instances format")
    return dict(instances)


def required_files(root: Path, dataset: str, split_by: str) -> list[Path]:
    """What must lie where for a data set to be read; the first image folder stands for all that are searched."""
    folder = root / dataset
    return [folder / "instances.json", folder / f"refs({split_by}).p", root / IMAGE_FOLDERS[0]]


class Refer:
    """One referring data set in memory: images, annotations, references in file order.

    root: the folder that holds `dataset`; dataset: refcoco, refcoco+, refcocog; split_by: unc, umd, google.
    Raises DataError with the file and record for whatever contradicts itself.
    """

    def __init__(self, root: Path, dataset: str, split_by: str) -> None:
        self.root, self.dataset, self.split_by = root, dataset, split_by
        folder = root / dataset
        if not folder.is_dir():
            known = [path.parent.name for path in sorted(root.glob("*/instances.json"))]
            held = f"{root} holds {known}{nearest(dataset, known)}" if known else f"{root} holds no data set"
            wanted = "\n  ".join(str(path) for path in required_files(root, dataset, split_by))
            raise DataError(f"{folder}: no such folder; {held}. Put there:\n  {wanted}")
        self.refs_file = folder / f"refs({split_by}).p"
        if not self.refs_file.exists():
            found = sorted(path.name for path in folder.glob("refs(*).p"))
            raise DataError(f"{self.refs_file}: no such file; found {found or 'no refs(*).p'} in {folder}")
        instances = _read_instances(folder / "instances.json")
        self.images = {
            int(i["id"]): ImageRecord(int(i["id"]), str(i["file_name"]), int(i["height"]), int(i["width"]))
            for i in instances["images"]
        }
        self.annotations: dict[int, dict[str, Any]] = {int(a["id"]): a for a in instances["annotations"]}
        self.references = tuple(self._reference(ref) for ref in read_refs(self.refs_file))
        self._check_ids()
        self._folder: Path | None = None

    def _reference(self, ref: dict[str, Any]) -> Reference:
        where = f"{self.refs_file}: ref_id {ref.get('ref_id', '?')}"
        try:
            image_id, ann = int(ref["image_id"]), ref["ann_id"]
            expressions = tuple(
                Expression(int(s["sent_id"]), str(s["sent"]).strip(), str(s["raw"])) for s in ref["sentences"]
            )
            result = Reference(
                int(ref["ref_id"]),
                image_id,
                tuple(int(a) for a in ann) if isinstance(ann, list) else (int(ann),),
                str(ref["split"]),
                expressions,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: field missing or of a wrong type: {error!r}") from None
        if image_id not in self.images:
            raise DataError(f"{where}: image_id {image_id} is not in instances.json")
        for ann_id in result.ann_ids:
            annotation = self.annotations.get(ann_id)
            if annotation is None:
                raise DataError(f"{where}: ann_id {ann_id} is not in instances.json")
            if int(annotation["image_id"]) != image_id:
                raise DataError(f"{where}: ann_id {ann_id} belongs to image {annotation['image_id']}, not {image_id}")
        if not expressions:
            raise DataError(f"{where}: no sentences")
        return result

    def _check_ids(self) -> None:
        for name, ids in (
            ("ref_id", [ref.ref_id for ref in self.references]),
            ("sent_id", [e.sent_id for ref in self.references for e in ref.expressions]),
        ):
            repeated = [value for value, count in Counter(ids).items() if count > 1]
            if repeated:
                raise DataError(
                    f"{self.refs_file}: {name} {repeated[0]} occurs more than once ({len(repeated)} such ids)"
                )

    @property
    def splits(self) -> list[str]:
        """Split names in file order."""
        return list(dict.fromkeys(ref.split for ref in self.references))

    def split(self, name: str) -> list[Reference]:
        """References of one split, in file order. Raises DataError for an unknown name."""
        if name not in self.splits:
            raise DataError(f"{self.refs_file}: no split {name!r}, it has {self.splits}{nearest(name, self.splits)}")
        return [ref for ref in self.references if ref.split == name]

    def target(self, reference: Reference) -> masks.RLE:
        """Union of the annotations of a reference, at the original size; empty for a zero-target reference."""
        image = self.images[reference.image_id]
        parts = []
        for ann_id in reference.ann_ids:
            try:
                segmentation = self.annotations[ann_id]["segmentation"]
                parts.append(masks.from_segmentation(segmentation, image.height, image.width))
            except (KeyError, DataError) as error:
                raise DataError(f"{self.refs_file.parent / 'instances.json'}: annotation {ann_id}: {error}") from None
        return masks.union(parts, image.height, image.width)

    def image_file(self, image_id: int) -> Path:
        """Path of an image, looked up in the folders that the field uses. Raises DataError naming what was searched."""
        name = self.images[image_id].file_name
        if self._folder is not None and (self._folder / name).exists():
            return self._folder / name
        for folder in IMAGE_FOLDERS:
            if (self.root / folder / name).exists():
                self._folder = self.root / folder
                return self._folder / name
        searched = "\n  ".join(str(self.root / folder) for folder in IMAGE_FOLDERS)
        raise DataError(f"image {image_id} ({name}) not found; searched\n  {searched}")

    def image(self, image_id: int) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3]; grey pictures become RGB; EXIF rotation is not applied (masks are not rotated either).

        Raises DataError for an unreadable file and for one whose size is not what instances.json says.
        """
        path, record = self.image_file(image_id), self.images[image_id]
        data = path.read_bytes()
        # OpenCV decodes what it finds of a truncated JPEG and fills the rest with grey.
        if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
            raise DataError(f"{path}: truncated JPEG (no end marker)")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise DataError(f"{path}: not a readable image")
        if image.shape[:2] != (record.height, record.width):
            raise DataError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, instances.json says {record.width}x{record.height}"
            )
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def by_image(references: Sequence[Reference]) -> dict[int, list[Reference]]:
    """References of each image, in file order."""
    grouped: dict[int, list[Reference]] = {}
    for ref in references:
        grouped.setdefault(ref.image_id, []).append(ref)
    return grouped
