"""The page of `ablate status --html`: what a table's trials are doing now."""

import time

from rislab.report import html
from rislab.report.status import ORDER, Live


def page(seen: Live, title: str, subtitle: str, seconds: int, now: float) -> str:
    """One page that needs nothing else and loads itself anew every so many seconds until everything has ended."""
    return html.render(
        "status_page.html.jinja",
        live=seen,
        title=title,
        subtitle=subtitle,
        refresh=None if seen.has_ended else seconds,
        as_of=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        has_stages=any(each.stage for each in seen.lines),
        known=ORDER,
    )
