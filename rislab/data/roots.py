"""Where the files of a data set lie, by what a config says. Imports no torch."""

from pathlib import Path

from rislab.errors import ConfigError
from rislab.files import cache_dir
from rislab.paths import user_path


def data_root(root: str, is_generated: bool) -> Path:
    """Where `root` is: as written, or below the user's cache folder where a world is generated and `root` is relative.

    Raises:
        ConfigError: No path, or a relative path of a generated world that leaves the cache folder.
    """
    path = user_path(root)
    if not is_generated or path.is_absolute():
        return path
    if ".." in path.parts:
        raise ConfigError(
            f"root is {root!r}: a generated world lies in the cache folder ({cache_dir()}), or at an absolute path"
        )
    return cache_dir() / path
