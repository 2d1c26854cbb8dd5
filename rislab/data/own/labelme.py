"""labelme's files, one a picture: the description of a shape is its sentence; without one, its label is.

Shapes of one group (`group_id`) and label are one object, as in labelme's own exporters.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rislab.data.own import shapes
from rislab.data.own.pictures import Places
from rislab.data.own.rows import Found, Row
from rislab.data.own.shapes import Shape
from rislab.errors import DataError, brief, nearest
from rislab.paths import contents, user_path

SHAPE_TYPES = ("polygon", "rectangle", "circle", "mask")


def is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(files: Iterable[Path], pictures: Path | None) -> Found:
    """Rows of labelme's files, those of a folder or one.

    Args:
        files: in order.
        pictures: the folder of the pictures; by default that of each file.
    """
    found = Found("labelme")
    for file in files:
        with found.row(str(file)):
            try:
                content = json.loads(contents(file))
            except (ValueError, RecursionError) as error:
                raise DataError(f"not readable JSON ({error})") from None
            if not is_labelme(content):
                raise DataError("not labelme's: expected an object with 'shapes' and 'imagePath'")
            _read_file(file, content, Places((pictures or file.parent,)), found)
    return found


def _read_file(file: Path, content: Mapping[str, Any], places: Places, found: Found) -> None:
    name = content["imagePath"]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"imagePath is {brief(name)}, expected the name of a file")
    picture = places.find(name)
    size = (content.get("imageHeight"), content.get("imageWidth"))
    declared = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
    split = _split(content.get("flags"))
    objects: dict[tuple[Any, ...], list[Shape]] = {}
    said: dict[tuple[Any, ...], tuple[str, list[str]]] = {}
    broken: dict[str, str] = {}
    spoiled: set[tuple[Any, ...]] = set()
    for number, shape in enumerate(content["shapes"]):
        where = f"{file}: shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = (label, group) if group is not None else (label, group, number)
        with found.row(where):
            try:
                part, texts = _shape(shape)
            except DataError:
                if isinstance(label, str):
                    broken.setdefault(label, where)
                spoiled.add(key)
                raise
            objects.setdefault(key, []).append(part)
            before = said.setdefault(key, (where, []))[1]
            before += [text for text in texts if text not in before]
    named: dict[str, list[tuple[str, tuple[Shape, ...]]]] = {}
    for key, parts in objects.items():
        where, texts = said[key]
        label = str(key[0])
        with found.row(where):
            if key in spoiled:
                raise DataError(f"another shape of its group {key[1]} is left out")
            if not texts:
                named.setdefault(label, []).append((where, tuple(parts)))
                continue
            row = Row(where, picture, name, tuple(texts), (tuple(parts),), split, label, declared)
            found.rows.append(row)
    for label, several in named.items():
        where = several[0][0]
        with found.row(where):
            if label in broken:
                raise DataError(
                    f"{label!r} means all of its objects in the picture, and one is left out: {broken[label]}"
                )
            everything = tuple(parts for _, parts in several)
            found.rows.append(Row(where, picture, name, (label,), everything, split, label, declared, named=True))
            found.notes["sentences are labels, for all of their objects in a picture"] += 1


def _split(flags: Any) -> str:
    """A flag of the picture named train, val or test that is set says its split."""
    chosen = [name for name in ("train", "val", "test") if isinstance(flags, dict) and flags.get(name) is True]
    if len(chosen) > 1:
        raise DataError(f"flags put it into {' and '.join(chosen)}")
    return chosen[0] if chosen else ""


def _shape(shape: Any) -> tuple[Shape, list[str]]:
    """(part of an object, its sentences, one a line of the description)."""
    if not isinstance(shape, dict):
        raise DataError(f"{brief(shape)}, expected an object")
    if not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise DataError(f"label is {brief(shape.get('label'))}, expected text")
    description = shape.get("description") or ""
    if not isinstance(description, str):
        raise DataError(f"description is {brief(description)}, expected text")
    texts = [line.strip() for line in description.splitlines() if line.strip()]
    kind = shape.get("shape_type", "polygon")
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise DataError(f"points is {brief(points)}, expected a list of [x, y]")
    flat = shapes.numbers(points, "points")
    if kind in ("rectangle", "circle", "mask") and len(flat) != 4:
        raise DataError(f"a {kind} of {len(points)} points, expected 2")
    match kind:
        case "polygon":
            return shapes.Polygons((flat,)), texts
        case "rectangle":
            corner = (min(flat[0], flat[2]), min(flat[1], flat[3]))
            return shapes.Box(*corner, abs(flat[2] - flat[0]), abs(flat[3] - flat[1])), texts
        case "circle":
            return shapes.circle((flat[0], flat[1]), (flat[2], flat[3])), texts
        case "mask":
            if not isinstance(shape.get("mask"), str):
                raise DataError("a shape of type mask without 'mask'")
            left, top, right, bottom = (int(value) for value in flat)
            return shapes.Bitmap(left, top, right, bottom, shape["mask"]), texts
    raise DataError(f"shape_type {brief(kind)}{nearest(str(kind), SHAPE_TYPES)}; read are {', '.join(SHAPE_TYPES)}")


def files_of(folder: Path) -> list[Path]:
    """The JSON files of a folder that labelme may have written, sorted."""
    return sorted(path for path in user_path(folder).glob("*.json") if not path.name.startswith("."))
