"""Masks of sentences, exact to the pixel, in the forms that annotation tools read: COCO, labelme, PNG."""

import base64
import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rislab.data import annotations, masks
from rislab.data.annotations import Expression, Reference
from rislab.data.masks import RLE
from rislab.data.own.tables import NOTHING
from rislab.data.refer import Refer
from rislab.errors import DataError
from rislab.files import json_text, write_bytes, write_json, write_text

Form = Literal["coco", "labelme", "png"]
Progress = Callable[[int, int], None]
LABELME = "5.5.0"
"""The version of labelme whose files have masks, as written into them."""


@dataclass(frozen=True)
class Answer:
    """One sentence of the set and its mask at the picture's size."""

    reference: Reference
    expression: Expression
    mask: RLE


@dataclass(frozen=True)
class Names:
    """What the user's files call pictures and categories.

    Attributes:
        sources: by image id, the name in the file that was imported; of a set that was not imported, the file's own.
        categories: by category id.
    """

    sources: dict[int, str]
    categories: dict[int, str]


def names_of(refer: Refer) -> Names:
    """Raises DataError for a damaged `instances.json`."""
    content = annotations.parsed(refer.instances_file)
    sources = {image_id: image.file_name for image_id, image in refer.images.items()}
    for image in content["images"]:
        if isinstance(image.get("source"), str):
            sources[int(image["id"])] = image["source"]
    categories = {int(one["id"]): str(one["name"]) for one in content.get("categories", [])}
    return Names(sources, categories)


def write_coco(path: Path, refer: Refer, answers: list[Answer]) -> list[Path]:
    """One file: an annotation a sentence, with its `text`, as run lengths. A sentence with an empty mask has none."""
    names = names_of(refer)
    used = dict.fromkeys(answer.reference.image_id for answer in answers)
    images = [
        {
            "id": image_id,
            "file_name": names.sources[image_id],
            "height": refer.images[image_id].height,
            "width": refer.images[image_id].width,
        }
        for image_id in used
    ]
    found: list[dict[str, Any]] = []
    for answer in answers:
        area = masks.area(answer.mask)
        if not area:
            continue
        found.append(
            {
                "id": len(found) + 1,
                "image_id": answer.reference.image_id,
                "category_id": _category_id(refer, answer.reference, names),
                "text": answer.expression.raw,
                "sent_id": answer.expression.sent_id,
                "split": answer.reference.split,
                "segmentation": masks.to_json(answer.mask),
                "area": area,
                "bbox": [float(value) for value in coco_mask.toBbox(answer.mask)],
                "iscrowd": 0,
            }
        )
    categories = [{"id": number, "name": name} for number, name in (names.categories or {1: "object"}).items()]
    write_json(path, {"images": images, "annotations": found, "categories": categories})
    return [path]


def _category_id(refer: Refer, reference: Reference, names: Names) -> int:
    meant = refer.annotations_of(reference)
    number = meant[0].category_id if meant else 0
    return number if number in names.categories else next(iter(names.categories), 1)


def write_labelme(folder: Path, refer: Refer, answers: list[Answer]) -> list[Path]:
    """A file a picture beside nothing else; `imagePath` leads to the picture of the set. A sentence is a shape of type `mask`."""
    names = names_of(refer)
    by_image: dict[int, list[Answer]] = {}
    for answer in answers:
        by_image.setdefault(answer.reference.image_id, []).append(answer)
    written = []
    for image_id, several in by_image.items():
        image = refer.images[image_id]
        meant = [names.categories.get(_category_id(refer, a.reference, names), "object") for a in several]
        content = {
            "version": LABELME,
            "flags": {several[0].reference.split: True},
            "shapes": [
                _shape(masks.decode(answer.mask).view(np.bool_), label, answer.expression)
                for answer, label in zip(several, meant, strict=True)
                if masks.area(answer.mask)
            ],
            "imagePath": Path(os.path.relpath(refer.image_file(image_id).resolve(), folder.resolve())).as_posix(),
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        path = folder / f"{Path(image.file_name).stem}.json"
        if path in written:
            raise DataError(f"{path}: two pictures of the set have this name; export them as coco or png")
        write_text(path, json_text(content))
        written.append(path)
    return written


def _shape(mask: NDArray[np.bool_], label: str, expression: Expression) -> dict[str, Any]:
    """labelme's shape of type `mask`: the part within the box, whose corners are its first and last pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    part = mask[top : bottom + 1, left : right + 1].astype(np.uint8)
    return {
        "label": label,
        "points": [[float(left), float(top)], [float(right), float(bottom)]],
        "group_id": None,
        "description": expression.raw,
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(_png(part)).decode("ascii"),
        "sent_id": expression.sent_id,
    }


def write_png(folder: Path, refer: Refer, answers: list[Answer]) -> list[Path]:
    """`<sent_id>.png`, 0 and 255, of every sentence, as `rislab score` reads them; FOLDER.csv says which is which."""
    names = names_of(refer)
    written = []
    for answer in answers:
        path = folder / f"{answer.expression.sent_id}.png"
        write_bytes(path, _png(masks.decode(answer.mask) * np.uint8(255)))
        written.append(path)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["picture", "text", "mask", "split"])
    for answer, path in zip(answers, written, strict=True):
        name = names.sources[answer.reference.image_id]
        mask = f"{folder.name}/{path.name}" if masks.area(answer.mask) else NOTHING
        table.writerow([name, answer.expression.raw, mask, answer.reference.split])
    index = folder.with_name(f"{folder.name}.csv")
    write_text(index, text.getvalue())
    return [*written, index]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    _, encoded = cv2.imencode(".png", pixels)
    return bytes(encoded)


WRITERS: dict[str, Callable[[Path, Refer, list[Answer]], list[Path]]] = {
    "coco": write_coco,
    "labelme": write_labelme,
    "png": write_png,
}


def references(refer: Refer, split: str | None) -> Iterator[Reference]:
    """Of a split, or of all. Raises DataError for an unknown split."""
    yield from refer.references if split is None else refer.split(split)
