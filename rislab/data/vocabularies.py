"""The class names of a method that has no text encoder: which it answers, and by which other spellings."""

from collections.abc import Sequence

import yaml

from rislab.data.benchmark_trees import NAMES
from rislab.errors import ConfigError, brief, nearest

BACKGROUND = "background"


class Vocabulary:
    """A closed list of class names.

    Args:
        given: The names, or a file of `rislab/data/names` (`voc`, `coco_things`), whose published renames are known, too.

    Attributes:
        names: K names in order.
        known: Every spelling that is answered: the names, their renames, and `background`.

    Raises:
        ConfigError: No such file, no name, or one name twice.
    """

    def __init__(self, given: str | Sequence[str]) -> None:
        renames: list[dict[str, str]] = []
        if isinstance(given, str):
            files = sorted(path.stem for path in NAMES.glob("*.yaml"))
            if given not in files:
                raise ConfigError(f"no class names {given!r}; there are {', '.join(files)}{nearest(given, files)}")
            content = yaml.safe_load((NAMES / f"{given}.yaml").read_text())
            # A file gives its first set in full; one of groups has their names.
            given = next((value for value in content.values() if isinstance(value, list)), None) or list(
                content["groups"]
            )
            renames = list(content.get("renames", {}).values())
        self.names = tuple(given)
        self._columns = {name.lower(): column for column, name in enumerate(self.names)}
        if not self.names or len(self._columns) < len(self.names):
            raise ConfigError(f"class names {brief(self.names, 200)}: expected one or more, and each once")
        for changed in renames:
            for name, other in changed.items():
                self._columns.setdefault(other.lower(), self._columns[name.lower()])
        others = (name for name in self._columns if name not in {own.lower() for own in self.names})
        self.known = (*self.names, *others, BACKGROUND)

    def columns(self, names: Sequence[str]) -> list[int]:
        """The number of each name; case does not matter.

        Raises:
            ConfigError: A name that is none of the list.
        """
        for name in names:
            if name.lower() not in self._columns:
                raise ConfigError(
                    f"{brief(name)} is none of the {len(self.names)} class names that this method answers"
                    f"{nearest(name, self.known[:-1])}: {brief(', '.join(self.names), 120)[1:-1]}"
                )
        return [self._columns[name.lower()] for name in names]
