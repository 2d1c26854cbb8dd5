"""The REFER layout on disk: pictures, `instances.json`, `refs(own).p`, and `import.json`, which says where they come from."""

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rislab.data.images import IMAGE_FOLDERS
from rislab.data.own.build import Records
from rislab.data.own.rows import Found
from rislab.data.published import known
from rislab.data.required_files import IMPORT, OWN
from rislab.errors import ConfigError
from rislab.files import json_bytes, write_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_RESERVED = {name.split("/")[0] for name in IMAGE_FOLDERS} | {"packed", "lmdb", "annotations"}

Progress = Callable[[int, int], None]


def check_place(folder: Path, replace: bool) -> None:
    """Raises ConfigError: a name that no data set can have, or a folder that holds something else or is not to be replaced."""
    name = folder.name
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"--out {folder}: {name!r} is no name of a data set: letters, digits and . _ + -")
    if name in known() or name in _RESERVED:
        raise ConfigError(
            f"--out {folder}: {name!r} is the name of a published set or of a folder of pictures; choose another"
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        pictures = pictures_of(folder)
        if pictures.exists():
            raise ConfigError(f"{pictures}: is there already, and belongs to no set {name!r}; choose another --out")
        return
    if not (folder / IMPORT).is_file():
        raise ConfigError(f"{folder}: holds something that `data import` has not written; choose another --out")
    if not replace:
        raise ConfigError(f"{folder}: holds an imported set; --replace puts the new one in its place")


def pictures_of(folder: Path) -> Path:
    """Where the pictures of a set lie: below the folder of pictures that all sets of a data root share."""
    return folder.parent / "images" / folder.name


def write(folder: Path, records: Records, found: Found, about: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Write a set as a whole: under temporary names first, then renamed.

    Args:
        folder: `DATA/NAME`; its name is the data set's.
        records: what is written.
        found: rows that are left out, and notes, for `import.json`.
        about: what else `import.json` says.
        progress: called with (pictures copied, in all).

    Returns:
        The content of `import.json`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        files = {}
        for number, image in enumerate(records.images):
            data = records.pictures[image["id"]].copy()
            files[image["file_name"]] = hashlib.sha256(data).hexdigest()
            write_bytes(stage / "images" / Path(image["file_name"]).name, data)
            progress(number + 1, len(records.images))
        instances = json_bytes(
            {
                "info": {"description": f"{folder.name}, imported by rislab"},
                "licenses": [],
                "images": records.images,
                "annotations": records.annotations,
                "categories": records.categories,
            }
        )
        # Protocol 2, as in the official releases.
        references = pickle.dumps(records.references, protocol=2)
        said = {
            **about,
            "version": version(instances, json.dumps(records.references).encode(), files),
            "sha256": {"instances.json": _sha(instances), f"refs({OWN}).p": _sha(references)},
            "splits": records.counts(),
            "objects": dict(records.kinds),
            "notes": dict(found.notes),
            "left_out": [{"where": bad.where, "reason": bad.reason} for bad in found.bad],
        }
        write_bytes(stage / "set" / "instances.json", instances)
        write_bytes(stage / "set" / f"refs({OWN}).p", references)
        write_bytes(stage / "set" / IMPORT, json_bytes(said))
        _put(stage / "images", pictures_of(folder), stage)
        _put(stage / "set", folder, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return said


def _put(new: Path, place: Path, stage: Path) -> None:
    """Rename a folder to its place; what was there goes into the temporary folder first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(stage / f"before-{new.name}")
    new.rename(place)


def version(instances: bytes, references: bytes, pictures: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits that change with anything that a result may depend on."""
    return _sha(instances + b"\0" + references + b"\0" + json.dumps(pictures, sort_keys=True).encode())[:12]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
