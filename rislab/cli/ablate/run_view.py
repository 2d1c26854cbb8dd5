"""A table that is being run, on the screen: a live table on a terminal, a line a change elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rislab.cli.ablate.status import status_view
from rislab.cli.console import open_console
from rislab.messages import is_quiet

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned


class ProgressPrinter:
    """Prints what happens, a line a change."""

    def __init__(self, screen: Any) -> None:
        self.screen = screen
        self._shown: dict[str, str] = {}

    def show(self, name: str, what: str) -> None:
        """Print what became of `name`, unless that was the last that was printed of it."""
        if self._shown.get(name) != what:
            self._shown[name] = what
            self.screen.print(f"{time.strftime('%H:%M:%S')} {name}: {what}", markup=False, soft_wrap=True)

    def show_states(self, cells: "Sequence[Planned]") -> None:
        for cell in cells:
            state = cell.state
            if state != "pending":
                self.show(cell.name, state)


class RunView:
    """The view of `launch.table_run` on stderr: what happens is no result. `-q` leaves warnings of it."""

    def __init__(self) -> None:
        self.screen = open_console(stderr=True)
        self._printer = ProgressPrinter(self.screen)

    def say(self, text: str, style: str = "") -> None:
        if is_quiet() and style != "red":
            return
        self.screen.print(text, style=style or None, markup=False, soft_wrap=True)

    @contextmanager
    def following(self, cells: "Sequence[Planned]") -> "Iterator[Callable[[Mapping[str, str]], None]]":
        if is_quiet():
            yield lambda notes: None
            return
        if not self.screen.is_terminal:

            def print_changes(notes: Mapping[str, str]) -> None:
                self._show_notes(notes)
                # One that another process holds is `running`, too: the note says more, and the two would take turns.
                self._printer.show_states([cell for cell in cells if cell.name not in notes])

            yield print_changes
            return
        from rich.live import Live

        with Live(status_view(cells), console=self.screen, refresh_per_second=2, transient=True) as live:

            def draw(notes: Mapping[str, str]) -> None:
                self._show_notes(notes)
                live.update(status_view(cells))

            yield draw

    def _show_notes(self, notes: Mapping[str, str]) -> None:
        for name, note in notes.items():
            self._printer.show(name, note)
