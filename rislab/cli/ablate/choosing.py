"""Which table, which of its rows and seeds, and where trials lie: what every action asks first."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rislab.errors import ConfigError

if TYPE_CHECKING:
    from rislab.ablation.plan import Planned
    from rislab.ablation.table import Profile, Table

Action = Callable[[str, str, str], argparse.ArgumentParser]
"""Makes the parser of an action from its name, what it does, and the arguments of an example."""

COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "diverged": "red",
    "lost": "yellow",
    "interrupted": "yellow",
    "cancelled": "yellow",
    "queued": "blue",
    "pending": "dim",
}
"""Of states; one that is not here is shown all the same."""


def load(options: argparse.Namespace) -> "tuple[Table, Profile, list[int], list[Planned]]":
    """The table, its profile, the seeds and the trials that a command line asks for. Raises ConfigError."""
    from rislab.ablation import plan, table

    loaded = table.load(table.find(options.table))
    profile = loaded.profile(options.profile or next(iter(loaded.profiles)))
    seeds = list(loaded.seeds) if options.seeds is None else _seeds(options.seeds)
    rows = options.rows.split(",") if options.rows else None
    return loaded, profile, seeds, plan.plan(loaded, profile, seeds, options.runs, rows, options.data)


def _seeds(text: str) -> list[int]:
    """`3` is 0, 1, 2; `3,5` is just that; `7,` is 7 alone."""
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: expected how many (3) or which (0,1,2)") from None
    result = numbers if "," in text else list(range(numbers[0])) if numbers else []
    if not result or min(result) < 0 or len(set(result)) < len(result):
        raise ConfigError(f"--seeds {text!r}: expected at least one seed, none negative, none twice")
    return result


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
