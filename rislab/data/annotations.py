"""Records of the annotation files that the referring releases share, and how they are read.

The released pickles hold nothing but builtins; anything else in one is refused, because unpickling would execute it.
Sources: lichengunc/refer (layout and fields), toggle1995/RIS-DMMI (Ref-ZOM), henghuiding/gRefCOCO.
"""

import io
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rislab.data.images import ImageRecord
from rislab.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Expression:
    """One sentence. `sent` is the cleaned text, `raw` what was typed; papers differ in which they read."""

    sent_id: int
    sent: str
    raw: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What one or more sentences refer to in one image. `ann_ids` is empty for a zero-target reference."""

    ref_id: int
    image_id: int
    ann_ids: tuple[int, ...]
    split: str
    expressions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object. `segmentation` is as the file has it: `masks.from_segmentation` reads it; category 0 is "none given"."""

    ann_id: int
    image_id: int
    category_id: int
    is_crowd: bool
    segmentation: Any


@dataclass(frozen=True)
class Fault:
    """A record that is not as it should be. kind: a word or two, to count by."""

    kind: str
    file: Path
    record: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.what}" if self.record else f"{self.file}: {self.what}"


class Faults:
    """Where readers say what is wrong: the first fault ends the reading, unless they are collected.

    collect: keep every fault in `found` and go on without the record (`rislab data check`).
    """

    def __init__(self, collect: bool = False) -> None:
        self.collect = collect
        self.found: list[Fault] = []

    def add(self, kind: str, file: Path, record: str, what: str) -> None:
        """Raises DataError unless faults are collected."""
        fault = Fault(kind, file, record, what)
        if not self.collect:
            raise DataError(str(fault))
        self.found.append(fault)


_MALFORMED = (KeyError, TypeError, ValueError, OverflowError, AttributeError)
"""What reading a field of a record raises that is not as it should be."""


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise DataError(f"asks for {module}.{name}; such a file holds plain values only, refused")


def unpickled(data: bytes) -> Any:
    """Plain values from a pickle. Raises DataError: damaged, or asking to run code."""
    try:
        # Python 2 wrote the releases: its byte strings are ASCII, or UTF-8 at worst.
        return _BuiltinsOnly(io.BytesIO(data), encoding="utf-8").load()
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
        raise DataError(f"not a readable pickle ({type(error).__name__}: {error})") from None


def _parsed(path: Path) -> Any:
    """A JSON file. Raises DataError."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise DataError(f"{path}: not readable JSON ({error})") from None


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The list of references in a pickle or JSON file. Raises DataError: missing, damaged, or asking to run code."""
    if path.suffix == ".json":
        refs = _parsed(path)
    else:
        try:
            refs = unpickled(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{path}: expected a list of references, found {type(refs).__name__}")
    return refs


@dataclass(frozen=True)
class Instances:
    """`instances.json`: images and annotations by id; every object of the images, also those that nobody refers to."""

    images: dict[int, ImageRecord]
    annotations: dict[int, Annotation]


def read_instances(path: Path, faults: Faults) -> Instances:
    """Raises DataError for a missing or damaged file; says to `faults` what is wrong with a record."""
    instances = _parsed(path)
    lists = [instances.get(key) if isinstance(instances, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(part, list) for part in lists):
        raise DataError(f"{path}: expected COCO's instances format, an object with lists 'images' and 'annotations'")
    images = _by_id(instances["images"], _image, "image", path, faults)
    annotations = _by_id(instances["annotations"], _annotation, "annotation", path, faults)
    return Instances(images, annotations)


def _by_id(
    records: list[Any], read: Callable[[Any], tuple[int, T]], what: str, path: Path, faults: Faults
) -> dict[int, T]:
    found: dict[int, T] = {}
    for record in records:
        try:
            number, value = read(record)
        except _MALFORMED as error:
            reason = f"field missing or of a wrong type: {error!r}"
            faults.add(f"unreadable {what}", path, f"{what} {_head(record)}", reason)
            continue
        except DataError as error:
            faults.add(f"unreadable {what}", path, f"{what} {record['id']}", str(error))
            continue
        if number in found:
            faults.add(f"duplicate {what} id", path, "", f"{what} id {number} occurs more than once")
        else:
            found[number] = value
    return found


def _image(record: Any) -> tuple[int, ImageRecord]:
    image = ImageRecord(_whole(record["id"]), _text(record["file_name"]), int(record["height"]), int(record["width"]))
    if image.height < 1 or image.width < 1:
        raise DataError(f"is said to have {image.width}x{image.height} pixels")
    return image.image_id, image


def _annotation(record: Any) -> tuple[int, Annotation]:
    ann_id, category = _whole(record["id"]), record.get("category_id", 0)
    crowd = bool(record.get("iscrowd", 0))
    return ann_id, Annotation(ann_id, _whole(record["image_id"]), _whole(category), crowd, record["segmentation"])


def bad_box(record: dict[str, Any]) -> str:
    """What is wrong with the `bbox` of an annotation, which rislab itself does not use; "" when nothing is."""
    box = record.get("bbox")
    if box is None:
        return ""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    if not numbers or not all(math.isfinite(v) for v in box):
        return f"bbox is {_head(box)}, expected four finite numbers [x, y, width, height]"
    return f"bbox has a negative size: {box}" if min(box[2:]) < 0 else ""


def _whole(value: Any) -> int:
    """An id: a whole number, also where a tool wrote it as a float."""
    if isinstance(value, bool) or int(value) != value:
        raise TypeError(f"{value!r} is no id")
    return int(value)


def _head(record: Any) -> str:
    text = repr(record)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    # Half of a surrogate pair can stand in a pickle but in no file that we write.
    return value.encode("utf-8", "replace").decode("utf-8")


def _annotation_ids(ref: dict[str, Any]) -> tuple[int, ...]:
    """One id or a list of them. None: an empty list (Ref-ZOM, whose `source` says "zero"), or -1 (gRefCOCO)."""
    value = ref["ann_id"]
    ids = tuple(_whole(ann_id) for ann_id in (value if isinstance(value, (list, tuple)) else [value]))
    if -1 in ids and len(ids) > 1:
        raise ValueError(f"ann_id {list(ids)}: -1 says that there is no target, beside others it says nothing")
    # The official reader of Ref-ZOM decides by the source alone.
    return () if ids == (-1,) or ref.get("source") == "zero" else ids


def reference(ref: dict[str, Any], path: Path, instances: Instances, faults: Faults) -> Reference | None:
    """One record of a refs file; None when it has a fault that is collected."""
    where = f"ref_id {_head(ref.get('ref_id', '?'))}"
    try:
        sentences = tuple(
            Expression(_whole(s["sent_id"]), _text(s["sent"]).strip(), _text(s["raw"])) for s in ref["sentences"]
        )
        split = _text(ref["split"])
        found = Reference(_whole(ref["ref_id"]), _whole(ref["image_id"]), _annotation_ids(ref), split, sentences)
    except _MALFORMED as error:
        faults.add("unreadable reference", path, where, f"field missing or of a wrong type: {error!r}")
        return None
    if not sentences:
        faults.add("no sentences", path, where, "no sentences")
        return None
    if found.image_id not in instances.images:
        faults.add("dangling image id", path, where, f"image_id {found.image_id} is not in instances.json")
        return None
    for ann_id in found.ann_ids:
        annotation = instances.annotations.get(ann_id)
        if annotation is None:
            faults.add("dangling annotation id", path, where, f"ann_id {ann_id} is not in instances.json")
            return None
        if annotation.image_id != found.image_id:
            what = f"ann_id {ann_id} belongs to image {annotation.image_id}, not {found.image_id}"
            faults.add("annotation of another image", path, where, what)
            return None
    return found


def without_duplicates(references: list[Reference], path: Path, faults: Faults) -> list[Reference]:
    """References and sentences whose ids are their own; scores are kept by sent_id."""
    kept: list[Reference] = []
    refs: set[int] = set()
    sentences: dict[int, int] = {}
    for ref in references:
        if ref.ref_id in refs:
            faults.add("duplicate reference id", path, f"ref_id {ref.ref_id}", "occurs more than once")
            continue
        refs.add(ref.ref_id)
        if len({expression.sent_id for expression in ref.expressions}) < len(ref.expressions):
            faults.add("duplicate sentence id", path, f"ref_id {ref.ref_id}", "has a sent_id more than once")
            continue
        shared = next((e.sent_id for e in ref.expressions if e.sent_id in sentences), None)
        if shared is not None:
            what = f"occurs in ref_id {sentences[shared]} and in ref_id {ref.ref_id}; scores are kept by sent_id"
            faults.add("duplicate sentence id", path, f"sent_id {shared}", what)
            continue
        sentences.update((expression.sent_id, ref.ref_id) for expression in ref.expressions)
        kept.append(ref)
    return kept
