"""COCO files: each annotation with a sentence is a row; those without one are named by their category."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rislab.data.annotations import whole, yes_or_no
from rislab.data.own import shapes
from rislab.data.own.pictures import Places
from rislab.data.own.rows import Found, Row
from rislab.data.own.shapes import Shape
from rislab.errors import DataError, brief

TEXT_KEYS = ("text", "texts", "sentence", "sentences", "caption", "captions", "expression", "expressions")


def read_coco(path: Path, content: Mapping[str, Any], places: Places) -> Found:
    """Rows of a parsed COCO file. Annotations of a category without sentences mean all of its objects in their picture."""
    found = Found("COCO")
    images = _by_id(content.get("images"), "images", path)
    categories = {
        key: str(value.get("name", ""))
        for key, value in _by_id(content.get("categories") or [], "categories", path).items()
    }
    annotations = content["annotations"]
    if not isinstance(annotations, list):
        raise DataError(f"{path}: 'annotations' is {brief(annotations)}, expected a list")
    named: dict[tuple[int, str, str], list[tuple[str, tuple[Shape, ...]]]] = {}
    broken: dict[tuple[int, str, str], str] = {}
    for number, record in enumerate(annotations):
        is_record = isinstance(record, dict)
        where = f"{path}: annotation {brief(record['id']) if is_record and 'id' in record else f'number {number}'}"
        with found.row(where):
            if not is_record:
                raise DataError(f"{brief(record)}, expected an object")
            image_id = _id(record, "image_id")
            if image_id not in images:
                raise DataError(f"image_id {image_id} is in no record of 'images'")
            image = images[image_id]
            category = _category(record, categories)
            split = record.get("split") or image.get("split") or ""
            if not isinstance(split, str):
                raise DataError(f"split is {brief(split)}, expected text")
            texts = _texts(record)
            key = (image_id, category, split)
            try:
                parts = _shapes(record)
            except DataError:
                if not texts:
                    broken.setdefault(key, where)
                raise
            if texts:
                found.rows.append(_row(where, image, texts, (parts,) if parts else (), split, category, places))
            elif not category:
                raise DataError(f"no sentence (keys {', '.join(TEXT_KEYS)}) and no category")
            elif parts:
                named.setdefault(key, []).append((where, parts))
    for key, objects in named.items():
        where = objects[0][0]
        with found.row(where):
            if key in broken:
                raise DataError(
                    f"{key[1]!r} means all of its objects in the picture, and one is left out: {broken[key]}"
                )
            parts_of_all = tuple(parts for _, parts in objects)
            row = _row(where, images[key[0]], (key[1],), parts_of_all, key[2], key[1], places, named=True)
            found.rows.append(row)
            found.notes["sentences are names of categories, for all of their objects in a picture"] += 1
    return found


def _by_id(records: Any, what: str, path: Path) -> dict[int, dict[str, Any]]:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: {what!r} is {brief(records)}, expected a list of objects")
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        try:
            number = _id(record, "id")
        except DataError as error:
            raise DataError(f"{path}: {what}: {error}") from None
        if number in found:
            raise DataError(f"{path}: {what}: id {number} is given more than once")
        found[number] = record
    return found


def _id(record: Mapping[str, Any], key: str) -> int:
    try:
        return whole(record.get(key), key)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(str(error)) from None


def _category(record: Mapping[str, Any], categories: Mapping[int, str]) -> str:
    if record.get("category_id") is None:
        return ""
    number = _id(record, "category_id")
    if number not in categories:
        raise DataError(f"category_id {number} is in no record of 'categories'")
    return categories[number]


def _texts(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences of an annotation, from the first of TEXT_KEYS that it has; those of REFER's form by their `raw`."""
    key = next((key for key in TEXT_KEYS if record.get(key)), None)
    if key is None:
        return ()
    value = record[key]
    values = value if isinstance(value, list) else [value]
    texts = [one.get("raw", one.get("sent")) if isinstance(one, dict) else one for one in values]
    sentences = tuple(text for text in texts if isinstance(text, str))
    if len(sentences) < len(texts):
        raise DataError(f"{key} is {brief(value)}, expected a sentence or a list of them")
    return sentences


def _shapes(record: Mapping[str, Any]) -> tuple[Shape, ...]:
    """The parts of one object; none where the annotation says that its sentence means nothing (an empty segmentation)."""
    try:
        is_crowd = yes_or_no(record.get("iscrowd") or 0, "iscrowd")  # by type and word, never by Python's truth
    except TypeError as error:
        raise DataError(str(error)) from None
    if is_crowd:
        raise DataError("iscrowd: a region of many objects is no object")
    given = record.get("segmentation")
    if isinstance(given, dict):
        return (shapes.RunLengths(given),)
    if isinstance(given, list) and given and all(isinstance(part, dict) for part in given):
        return tuple(shapes.RunLengths(part) for part in given)
    if given:
        return (shapes.polygons(given),)
    if record.get("bbox"):
        return (shapes.box(record["bbox"]),)
    raise DataError("neither a segmentation nor a bbox")


def _row(
    where: str,
    image: Mapping[str, Any],
    texts: tuple[str, ...],
    objects: tuple[tuple[Shape, ...], ...],
    split: str,
    category: str,
    places: Places,
    named: bool = False,
) -> Row:
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"its image has file_name {brief(name)}, expected the name of a file")
    size = None
    if image.get("height") is not None and image.get("width") is not None:
        try:
            size = (whole(image["height"], "height"), whole(image["width"], "width"))
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"its image: {error}") from None
    return Row(where, places.find(name), name, texts, objects, split.strip(), category, size, named)
