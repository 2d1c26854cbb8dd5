"""`rislab init`: a table with the configs that it names, in a folder of the user's, to edit."""

import os
from collections.abc import Iterator
from pathlib import Path

from rislab.ablation import lookup
from rislab.ablation.table import Table
from rislab.errors import ConfigError
from rislab.files import write_bytes
from rislab.paths import contents

SCHEMA = "schema.json"


def copy(tables: list[Table], folder: Path) -> list[Path]:
    """Copy tables, their configs and the schema that editors read.

    Args:
        tables: As loaded.
        folder: Where to; `ablations/` and `experiments/` are made in it. A file that is there with the same content stays.

    Returns:
        The files, tables first.

    Raises:
        ConfigError: A file is there with other content. Nothing is written then.
    """
    sources = dict(pair for table in tables for pair in _files(table))
    schema = lookup.files(f"{lookup.TABLES}/{SCHEMA}").get(f"{lookup.TABLES}/{SCHEMA}")
    if schema is not None:
        sources[f"{lookup.TABLES}/{SCHEMA}"] = schema
    data = {folder / name: contents(source) for name, source in sources.items()}
    taken = [str(path) for path, content in data.items() if os.path.lexists(path) and contents(path) != content]
    if taken:
        raise ConfigError(
            f"{taken[0]} is there already, and differs; nothing was written (files like this: {len(taken)})"
        )
    for path, content in data.items():
        if not path.exists():
            write_bytes(path, content)
    return list(data)


def _files(table: Table) -> Iterator[tuple[str, Path]]:
    """(path below the new folder, file) of a table and its configs."""
    yield f"{lookup.TABLES}/{table.path.name}", table.path
    for profile in table.profiles.values():
        for file in (*profile.config, *(each for stage in profile.stages for each in stage.config)):
            yield _place(file, table.path), file


def _place(file: Path, table: Path) -> str:
    """Where a config goes, so that the copied table finds it by the name that it has for it. Raises ConfigError."""
    for root, below in (
        (Path.cwd(), ""),
        (table.parent.parent.absolute(), ""),
        (lookup.package_root(), ""),
        (table.parent.absolute(), f"{lookup.TABLES}/"),
    ):
        if file.absolute().is_relative_to(root):
            return f"{below}{file.absolute().relative_to(root).as_posix()}"
    raise ConfigError(f"{table}: its config {file} lies elsewhere; copy it by hand, and name it in the copied table")
