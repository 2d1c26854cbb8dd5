"""A real browser for tests, where the machine has one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium by playwright: the one named by RISLAB_CHROMIUM, or found on the path. Skips, and says why, without."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page was looked at")
    found = os.environ.get("RISLAB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(
            f"no browser is installed ({', '.join(NAMES)}; RISLAB_CHROMIUM names another): no page was looked at"
        )
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()
