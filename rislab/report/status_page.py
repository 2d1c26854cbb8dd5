"""The page of `ablate status --html`: what a table's trials are doing now."""

import time

from rislab.report import html
from rislab.report.status import DISPLAY_ORDER, TableStatus


def page(status: TableStatus, title: str, subtitle: str, refresh_seconds: int, now: float) -> str:
    """Make the page, which needs no other file and reloads itself until all trials have ended.

    Args:
        status: The table's trials.
        title: Title of the table.
        subtitle: Data set and split.
        refresh_seconds: Seconds between two loads.
        now: Unix time in seconds at which the status was read.

    Returns:
        HTML.
    """
    return html.render(
        "status_page.html.jinja",
        status=status,
        title=title,
        subtitle=subtitle,
        refresh=None if status.has_ended else refresh_seconds,
        as_of=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        has_stages=any(trial.stage for trial in status.trials),
        known_states=DISPLAY_ORDER,
    )
