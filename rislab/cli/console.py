"""The screen of every command: what came from files is shown there and not obeyed."""

from typing import TYPE_CHECKING, Any

from rislab.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


def open_console(**options: Any) -> "Console":
    """A console that writes control characters in texts out; also in cells of tables, as long as they are given as `str`."""
    from rich.console import Console
    from rich.text import Text

    class Printable(Console):
        def render_str(self, text: str, **form: Any) -> Text:
            return super().render_str(printable(text), **form)

    return Printable(highlight=False, **options)
