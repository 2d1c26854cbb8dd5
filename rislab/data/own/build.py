"""From rows to the records of the REFER layout, in memory: every row ends in them or in the list of bad ones."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from rislab.data import masks
from rislab.data.masks import RLE
from rislab.data.own import shapes, splits
from rislab.data.own.pictures import Orientation, Picture, look_at
from rislab.data.own.rows import Found, Row
from rislab.errors import DataError, nearest

Progress = Callable[[int, int], None]
UNNAMED = "object"
"""The category of objects for which the file gives none."""
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
_DIGITS = re.compile(r"(\d+)")
_PUNCTUATION = re.compile(r"[^\w\s'-]+")
EMPTY_ANNOTATION = -1
"""gRefCOCO's `ann_id` of a sentence that means nothing."""


def cleaned(text: str) -> str:
    """A sentence as REFER's `sent` has it: lower case, without punctuation; the sentence itself where nothing else is left."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split()) or " ".join(text.split())


@dataclass
class Records:
    """What is written.

    Attributes:
        pictures: by image id, with the name by which the user's file knows each.
        images, annotations, categories: of `instances.json`.
        references: of `refs(own).p`.
        kinds: how objects were given, counted.
    """

    pictures: dict[int, Picture] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures, references and sentences of each split; train, val and test first."""
        found: dict[str, dict[str, int]] = {}
        seen: dict[str, set[int]] = {}
        for reference in self.references:
            split = found.setdefault(reference["split"], {"pictures": 0, "references": 0, "sentences": 0})
            seen.setdefault(reference["split"], set()).add(reference["image_id"])
            split["references"] += 1
            split["sentences"] += len(reference["sentences"])
        for name, pictures in seen.items():
            found[name]["pictures"] = len(pictures)
        first = {name: at for at, name in enumerate(("train", "val", "test"))}
        return {name: found[name] for name in sorted(found, key=lambda name: (first.get(name, len(first)), name))}


@dataclass
class _Usable:
    """A row whose picture, objects and texts have been looked at. objects: (segmentation, mask) each."""

    row: Row
    picture: Picture
    texts: list[str]
    objects: list[tuple[Any, RLE]]


def build(
    found: Found, dataset: str, shares: Mapping[str, float], seed: int, orientation: Orientation, progress: Progress
) -> Records:
    """Look at every row, decide the splits, and number everything; what is wrong with a row is added to `found.bad`.

    Args:
        found: what the reader gave.
        dataset: name of the set's folder; pictures are named below it.
        shares: of the pictures for which the file gives no split.
        seed: of that choice.
        orientation: see `pictures.look_at`.
        progress: called with (rows done, rows in all).
    """
    pictures: dict[Path, Picture | DataError] = {}
    usable: list[_Usable] = []
    for number, row in enumerate(found.rows):
        with found.row(row.where):
            usable.append(_looked_at(row, pictures, orientation))
        progress(number + 1, len(found.rows))
    by_digest = {each.picture.digest: each.picture for each in usable}
    same = len({each.picture.path.resolve() for each in usable}) - len(by_digest)
    if same > 0:
        found.notes["pictures are copies of another one, to the byte, and count as that one"] += same
    kept, split_of = _with_splits(found, usable, shares, seed)
    records = _numbered(found, kept, split_of, dataset)
    found.bad.sort(
        key=lambda bad: [(int(part), "") if part.isdigit() else (0, part) for part in _DIGITS.split(bad.where)]
    )
    return records


def _looked_at(row: Row, pictures: dict[Path, Picture | DataError], orientation: Orientation) -> _Usable:
    if row.picture not in pictures:
        try:
            pictures[row.picture] = look_at(row.picture, orientation)
        except DataError as error:
            pictures[row.picture] = error
    picture = pictures[row.picture]
    if isinstance(picture, DataError):
        raise picture
    size = (picture.height, picture.width)
    is_turned = picture.stored != size
    stored = f"; if it was drawn on the stored {picture.stored[1]}x{picture.stored[0]} pixels: --orientation stored"
    if row.size is not None and row.size != size:
        shown = f"{picture.width}x{picture.height}{' as viewers show it (EXIF orientation)' if is_turned else ''}"
        hint = "; the file was drawn on stored pixels: --orientation stored" if row.size == picture.stored else ""
        raise DataError(f"the file says {row.size[1]}x{row.size[0]} pixels, {row.name} has {shown}{hint}")
    texts = [" ".join(text.split()) for text in row.texts]
    if not all(texts):
        raise DataError("the text is empty")
    if any(not text.isprintable() for text in texts):
        raise DataError("the text holds control characters")
    if row.split and not _SPLIT.fullmatch(row.split):
        raise DataError(f"split {row.split!r}: expected letters, digits, _ and -, such as train, val, test")
    try:
        objects = [shapes.united(parts, *size) for parts in row.objects]
    except DataError as error:
        raise DataError(f"{error}{stored if is_turned else ''}") from None
    return _Usable(row, picture, texts, objects)


def _with_splits(
    found: Found, usable: list[_Usable], shares: Mapping[str, float], seed: int
) -> tuple[list[_Usable], dict[str, str]]:
    """The rows that agree with the others on their picture's split, and the split of each picture by its digest."""
    given: dict[str, tuple[str, str]] = {}
    kept = []
    for each in usable:
        row, digest = each.row, each.picture.digest
        with found.row(row.where):
            if row.split:
                split, where = given.setdefault(digest, (row.split, row.where))
                if split != row.split:
                    raise DataError(
                        f"{row.name} is in split {split!r} ({where}), here it is said to be in {row.split!r}"
                    )
            kept.append(each)
    without = list(dict.fromkeys(each.picture.digest for each in kept if each.picture.digest not in given))
    if without and given:
        found.notes["pictures have no split in the file, and were given one"] += len(without)
    chosen = splits.assigned(without, shares, seed)
    return kept, {digest: split for digest, (split, _) in given.items()} | chosen


def _numbered(found: Found, kept: list[_Usable], split_of: Mapping[str, str], dataset: str) -> Records:
    records = Records()
    image_ids: dict[str, int] = {}
    annotation_ids: dict[tuple[Any, ...], int] = {}
    references: dict[tuple[Any, ...], dict[str, Any]] = {}
    said: dict[tuple[Any, ...], str] = {}
    sentences = 0
    for each in kept:
        row, picture = each.row, each.picture
        with found.row(row.where):
            planned = image_ids.get(picture.digest, len(image_ids) + 1)
            keys = [(planned, row.category, mask["counts"]) for _, mask in each.objects]
            key = (planned, *sorted(set(keys)))
            new = [text for text in dict.fromkeys(each.texts) if (key, text) not in said]
            if not new:
                raise DataError(f"says what {said[key, each.texts[0]]} says")
            said.update({(key, text): row.where for text in new})
            if picture.digest not in image_ids:
                image_ids[picture.digest] = planned
                _add_image(records, planned, picture, row.name, dataset)
            if key not in references:
                ids = []
                for number, (one, (segmentation, mask)) in enumerate(zip(keys, each.objects, strict=True)):
                    if one not in annotation_ids:
                        annotation_ids[one] = len(annotation_ids) + 1
                        category = _category(records, row.category or UNNAMED)
                        _annotate(records, annotation_ids[one], planned, category, segmentation, mask)
                        records.kinds.update({part.kind for part in row.objects[number]})
                    ids.append(annotation_ids[one])
                references[key] = _reference(records, planned, ids, split_of[picture.digest])
            for text in new:
                sentences += 1
                sent = cleaned(text)
                sentence = {"sent_id": sentences, "sent": sent, "raw": text, "tokens": sent.split()}
                references[key]["sentences"].append(sentence)
                references[key]["sent_ids"].append(sentences)
    repeated = Counter((ref["image_id"], s["sent"]) for ref in records.references for s in ref["sentences"])
    if several := sum(count > 1 for count in repeated.values()):
        found.notes["sentences are said of more than one object of their picture, each for itself"] += several
    return records


def _add_image(records: Records, image_id: int, picture: Picture, name: str, dataset: str) -> None:
    records.pictures[image_id] = picture
    records.images.append(
        {
            "id": image_id,
            "file_name": f"{dataset}/{picture.copied_name(image_id)}",
            "height": picture.height,
            "width": picture.width,
            "source": name,
        }
    )


def _category(records: Records, name: str) -> int:
    known = {category["name"]: category["id"] for category in records.categories}
    if name not in known:
        known[name] = len(known) + 1
        records.categories.append({"id": known[name], "name": name, "supercategory": ""})
    return int(known[name])


def _annotate(records: Records, ann_id: int, image_id: int, category: int, segmentation: Any, mask: RLE) -> None:
    records.annotations.append(
        {
            "id": ann_id,
            "image_id": image_id,
            "category_id": category,
            "segmentation": segmentation,
            "area": masks.area(mask),
            "bbox": [float(value) for value in coco_mask.toBbox(mask)],
            "iscrowd": 0,
        }
    )


def _reference(records: Records, image_id: int, ids: list[int], split: str) -> dict[str, Any]:
    """A new reference without sentences. One annotation is a number, as in RefCOCO; several are a list, as in gRefCOCO."""
    reference = {
        "ref_id": len(records.references) + 1,
        "ann_id": ids[0] if len(ids) == 1 else ids or [EMPTY_ANNOTATION],
        "category_id": records.annotations[ids[0] - 1]["category_id"] if ids else EMPTY_ANNOTATION,
        "image_id": image_id,
        "file_name": records.images[image_id - 1]["file_name"],
        "split": split,
        "sent_ids": [],
        "sentences": [],
    }
    records.references.append(reference)
    return reference


def split_notes(records: Records) -> list[str]:
    """What training will miss, in words."""
    there = list(records.counts())
    missing = [name for name in ("train", "val", "test") if name not in there]
    return [
        f"no split {name!r}{nearest(name, there, cutoff=0.6)}: `fit` expects train and val"
        for name in missing
        if name != "test"
    ]
