"""A page of HTML as PDF, by WeasyPrint, which only this imports."""

import importlib.util
from pathlib import Path

from rislab.errors import ConfigError
from rislab.files import write_bytes


def require() -> None:
    """Raises ConfigError where WeasyPrint is not installed."""
    if importlib.util.find_spec("weasyprint") is None:
        raise ConfigError("--pdf needs WeasyPrint: pip install 'rislab[pdf]' (and Pango, a library of the system)")


def write(page: Path, target: Path) -> Path:
    """Write a page of ours as PDF.

    Args:
        page: one file of HTML that needs no other.
        target: the PDF.

    Returns:
        The PDF.

    Raises:
        ConfigError: WeasyPrint cannot be used here.
    """
    require()
    try:
        from weasyprint import HTML
    except OSError as error:  # Pango is loaded at import
        raise ConfigError(f"--pdf: WeasyPrint lacks a library of the system: {error}") from None
    write_bytes(target, HTML(filename=str(page)).write_pdf())
    return target
