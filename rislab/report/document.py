"""A report of sections and grids, said once for all its forms; every cell has a text or the reason why it has none."""

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["text", "number"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as it is printed; "" for one that has only a reason.
        value: the number behind the text, in full precision; None for words.
        reason: why there is no text.
        best: whether it is the best of its column.
        soft: what is said beside the text, in smaller type.
    """

    text: str = ""
    value: float | None = None
    reason: str = ""
    best: bool = False
    soft: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column.

    Attributes:
        title: first line.
        soft: lines below it.
        kind: whether it holds prose or numbers.
        share: of the width that columns of prose have, beside theirs.
    """

    title: str
    soft: tuple[str, ...] = ()
    kind: Kind = "number"
    share: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of a grid. begins: whether it is the first of several that belong together."""

    cells: tuple[Cell, ...]
    begins: bool = False


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        name: short, unique; CSV names it.
        title: heading; "" for none.
        text: printed before it.
        after: printed below it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    text: str = ""
    after: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether some rows belong to the one before them."""
        return any(row.begins for row in self.rows) and not all(row.begins for row in self.rows)

    @property
    def marks(self) -> dict[str, str]:
        """A letter of every reason, in the order in which they appear."""
        reasons = dict.fromkeys(cell.reason for row in self.rows for cell in row.cells if cell.reason)
        return {reason: _letter(number) for number, reason in enumerate(reasons)}


@dataclass(frozen=True)
class Section:
    """A part of the report: prose, grids, and items of a list."""

    title: str
    text: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A whole report. notice: said first and largest."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    notice: str = ""
    footer: tuple[str, ...] = field(default=())


def words(texts: Iterable[str]) -> tuple[Cell, ...]:
    """Cells of prose."""
    return tuple(Cell(text) for text in texts)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _letter(number: int) -> str:
    """a ... z, aa ..."""
    letters = string.ascii_lowercase
    return letters[number] if number < 26 else _letter(number // 26 - 1) + letters[number % 26]
