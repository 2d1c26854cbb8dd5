"""What every reader of a user's file gives: rows that can be used, and those that cannot, each with its reason."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rislab.data.own.shapes import Shape
from rislab.errors import RislabError, one_line


@dataclass(frozen=True)
class Row:
    """Sentences about one picture, and the objects that they mean.

    Attributes:
        where: file and line, or file and record.
        picture: the picture's file, absolute or as seen from the working directory.
        name: of the picture as the user's file has it.
        texts: one or more sentences.
        objects: what they mean, one annotation each, each the union of its shapes; none where nothing is meant.
        split: "" where the file does not say.
        category: "" where the file does not say.
        size: (height, width) that the file claims for the picture; None where it claims none.
        named: the text is the category's name, for want of a sentence.
    """

    where: str
    picture: Path
    name: str
    texts: tuple[str, ...]
    objects: tuple[tuple[Shape, ...], ...]
    split: str = ""
    category: str = ""
    size: tuple[int, int] | None = None
    named: bool = False


@dataclass(frozen=True)
class BadRow:
    """A row or record that is left out. where: file and line, or file and record."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class Found:
    """What a user's file holds.

    Attributes:
        format: `CSV`, `JSON lines`, `COCO` or `labelme`.
        notes: what is worth knowing of the file as a whole, with counts.
    """

    format: str
    rows: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Whatever is wrong with one row costs that row, and is listed."""
        try:
            yield
        except RislabError as error:  # a ConfigError is a path that no file can have
            self.bad.append(BadRow(where, one_line(error).removeprefix(f"{where}: ")))
