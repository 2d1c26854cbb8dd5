"""The forms in which every check of `rislab data check` says what it found."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
EXAMPLES = 5
"""How many records of a kind of fault are named."""


@dataclass
class FaultCount:
    """One kind of fault: how often, and the first few."""

    kind: str
    count: int
    examples: list[str]


@dataclass
class PictureCheck:
    """Pictures of a data set. unreadable: truncated files and, where annotations give a size, those of another one."""

    expected: int
    missing: int
    unreadable: int | None
    examples: list[str]
