"""CSV, TSV and JSON lines: a row is a picture, a sentence, and the object that it means."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rislab.data.own import shapes
from rislab.data.own.pictures import Places
from rislab.data.own.rows import Found, Row
from rislab.data.own.shapes import Shape
from rislab.errors import DataError, brief, nearest
from rislab.paths import contents, user_path

COLUMNS = ("picture", "text", "mask", "polygon", "run_lengths", "box", "split", "category")
OTHER_NAMES = {
    "image": "picture",
    "file_name": "picture",
    "sentence": "text",
    "rle": "run_lengths",
    "bbox": "box",
    "label": "category",
}
"""Names that other tools give to the same columns."""
FORMS = ("mask", "polygon", "run_lengths", "box")
NOTHING = "none"
"""In the column `mask`: nothing in the picture is meant."""
DELIMITERS = ",;\t"
LONGEST_CELL = 1 << 27
_SEPARATOR = re.compile(r"[\s,;]+")


def read_csv(path: Path, places: Places) -> Found:
    """Rows of a CSV file with a header. Raises DataError: not text, no header, a header without `picture` and `text`."""
    found = Found("CSV")
    try:
        text = contents(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"{path}: empty file; expected a header with the columns {', '.join(COLUMNS)}")
    head = text.lstrip().splitlines()[0]
    delimiter = max(DELIMITERS, key=head.count)
    lines = _records(path, text, delimiter)
    _, first = next(lines)
    names = _header(path, first, found)
    for line, cells in lines:
        where = f"{path}:{line}"
        if not any(cell.strip() for cell in cells):
            continue
        with found.row(where):
            if len(cells) > len(names):
                raise DataError(
                    f"{len(cells)} cells, the header has {len(names)}; a cell that holds {delimiter!r} stands in double quotes"
                )
            given = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name and cell.strip()}
            found.rows.append(_row(where, _parsed(given), path.parent, places))
    return found


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each record."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        begins = 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{path}:{begins}: not readable CSV ({error})") from None
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    finally:
        csv.field_size_limit(before)


def _header(path: Path, cells: list[str], found: Found) -> list[str]:
    """Our name of each column, "" for those that are not read."""
    names = []
    for cell in cells:
        name, wrong = _column(cell.strip())
        if wrong:
            raise DataError(f"{path}:1: {wrong}")
        if not name:
            found.notes[f"column {brief(cell.strip())} is not read"] += 1
        names.append(name)
    twice = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if twice is not None:
        raise DataError(f"{path}:1: the column {twice!r} is given more than once")
    for needed in ("picture", "text"):
        if needed not in names:
            shown = ", ".join(cell.strip() for cell in cells)
            raise DataError(f"{path}:1: no column {needed!r}; the header is {brief(shown, 200)[1:-1]}")
    if not set(names) & set(FORMS):
        raise DataError(f"{path}:1: no column says where the object is: expected one of {', '.join(FORMS)}")
    return names


def _column(given: str) -> tuple[str, str]:
    """(our name, what is wrong with it) of a column or key; both "" for one that is not read."""
    name = given.lower()
    name = OTHER_NAMES.get(name, name)
    if name in COLUMNS:
        return name, ""
    hint = nearest(name, COLUMNS, cutoff=0.75)
    return "", f"unknown column {given!r}{hint}; columns are {', '.join(COLUMNS)}" if hint else ""


def _parsed(given: Mapping[str, str]) -> dict[str, Any]:
    """Cells as values: JSON where it is some, numbers where numbers are expected."""
    found: dict[str, Any] = dict(given)
    for name in ("polygon", "box"):
        if name in given:
            found[name] = _json(given[name], name) if given[name][:1] in "[{" else _numbers(given[name], name)
    if "run_lengths" in given:
        found["run_lengths"] = _json(given["run_lengths"], "run_lengths")
    return found


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{name} is {brief(text)}, which is no JSON; double quotes within a cell are doubled") from None


def _numbers(text: str, name: str) -> list[float]:
    try:
        return [float(part) for part in _SEPARATOR.split(text.strip(" ,;()"))]
    except ValueError:
        raise DataError(f"{name} is {brief(text)}, expected numbers") from None


def read_json_lines(path: Path, places: Places) -> Found:
    """Rows of a file with one JSON object a line. Raises DataError: not text."""
    found = Found("JSON lines")
    try:
        text = contents(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            with found.row(where):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"no JSON: {error}") from None
                _add_object(value, where, path, places, found)
    return found


def read_json_list(path: Path, values: list[Any], places: Places) -> Found:
    """The same from one JSON list of objects."""
    found = Found("JSON list")
    for number, value in enumerate(values):
        where = f"{path}: entry {number}"
        with found.row(where):
            _add_object(value, where, path, places, found)
    return found


def _add_object(value: Any, where: str, path: Path, places: Places, found: Found) -> None:
    if not isinstance(value, dict):
        raise DataError(f'{brief(value)}, expected an object {{"picture": ..., "text": ...}}')
    given: dict[str, Any] = {}
    for key, item in value.items():
        name, wrong = _column(key)
        if wrong:
            raise DataError(wrong)
        if not name:
            found.notes[f"key {brief(key)} is not read"] += 1
        elif name in given:
            raise DataError(f"{name} is given more than once")
        elif item is not None:
            given[name] = item
    found.rows.append(_row(where, given, path.parent, places))


def _row(where: str, given: Mapping[str, Any], folder: Path, places: Places) -> Row:
    name = given.get("picture")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"picture is {brief(name)}, expected the name of a file" if name is not None else "no picture")
    texts = given.get("text")
    texts = texts if isinstance(texts, list) else [texts]
    if not texts or any(text is None for text in texts):
        raise DataError("no text")
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"text is {brief(given['text'])}, expected a sentence or a list of them")
    for key in ("split", "category"):
        if not isinstance(given.get(key, ""), str):
            raise DataError(f"{key} is {brief(given[key])}, expected text")
    return Row(
        where,
        places.find(name),
        name,
        tuple(texts),
        _objects(given, folder),
        given.get("split", "").strip(),
        given.get("category", "").strip(),
    )


def _objects(given: Mapping[str, Any], folder: Path) -> tuple[tuple[Shape, ...], ...]:
    there = [form for form in FORMS if form in given]
    if len(there) != 1:
        gives = (
            f"gives {' and '.join(there)}, expected one of" if there else "says nowhere where the object is; expected"
        )
        raise DataError(f"{gives} {', '.join(FORMS)} (mask: {NOTHING} where nothing is meant)")
    value = given[there[0]]
    match there[0]:
        case "mask" if isinstance(value, str) and value.strip().lower() == NOTHING:
            return ()
        case "mask" if isinstance(value, str) and value.strip():
            file = user_path(value.strip())
            return ((shapes.MaskFile(file if file.is_absolute() else folder / file),),)
        case "mask":
            raise DataError(f"mask is {brief(value)}, expected the name of a PNG file, or {NOTHING}")
        case "polygon":
            return ((shapes.polygons(value),),)
        case "run_lengths":
            return ((shapes.RunLengths(value),),)
        case _:
            return ((shapes.box(value),),)
