"""Tables and recipes by name: where each is looked up, in one place.

The order is: the working directory, the folder of `--tables DIR`, installed packages (their entry points, tables only), and
what comes with rislab. Of files with one name the first counts; a package's table may not have the name of one of ours. In a
checkout the working directory and what comes with rislab are the same.
"""

import glob
from functools import cache
from pathlib import Path

from rislab.ablation import plugins
from rislab.errors import ConfigError
from rislab.paths import unsafe_name

TABLES, RECIPES = "ablations", "experiments"
"""Folders of a root: one YAML file a table; a folder a method with one YAML file a recipe."""

EVERY_TABLE = f"{TABLES}/*.yaml"
PACKAGE = Path(__file__).parents[1]


@cache
def package_root() -> Path:
    """The folder with the tables and recipes that come with rislab: in the installed package, or in the checkout around it."""
    inside = PACKAGE / "resources"
    return inside if inside.is_dir() or not (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE.parent


def files(pattern: str, tables: Path | None = None) -> dict[str, Path]:
    """Files that come first in the order of this page.

    Args:
        pattern: Of paths below a root, such as `ablations/*.yaml` or `experiments/cris/toy.yaml`.
        tables: `--tables DIR`: a folder as `rislab init` makes it, its `ablations`, or any folder of tables.

    Returns:
        The files by their path below their root, sorted.

    Raises:
        ConfigError: No such folder as `tables`.
    """
    found: dict[str, Path] = {}
    for layer in _layers(pattern, tables):
        found = layer | found
    return dict(sorted(found.items()))


def _layers(pattern: str, tables: Path | None) -> list[dict[str, Path]]:
    """Files in the working directory, of `--tables`, of packages, and of rislab."""
    ours = _below(package_root(), pattern)
    of_packages: dict[str, Path] = {}
    if pattern == EVERY_TABLE:
        sound = plugins.sound(plugins.TABLES, (Path(name).stem for name in ours))
        of_packages = {f"{TABLES}/{name}.yaml": Path(file) for name, file in sound.items()}
    return [_below(Path(), pattern), _of_option(pattern, tables), of_packages, ours]


def _of_option(pattern: str, tables: Path | None) -> dict[str, Path]:
    if tables is None:
        return {}
    if not tables.is_dir():
        raise ConfigError(f"--tables {tables}: no such folder")
    root = tables.absolute().parent if tables.absolute().name == TABLES else tables
    if pattern.startswith(f"{TABLES}/") and not (root / TABLES).is_dir():  # the folder holds the tables themselves
        return {f"{TABLES}/{name}": path for name, path in _below(root, pattern.removeprefix(f"{TABLES}/")).items()}
    return _below(root, pattern)


def _below(root: Path, pattern: str) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in root.glob(pattern) if path.is_file()}


def find(name: str | Path, tables: Path | None = None) -> Path:
    """A table or recipe by its path: as written, or `ablations/...` and `experiments/...` below a root.

    One that is nowhere stays as it is: what reads it says so.
    """
    given = Path(name)
    is_recipe = given.suffix in (".yaml", ".yml") and given.parts[0] in (TABLES, RECIPES)
    if not is_recipe or unsafe_name(given.as_posix()) or given.exists():
        return given
    return files(glob.escape(given.as_posix()), tables).get(given.as_posix(), given)


def every_table(tables: Path | None = None) -> dict[str, Path]:
    """All tables, by name."""
    return {Path(name).stem: path for name, path in files(EVERY_TABLE, tables).items()}


def own_files(pattern: str) -> dict[str, Path]:
    """Files in the working directory, and those that come with rislab only where there are none; by their path."""
    here, _, _, ours = _layers(pattern, None)
    return dict(sorted((here or ours).items()))


def own_tables(tables: Path | None = None) -> dict[str, Path]:
    """Tables that a command about all tables shows, by name.

    Those that come with rislab are among them only where neither the working directory nor `--tables` has any.
    """
    here, of_option, of_packages, ours = _layers(EVERY_TABLE, tables)
    shown = {**({} if here or of_option else ours), **of_packages, **of_option, **here}
    return {Path(name).stem: path for name, path in sorted(shown.items())}


def shown_name(table: Path) -> str:
    """A table as a command line names it: by its name where a lookup without `--tables` finds it, else by its path."""
    found = every_table().get(table.stem)
    return table.stem if found is not None and found.resolve() == table.resolve() else str(table)
