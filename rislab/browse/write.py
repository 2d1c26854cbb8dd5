"""Writes a browser of results: one folder that opens from disk, without a server.

Scripts carry the data, since a page that was opened from disk cannot read files.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from rislab.browse.contents import Contents, Entry, Picture
from rislab.errors import ConfigError, from_system
from rislab.files import write_bytes, write_text

PAGE = "index.html"
INDEX = "data/index.js"
CHUNK = 256
"""Units whose masks lie in one file. A page loads the files of what it shows."""

LARGEST_COPY = 4_000_000
"""Bytes of all pictures up to which they are copied into the folder by default."""

Pictures = Literal["auto", "copy", "reference"]


def write(shown: Contents, folder: Path, pictures: Pictures = "auto") -> Path:
    """Write the folder, in the place of one that was written before, and return its page. Same inputs, same bytes.

    Args:
        pictures: copied into the folder, referred to where they lie, or copied where all are small together.

    Raises:
        ConfigError: The folder holds other files.
    """
    if folder.exists() and not ((folder / INDEX).is_file() or (folder.is_dir() and not any(folder.iterdir()))):
        raise ConfigError(f"{folder} holds other files: nothing was written; choose another folder")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "data").mkdir(parents=True)
        sources = _pictures(shown.pictures, folder, unfinished, pictures)
        write_text(unfinished / INDEX, _script("index", _index(shown, sources)))
        for name, chunks in _masks(shown):
            for number, chunk in enumerate(chunks):
                write_text(unfinished / "data" / f"{name}-{number}.js", _script("masks", name, number, chunk))
        for file in sorted(files("rislab.browse").joinpath("page").iterdir(), key=lambda each: each.name):
            write_bytes(unfinished / file.name, file.read_bytes())
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except OSError as error:
        raise from_system(error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / PAGE


def _script(function: str, *values: Any) -> str:
    """A call of the page's function with values: what a page that was opened from disk may load."""
    given = ",".join(json.dumps(value, separators=(",", ":"), sort_keys=True) for value in values)
    return f"rislabBrowse.{function}({given});\n"


def _pictures(found: Sequence[Picture], folder: Path, unfinished: Path, how: Pictures) -> list[str]:
    """Where the page finds each picture: a relative URL."""
    inside = unfinished / "pictures"
    if how == "auto":
        total = sum(each.file.stat().st_size if each.file else len(each.data or b"") for each in found)
        how = "copy" if total <= LARGEST_COPY else "reference"
    sources = []
    for each in found:
        if each.file is not None and how == "reference":
            target = os.path.relpath(each.file.resolve(), folder.resolve())
            sources.append(quote(Path(target).as_posix()))
            continue
        write_bytes(inside / each.name, each.data if each.data is not None else _bytes(each))
        sources.append(quote(f"pictures/{each.name}"))
    return sources


def _bytes(picture: Picture) -> bytes:
    assert picture.file is not None, "a picture has a file or its bytes"
    return picture.file.read_bytes()


def _index(shown: Contents, sources: Sequence[str]) -> dict[str, Any]:
    """All but the masks. Scores in hundredths of a percent, -1 where there is none; shares in hundredths of a percent."""
    sizes = sorted({unit.size for unit in shown.units})
    at = {size: n for n, size in enumerate(sizes)}
    rows = list(dict.fromkeys((entry.row, entry.label) for entry in shown.entries))
    units = shown.units
    return {
        "title": shown.title,
        "subtitle": shown.subtitle,
        "kind": shown.kind,
        "metric": shown.metric,
        "meaning": shown.meaning,
        "notes": list(shown.notes),
        "report": shown.report,
        "classes": list(shown.classes),
        "chunk": CHUNK,
        "sizes": [list(size) for size in sizes],
        "pictures": [[source, each.height, each.width] for source, each in zip(sources, shown.pictures, strict=True)],
        "rows": [{"name": name, "label": label} for name, label in rows],
        "units": {
            "number": [unit.number for unit in units],
            "picture": [unit.picture for unit in units],
            "text": [unit.text for unit in units],
            "words": [unit.words for unit in units],
            "share": [round(10_000 * unit.share) for unit in units],
            "distractors": [unit.distractors for unit in units],
            "position": [int(unit.has_position) for unit in units],
            "noTarget": [int(unit.no_target) for unit in units],
            "size": [at[unit.size] for unit in units],
        },
        "entries": [_entry(entry, [name for name, _ in rows]) for entry in shown.entries],
    }


def _entry(entry: Entry, rows: Sequence[str]) -> dict[str, Any]:
    hundredths = np.where(np.isnan(entry.scores), -1, np.rint(100 * np.nan_to_num(entry.scores))).astype(int)
    return {
        "row": rows.index(entry.row),
        "seed": entry.seed,
        "fold": entry.fold,
        "anySeed": entry.any_seed,
        "scores": hundredths.tolist(),
        "errors": entry.errors.tolist(),
    }


def _masks(shown: Contents) -> Iterator[tuple[str, Iterator[Sequence[str | None]]]]:
    """The name of each set of masks, and its chunks."""
    yield "truth", _chunks([unit.target for unit in shown.units])
    for number, entry in enumerate(shown.entries):
        yield f"answers-{number}", _chunks(entry.masks)


def _chunks(values: Sequence[str | None]) -> Iterator[Sequence[str | None]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
