"""Which table, which of its rows and seeds, and where trials lie: what every action reads first."""

import argparse
from typing import TYPE_CHECKING, Protocol

from rislab.cli.console import open_console
from rislab.errors import ConfigError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table


__all__ = ["COLOURS", "Action", "load", "load_table", "open_console", "refusal"]


class Action(Protocol):
    def __call__(self, name: str, text: str, example: str, chooses: bool = True) -> argparse.ArgumentParser:
        """The parser of an action, from its name, what it does, and the arguments of an example.

        Args:
            chooses: whether it is about rows and seeds that --rows and --seeds choose.
        """


COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "diverged": "red",
    "foreign": "red",
    "damaged": "red",
    "unreadable": "red",
    "lost": "yellow",
    "interrupted": "yellow",
    "cancelled": "yellow",
    "queued": "blue",
    "pending": "dim",
}
"""Of states; one that is not here is shown all the same."""


def load(options: argparse.Namespace) -> "tuple[Table, Profile, list[int], list[Planned]]":
    """The table, its profile, the seeds and the trials that a command line names. Raises ConfigError."""
    from rislab.ablation import plan

    loaded, profile = load_table(options)
    seeds = list(loaded.seeds) if options.seeds is None else _seeds(options.seeds)
    rows = options.rows.split(",") if options.rows else None
    return loaded, profile, seeds, plan.plan(loaded, profile, seeds, options.runs, rows, options.data)


def load_table(options: argparse.Namespace) -> "tuple[Table, Profile]":
    """The table and the profile of it that a command line names. Raises ConfigError."""
    from rislab.ablation import table

    loaded = table.load(table.find(options.table, options.tables))
    return loaded, loaded.profile(options.profile or next(iter(loaded.profiles)))


def refusal(cell: "Planned", error: Exception) -> str:
    """Why a trial is not changed: its directory cannot be written, or is another trial's."""
    from rislab.launch.trial_jobs import unwritable

    return f"{cell.name}: left alone: {unwritable(error, cell.trial.path) if isinstance(error, OSError) else error}"


MOST_SEEDS = 10_000
"""Seeds of one command: every one of them is a trial a row, planned in memory."""

LARGEST_SEED = 2**32 - 1
"""What the random number generators take."""

MOST = 1_000_000
"""Above this a count on the command line is a slip of the hand."""


def check_count(name: str, value: int | None) -> None:
    """Raises ConfigError for a count that is not from 1 to a million. name: the option."""
    if value is not None and not 1 <= value <= MOST:
        raise ConfigError(f"{name} {value}: expected {'at least 1' if value < 1 else f'at most {MOST}'}")


def _seeds(text: str) -> list[int]:
    """`3` is 0, 1, 2; `3,5` is just that; `7,` is 7 alone."""
    shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ConfigError(f"--seeds {shown}: expected how many (3) or which (0,1,2)") from None
    if max(numbers, default=0) > LARGEST_SEED and "," in text:
        raise ConfigError(f"--seeds {shown}: a seed is at most {LARGEST_SEED}")
    if (len(numbers) if "," in text else max(numbers, default=0)) > MOST_SEEDS:
        raise ConfigError(f"--seeds {shown}: expected at most {MOST_SEEDS} seeds")
    result = numbers if "," in text else list(range(numbers[0])) if numbers else []
    if not result or min(result) < 0 or len(set(result)) < len(result):
        raise ConfigError(f"--seeds {shown}: expected at least one seed, none negative, none twice")
    return result
