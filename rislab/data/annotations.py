"""Records of the annotation files that the referring releases share, and how they are read.

Values are taken by their type, never by Python's truth or conversions: `"0"` is not true, `"480"` is no height.
Sources: lichengunc/refer (layout and fields), toggle1995/RIS-DMMI (Ref-ZOM), henghuiding/gRefCOCO.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rislab.data.decoding import MAX_PIXELS
from rislab.data.images import ImageRecord
from rislab.data.plain_pickle import unpickled
from rislab.errors import DataError, brief
from rislab.paths import contents, unsafe_name

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

    Args:
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


def parsed(path: Path) -> Any:
    """A JSON file. Raises DataError."""
    try:
        return json.loads(contents(path))
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise DataError(f"{path}: not readable JSON ({error})") from None


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The list of references in a pickle or JSON file. Raises DataError: missing, damaged, or asking to run code."""
    if path.suffix == ".json":
        refs = parsed(path)
    else:
        data = contents(path)
        try:
            refs = unpickled(data)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{path}: expected a list of references, found {type(refs).__name__}")
    return refs


@dataclass(frozen=True)
class Instances:
    """`instances.json`: images and annotations by id; every object of the images, also those that no sentence refers to."""

    images: dict[int, ImageRecord]
    annotations: dict[int, Annotation]


def read_instances(path: Path, faults: Faults) -> Instances:
    """Raises DataError for a missing or damaged file; says to `faults` what is wrong with a record."""
    instances = parsed(path)
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
            faults.add(f"unreadable {what}", path, f"{what} {brief(record)}", reason)
            continue
        except DataError as error:
            faults.add(f"unreadable {what}", path, f"{what} {brief(record['id'])}", str(error))
            continue
        if number in found:
            faults.add(f"duplicate {what} id", path, "", f"{what} id {number} occurs more than once")
        else:
            found[number] = value
    return found


def _image(record: Any) -> tuple[int, ImageRecord]:
    height, width = whole(record["height"], "height"), whole(record["width"], "width")
    image = ImageRecord(whole(record["id"], "id"), _text(record["file_name"], "file_name"), height, width)
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise DataError(f"is said to have {width}x{height} pixels")
    reason = unsafe_name(image.file_name)
    if reason:
        raise DataError(f"file_name {brief(image.file_name)} {reason}: never opened")
    return image.image_id, image


def _annotation(record: Any) -> tuple[int, Annotation]:
    ann_id, category = whole(record["id"], "id"), whole(record.get("category_id", 0), "category_id")
    crowd = record.get("iscrowd", 0)
    if type(crowd) is not int or not 0 <= crowd <= 1:
        crowd = yes_or_no(crowd, "iscrowd")
    return ann_id, Annotation(
        ann_id, whole(record["image_id"], "image_id"), category, crowd == 1, record["segmentation"]
    )


def bad_box(record: dict[str, Any]) -> str:
    """What is wrong with the `bbox` of an annotation, which rislab itself does not use; "" when nothing is."""
    box = record.get("bbox")
    if box is None:
        return ""
    numbers = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
    if not numbers or not all(abs(v) < math.inf for v in box):  # also of whole numbers that no float can hold
        return f"bbox is {brief(box)}, expected four finite numbers [x, y, width, height]"
    return f"bbox has a negative size: {brief(box)}" if min(box[2:]) < 0 else ""


_INT64 = 2**63
_WORDS = {"0": 0, "1": 1, "false": 0, "true": 1}


def whole(value: Any, field: str) -> int:
    """An id or a size: a whole number of 64 bits, also where a tool wrote it as a float."""
    if type(value) is int and -_INT64 <= value < _INT64:
        return value
    if isinstance(value, float) and int(value) == value and abs(value) < _INT64:
        return int(value)
    raise TypeError(f"{field}: {brief(value)} is no {'whole number' if field in ('height', 'width') else 'id'}")


def yes_or_no(value: Any, field: str) -> int:
    """0 or 1 from a number, a truth value, or the word for one of them. Raises TypeError for anything else."""
    if isinstance(value, (int, float)) and value in (0, 1):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise TypeError(f"{field}: {brief(value)}, expected 0, 1, true or false")


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field}: {type(value).__name__} instead of text")
    # Half of a surrogate pair can stand in a pickle but in no file that we write.
    return value.encode("utf-8", "replace").decode("utf-8")


def _annotation_ids(ref: dict[str, Any]) -> tuple[int, ...]:
    """One id or a list of them. None: an empty list (Ref-ZOM, whose `source` says "zero"), or -1 (gRefCOCO)."""
    value = ref["ann_id"]
    ids = tuple(whole(ann_id, "ann_id") for ann_id in (value if isinstance(value, (list, tuple)) else [value]))
    if -1 in ids and len(ids) > 1:
        raise ValueError(f"ann_id {brief(list(ids))}: -1 says that there is no target, beside others it says nothing")
    # The official reader of Ref-ZOM decides by the source alone.
    return () if ids == (-1,) or ref.get("source") == "zero" else ids


def reference(ref: dict[str, Any], path: Path, instances: Instances, faults: Faults) -> Reference | None:
    """One record of a refs file; None when it has a fault that is collected.

    One without expressions (the released gRefCOCO has some) asks nothing: it is returned without a look at what it refers to.
    """
    where = f"ref_id {brief(ref.get('ref_id', '?'))}"
    try:
        if not isinstance(ref["sentences"], (list, tuple)):
            raise TypeError(f"sentences: {brief(ref['sentences'])} is no list")
        sentences = tuple(
            Expression(whole(s["sent_id"], "sent_id"), _text(s["sent"], "sent").strip(), _text(s["raw"], "raw"))
            for s in ref["sentences"]
        )
        ref_id, image_id = whole(ref["ref_id"], "ref_id"), whole(ref["image_id"], "image_id")
        found = Reference(ref_id, image_id, _annotation_ids(ref), _text(ref["split"], "split"), sentences)
    except _MALFORMED as error:
        faults.add("unreadable reference", path, where, f"field missing or of a wrong type: {error!r}")
        return None
    if not sentences:
        return found
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


def words_of_left_out(without_sentences: Mapping[str, int], split: str | None) -> str:
    """References of a split (None: of all) that have no sentence, in words; "" for none."""
    number = sum(without_sentences.values()) if split is None else without_sentences.get(split, 0)
    return f"{number} references without a sentence left out" if number else ""


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
