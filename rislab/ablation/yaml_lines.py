"""YAML files that know on which line everything stands."""

import math
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rislab.errors import ConfigError

YamlPath = tuple[str | int, ...]
LARGEST = 10**6
"""Values in a file, which a table of ten thousand rows does not reach."""

Mistake = tuple[YamlPath, str]


class Loader(yaml.CSafeLoader):
    """YAML as LightningCLI reads it: 1e-4 is a number, which YAML 1.1 takes for text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _expanded(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, aliases written out; infinite for one that holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = isinstance(node, yaml.MappingNode)
        inner = [each for pair in node.value for each in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_expanded(each, known) for each in inner)
    return known[id(node)]


def read_yaml(path: Path) -> Any:
    """Content of a config or table. Raises ConfigError with file and line."""
    return YamlFile(path).value


class YamlFile:
    """A YAML file read whole: `value`, and the line of every key and item by its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file") from None
        self.lines: dict[YamlPath, int] = {(): 1}
        self.repeated: list[Mistake] = []
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                if _expanded(node, {}) > LARGEST:
                    raise ConfigError(f"{path}: its aliases stand for more than {LARGEST} values")
                self._walk(node, ())
            self.value: Any = loader.construct_document(node) if node is not None else None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{path}:{line}  not readable as YAML: {error.problem}") from None
        except (
            yaml.YAMLError,
            ValueError,
        ) as error:  # ValueError: a date that is none, a number of thousands of digits
            raise ConfigError(f"{path}: not readable as YAML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{path}: not readable as YAML: nested too deep") from None
        finally:
            loader.dispose()

    def _walk(self, node: yaml.Node, position: YamlPath) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*position, key.value if isinstance(key, yaml.ScalarNode) else "?")
                if inner in self.lines:
                    self.repeated.append((inner, f"key {inner[-1]!r} is given twice"))
                self.lines[inner] = key.start_mark.line + 1
                self._walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self.lines[(*position, number)] = value.start_mark.line + 1
                self._walk(value, (*position, number))

    def line(self, position: YamlPath) -> int:
        """Line of a key or item, or of the nearest thing around it."""
        while position not in self.lines:
            position = position[:-1]
        return self.lines[position]

    def blame(self, mistakes: Iterable[Mistake]) -> list[str]:
        """Mistakes in the file's order, each with file and line."""
        found = sorted((self.line(position), message) for position, message in mistakes)
        return [f"{self.path}:{line}  {message}" for line, message in found]


def overlay(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put one config over another: mappings are merged, anything else is replaced, and another class takes no options
    over from the one below."""
    if "class_path" in above and above["class_path"] != below.get("class_path"):
        below.clear()
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            overlay(below[key], value)
        else:
            below[key] = deepcopy(value)
