"""Writes a table's report: report.md, .csv, .tex and one self-contained .html."""

from collections.abc import Sequence
from pathlib import Path

from rislab.ablation.plan import Planned
from rislab.ablation.table import Profile, Table
from rislab.files import write_text
from rislab.report.csv import csv_text
from rislab.report.latex import latex
from rislab.report.markdown import markdown
from rislab.report.model import view
from rislab.report.report_page import report_page
from rislab.report.results import collect

BROWSER, BROWSER_PAGE = "browse", "index.html"


def folder_of(table: Table, profile: Profile, out: Path) -> Path:
    """Where a profile's report lies: the first profile's in OUT/<table>/, others' in OUT/<table>-<profile>/."""
    first = next(iter(table.profiles))
    return out / (table.name if profile.name == first else f"{table.name}-{profile.name}")


def browser_folder(folder: Path) -> Path:
    """Where the browser of results lies, below the folder of a report."""
    return folder / BROWSER


def build(table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned], out: Path) -> list[Path]:
    """Write the report of `planned` and return its files. Half-done tables are fine: open cells show their state.

    The page links to the browser of results where `rislab ablate browse` has written it. Same inputs, same bytes.
    """
    folder = folder_of(table, profile, out)
    seen = view(collect(table, profile, seeds, planned))
    has_browser = (browser_folder(folder) / BROWSER_PAGE).is_file()
    forms = {
        "report.md": markdown(seen),
        "report.csv": csv_text(seen),
        "report.tex": latex(seen),
        "report.html": report_page(seen, f"{BROWSER}/{BROWSER_PAGE}" if has_browser else None),
    }
    for name, content in forms.items():
        write_text(folder / name, content)
    return [folder / name for name in forms]
