"""What a command says beside its results: always on stderr, and as much of it as `-q` and `-v` let through."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rislab.printable import printable

_LEVELS = [0]
LEAST_SECONDS = 5.0
"""What takes less is not announced."""


def set_level(level: int) -> None:
    """Below 0: nothing but results, warnings and errors (`-q`); above 0: whatever libraries say, and tracebacks (`-v`)."""
    _LEVELS[0] = level


def is_quiet() -> bool:
    return _LEVELS[0] < 0


def is_verbose() -> bool:
    return _LEVELS[0] > 0


def note(text: str) -> None:
    """A line that a reader of the results can do without."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """A line that a reader of the results must know; `-q` does not hide it."""
    print(printable(f"rislab: {text}"), file=sys.stderr, flush=True)


def result(text: object) -> None:
    """A line of results on stdout, say the name of a file: a line end in a name is written out, so that an entry is a line."""
    print(printable(str(text)).replace("\n", "\\n"))


def preparing(what: str, seconds: float, where: str = "") -> None:
    """Say what is made before the work itself begins, and about how long that takes.

    Args:
        what: is made, `pretraining rislab-tiny-RN`.
        seconds: on one core of a server, roughly.
        where: it is kept for the next time; "" where it is not.
    """
    if seconds < LEAST_SECONDS:
        return
    kept = f", once; kept in {where}" if where else ""
    note(f"{what}: {duration(seconds)}{kept}")


def duration(seconds: float) -> str:
    """A rough time in words."""
    if seconds < 10:
        return "some seconds"
    if seconds < 50:
        return f"about {round(seconds / 10) * 10} seconds"
    minutes = max(1, round(seconds / 60))
    if minutes < 90:
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {round(seconds / 3600)} hours"


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr with the time left while something is done, and nothing afterwards; only on a terminal, without `-q`.

    Args:
        what: is being done.

    Yields:
        What is called with (done, in all; None where that is not known).
    """
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(transient=True, console=screen, disable=is_quiet() or not screen.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show
