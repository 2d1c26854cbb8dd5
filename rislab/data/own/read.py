"""Which form a user's file has, and its rows."""

import json
from pathlib import Path
from typing import Any

from rislab.data.own import labelme, tables
from rislab.data.own.coco import read_coco
from rislab.data.own.pictures import Places
from rislab.data.own.rows import Found
from rislab.errors import DataError
from rislab.paths import contents

EXPECTED = "expected CSV, JSON lines (.jsonl), COCO or labelme (.json, or a folder of labelme's files)"


def read(path: Path, pictures: Path | None) -> Found:
    """The rows of a user's file, or of a folder of labelme's files.

    Args:
        path: of the file or folder.
        pictures: the folder that names of pictures start from; by default the file's own, or `images` in it.

    Raises:
        DataError: Not there, not readable, of no known form.
    """
    if pictures is not None and not pictures.is_dir():
        raise DataError(f"{pictures}: no such folder (--pictures)")
    if path.is_dir():
        files = labelme.files_of(path)
        if not files:
            raise DataError(f"{path}: holds no .json file; {EXPECTED}")
        return labelme.read_labelme(files, pictures)
    places = Places((pictures,) if pictures is not None else (path.parent, path.parent / "images"))
    match path.suffix.lower():
        case ".csv" | ".tsv" | ".txt":
            return tables.read_csv(path, places)
        case ".jsonl" | ".ndjson":
            return tables.read_json_lines(path, places)
        case ".json":
            return _json(path, pictures, places)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    raise DataError(f"{path}: a file of type {path.suffix or 'none'}; {EXPECTED}")


def _json(path: Path, pictures: Path | None, places: Places) -> Found:
    data = contents(path)
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from None
    if labelme.is_labelme(content):
        return labelme.read_labelme([path], pictures)
    if isinstance(content, dict) and "annotations" in content:
        return read_coco(path, content, places)
    if isinstance(content, list):
        return tables.read_json_list(path, content, places)
    raise DataError(
        f"{path}: neither COCO's ('images', 'annotations') nor labelme's ('shapes', 'imagePath'); {EXPECTED}"
    )
