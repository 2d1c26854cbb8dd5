"""Reads the REFER layout: ``ROOT/<dataset>/{instances.json, refs(<split by>).p}`` and COCO's pictures.

The released pickles hold nothing but builtins; anything else in one is refused, because unpickling would execute it.
Source: lichengunc/refer (layout and fields).
"""

import io
import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.batch import RLE
from rislab.data.images import IMAGE_FOLDERS, ImageRecord, ImageStore
from rislab.errors import DataError, nearest


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
class Annotation:
    """One object. `segmentation` is as the file has it: `masks.from_segmentation` reads it."""

    ann_id: int
    image_id: int
    segmentation: Any


_MALFORMED = (KeyError, TypeError, ValueError, OverflowError)
"""What reading a field of a record raises that is not as it should be."""


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
    except (  # what a damaged opcode stream makes of the unpickler
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise DataError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{path}: expected a list of references, found {type(refs).__name__}")
    return refs


def _read_instances(path: Path) -> tuple[dict[int, ImageRecord], dict[int, Annotation]]:
    """Images and annotations by id. Raises DataError: missing, damaged, an id given twice, a field missing."""
    try:
        instances = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from None
    lists = [instances.get(key) if isinstance(instances, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(part, list) for part in lists):
        raise DataError(f"{path}: expected COCO's instances format, an object with lists 'images' and 'annotations'")
    images: dict[int, ImageRecord] = {}
    annotations: dict[int, Annotation] = {}
    for i in instances["images"]:
        try:
            image = ImageRecord(int(i["id"]), str(i["file_name"]), int(i["height"]), int(i["width"]))
        except _MALFORMED as error:
            raise DataError(f"{path}: image {_head(i)}: field missing or of a wrong type: {error!r}") from None
        if image.height < 1 or image.width < 1:
            raise DataError(f"{path}: image {image.image_id} is said to have {image.width}x{image.height} pixels")
        if images.setdefault(image.image_id, image) is not image:
            raise DataError(f"{path}: image id {image.image_id} occurs more than once")
    for a in instances["annotations"]:
        try:
            annotation = Annotation(int(a["id"]), int(a["image_id"]), a["segmentation"])
        except _MALFORMED as error:
            raise DataError(f"{path}: annotation {_head(a)}: field missing or of a wrong type: {error!r}") from None
        if annotations.setdefault(annotation.ann_id, annotation) is not annotation:
            raise DataError(f"{path}: annotation id {annotation.ann_id} occurs more than once")
    return images, annotations


def _head(record: Any) -> str:
    text = repr(record)
    return text if len(text) <= 60 else f"{text[:60]}..."


def required_files(root: Path, dataset: str, split_by: str) -> list[Path]:
    """What must lie where for a data set to be read; the first image folder stands for all that are searched."""
    folder = root / dataset
    return [folder / "instances.json", folder / f"refs({split_by}).p", root / IMAGE_FOLDERS[0]]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a sentence is {type(value).__name__}, not text")
    # Half of a surrogate pair can stand in a pickle but in no file that we write.
    return value.encode("utf-8", "replace").decode("utf-8")


def _annotation_ids(value: Any) -> tuple[int, ...]:
    """One id, or a list of them; gRefCOCO writes -1 for "none", Ref-ZOM an empty list."""
    return tuple(int(ann_id) for ann_id in (value if isinstance(value, (list, tuple)) else [value]) if ann_id != -1)


class Refer:
    """One referring data set in memory: images, annotations that are referred to, references in file order.

    root: the folder that holds `dataset`; dataset: refcoco, refcoco+, refcocog; split_by: unc, umd, google.
    Raises DataError with the file and record for whatever contradicts itself.
    """

    def __init__(self, root: Path, dataset: str, split_by: str) -> None:
        folder = root / dataset
        if not folder.is_dir():
            known = [path.parent.name for path in sorted(root.glob("*/instances.json"))]
            held = f"{root} holds {known}{nearest(dataset, known)}" if known else f"{root} holds no data set"
            wanted = "\n  ".join(str(path) for path in required_files(root, dataset, split_by))
            raise DataError(f"{folder}: no such folder; {held}. Put there:\n  {wanted}")
        self.refs_file = folder / f"refs({split_by}).p"
        self.instances_file = folder / "instances.json"
        if not self.refs_file.exists():
            found = sorted(path.name for path in folder.glob("refs(*).p"))
            raise DataError(f"{self.refs_file}: no such file; found {found or 'no refs(*).p'} in {folder}")
        self.images, annotations = _read_instances(self.instances_file)
        self.references = tuple(self._reference(ref, annotations) for ref in read_refs(self.refs_file))
        self._check_ids()
        # The file describes every object of its images; keeping only those asked for saves most of the memory.
        used = {ann_id for reference in self.references for ann_id in reference.ann_ids}
        self.annotations = {ann_id: annotations[ann_id] for ann_id in sorted(used)}
        self.store = ImageStore(root)

    def _reference(self, ref: dict[str, Any], annotations: dict[int, Annotation]) -> Reference:
        where = f"{self.refs_file}: ref_id {ref.get('ref_id', '?')}"
        try:
            result = Reference(
                int(ref["ref_id"]),
                int(ref["image_id"]),
                _annotation_ids(ref["ann_id"]),
                str(ref["split"]),
                tuple(
                    Expression(int(s["sent_id"]), _text(s["sent"]).strip(), _text(s["raw"])) for s in ref["sentences"]
                ),
            )
        except _MALFORMED as error:
            raise DataError(f"{where}: field missing or of a wrong type: {error!r}") from None
        if result.image_id not in self.images:
            raise DataError(f"{where}: image_id {result.image_id} is not in instances.json")
        for ann_id in result.ann_ids:
            annotation = annotations.get(ann_id)
            if annotation is None:
                raise DataError(f"{where}: ann_id {ann_id} is not in instances.json")
            if annotation.image_id != result.image_id:
                raise DataError(
                    f"{where}: ann_id {ann_id} belongs to image {annotation.image_id}, not {result.image_id}"
                )
        if not result.expressions:
            raise DataError(f"{where}: no sentences")
        return result

    def _check_ids(self) -> None:
        refs: set[int] = set()
        sentences: dict[int, int] = {}
        for reference in self.references:
            if reference.ref_id in refs:
                raise DataError(f"{self.refs_file}: ref_id {reference.ref_id} occurs more than once")
            refs.add(reference.ref_id)
            for expression in reference.expressions:
                first = sentences.setdefault(expression.sent_id, reference.ref_id)
                if first != reference.ref_id:
                    raise DataError(
                        f"{self.refs_file}: sent_id {expression.sent_id} occurs in ref_id {first} and in ref_id "
                        f"{reference.ref_id}; scores are kept by sent_id"
                    )
            if len({expression.sent_id for expression in reference.expressions}) < len(reference.expressions):
                raise DataError(f"{self.refs_file}: ref_id {reference.ref_id} has a sent_id more than once")

    @property
    def splits(self) -> list[str]:
        """Split names in file order."""
        return list(dict.fromkeys(ref.split for ref in self.references))

    def split(self, name: str) -> list[Reference]:
        """References of one split, in file order. Raises DataError for an unknown name."""
        if name not in self.splits:
            raise DataError(f"{self.refs_file}: no split {name!r}, it has {self.splits}{nearest(name, self.splits)}")
        return [ref for ref in self.references if ref.split == name]

    def target(self, reference: Reference) -> RLE:
        """Union of the annotations of a reference, at the original size; empty for a zero-target reference."""
        image = self.images[reference.image_id]
        parts = []
        for ann_id in reference.ann_ids:
            try:
                segmentation = self.annotations[ann_id].segmentation
                parts.append(masks.from_segmentation(segmentation, image.height, image.width))
            except DataError as error:
                raise DataError(f"{self.instances_file}: annotation {ann_id}: {error}") from None
        return masks.union(parts, image.height, image.width)

    def check_images(self, references: Iterable[Reference]) -> None:
        """Raises DataError when the picture of any of them is missing."""
        self.store.check([self.images[image_id] for image_id in dict.fromkeys(ref.image_id for ref in references)])

    def image_file(self, image_id: int) -> Path:
        """Raises DataError naming the folders that were searched."""
        return self.store.path(self.images[image_id])

    def image(self, image_id: int) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3]; see `ImageStore.read`."""
        return self.store.read(self.images[image_id])


def by_image(references: Sequence[Reference]) -> dict[int, list[Reference]]:
    """References of each image, in file order."""
    grouped: dict[int, list[Reference]] = {}
    for ref in references:
        grouped.setdefault(ref.image_id, []).append(ref)
    return grouped
