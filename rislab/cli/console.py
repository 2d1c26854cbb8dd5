"""The screen of every command: what came from files is shown there and not obeyed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while something is done, with an estimate of the time left; it is gone afterwards.

    Args:
        what: is being done.

    Yields:
        What is called with (done, in all).
    """
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(transient=True, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show
