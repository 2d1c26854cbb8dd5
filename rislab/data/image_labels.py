"""Which classes a picture shows, and not where: from PASCAL VOC's annotations, or from IRN's `cls_labels.npy`."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from rislab.data.batch import LabelledPictures
from rislab.errors import DataError, about, brief
from rislab.nn.pickled_values import PickleError
from rislab.nn.unpickling import interpret
from rislab.paths import contents

XML = "Annotations/{}.xml"
"""Below the folder of a VOC tree."""

Present = NDArray[np.bool_]
"""[N, K]: whether a picture shows a class."""


@dataclass(frozen=True, kw_only=True)
class WeakPictures(LabelledPictures):
    """Pictures to be labelled with the help of what they show. They are shown as they are, at their original size.

    Attributes:
        present: For each picture the numbers of the names that it shows, ascending.
    """

    present: list[tuple[int, ...]]


def from_xml(folder: Path, pictures: Sequence[str], names: Sequence[str]) -> Present:
    """Labels from the objects of VOC annotations, difficult ones included; objects of other classes do not count.

    Args:
        folder: Of the VOC tree.
        pictures: Their names.
        names: Of the classes.

    Raises:
        DataError: A file that is missing or no annotation.
    """
    columns = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(pictures), len(names)), np.bool_)
    for row, picture in zip(found, pictures, strict=True):
        for name in objects(folder / XML.format(picture)):
            if name in columns:
                row[columns[name]] = True
    return found


def objects(path: Path) -> list[str]:
    """The class of each object of a VOC annotation. Raises DataError, naming the file."""
    data = contents(path)
    with about(path):
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DataError("declares entities, which a VOC annotation has none of")
        try:
            root = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise DataError(f"not readable as XML ({error})") from None
        if root.tag != "annotation":
            raise DataError(f"begins with <{brief(root.tag)[1:-1]}>, expected <annotation>")
        names = [(each.findtext("name") or "").strip() for each in root.findall("object")]
    if not all(names):
        raise DataError(f"{path}: an object without a name")
    return names


def from_npy(path: Path, pictures: Sequence[str], classes: int) -> Present:
    """Labels from a saved dict: picture -> numbers, 1 for a class that is there. The pickle in the file is not run.

    Args:
        path: Of the file. Its keys are names, or names as integers without underscores, as IRN's are.
        pictures: Their names.
        classes: How many numbers a picture has.

    Raises:
        DataError: No such file, another content, a picture that it does not know.
    """
    data = contents(path)
    with about(path):
        table = _table(data)
        return np.array([_row(table, picture, classes) for picture in pictures], np.bool_).reshape(-1, classes)


def _table(data: bytes) -> Mapping[Any, Any]:
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        dtype = read(file)[2]
    except ValueError as error:
        raise DataError(f"no file of numpy's ({error})") from None
    if not dtype.hasobject:
        raise DataError(f"holds an array of {dtype}, expected a saved dict: picture -> numbers")
    try:
        found = interpret(file, len(data), _no_storage)
    except PickleError as error:
        raise DataError(str(error)) from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict) or not found:
        raise DataError("holds no dict: picture -> numbers")
    return found


def _row(table: Mapping[Any, Any], picture: str, classes: int) -> Present:
    digits = picture.replace("_", "")
    row = table.get(picture)
    if row is None and digits.isascii() and digits.isdigit():
        row = table.get(int(digits))
    if row is None:
        raise DataError(f"has no labels of picture {brief(picture)}; its first key is {brief(next(iter(table)))}")
    if not isinstance(row, np.ndarray) or row.shape != (classes,) or not np.isin(row, (0, 1)).all():
        what = f"an array of shape {row.shape}" if isinstance(row, np.ndarray) else brief(row)
        raise DataError(f"picture {brief(picture)} has {what}, expected {classes} numbers, each 0 or 1")
    return row > 0


def _no_storage(key: str, dtype: Any, count: int) -> Tensor:
    raise PickleError("holds a tensor")
