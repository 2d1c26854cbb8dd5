"""Tables on the screen: boxes for what is read, plain columns for thousands of rows, which boxes take seconds to draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rislab.printable import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

BOXED_ROWS = 200
_ANSI = {"green": "32", "cyan": "36", "red": "31", "yellow": "33", "magenta": "35", "blue": "34", "dim": "2"}

Cell = str | tuple[str, str]
"""Text, or text and its colour."""

Column = tuple[str, str]
"""Title, and "left", "right", "fold" for text that may be broken into lines, or "cut" for text that may be cut off."""


def _text(cell: Cell) -> str:
    return cell[0] if isinstance(cell, tuple) else cell


def boxed(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], **options: Any) -> "RichTable":
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title_justify="left", **options)
    for title, form in columns:
        shown.add_column(title, justify="right" if form == "right" else "left", no_wrap=form not in ("fold", "cut"))
    for row in rows:
        texts = [Text(printable(_text(each)), each[1] if isinstance(each, tuple) else "") for each in row]
        for text, (_, form) in zip(texts, columns, strict=True):
            if form == "cut":  # the column gives way as one that may be broken does, but stays one line
                text.no_wrap, text.overflow = True, "ellipsis"
        shown.add_row(*texts)
    return shown


def plain(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], colours: bool) -> str:
    texts = [[" ".join(printable(_text(each)).splitlines()) for each in row] for row in rows]
    heads = [title for title, _ in columns]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    out = []
    for number, row in enumerate([heads, *texts]):
        parts = [
            text.rjust(width) if form == "right" else text.ljust(width)
            for text, width, (_, form) in zip(row, widths, columns, strict=True)
        ]
        if number and colours:
            for column, each in enumerate(rows[number - 1]):
                if isinstance(each, tuple) and each[1] in _ANSI:
                    parts[column] = f"\x1b[{_ANSI[each[1]]}m{parts[column]}\x1b[0m"
        out.append("  ".join(parts).rstrip())
    return "\n".join(out)


def show(screen: Any, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], title: str = "") -> None:
    from rich.text import Text

    if len(rows) <= BOXED_ROWS:
        screen.print(boxed(columns, rows, title=Text(printable(title), style="italic") if title else None))
        return
    print(printable(title), file=screen.file, end="\n" if title else "")
    print(plain(columns, rows, colours=screen.is_terminal), file=screen.file)
