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


def build(table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned], out: Path) -> list[Path]:
    """Write the report of `planned` and return its files. Half-done tables are fine: open cells show their state.

    The table's first profile is reported in OUT/<table>/, others in OUT/<table>-<profile>/. Same inputs, same bytes.
    """
    first = next(iter(table.profiles))
    folder = out / (table.name if profile.name == first else f"{table.name}-{profile.name}")
    seen = view(collect(table, profile, seeds, planned))
    forms = {
        "report.md": markdown(seen),
        "report.csv": csv_text(seen),
        "report.tex": latex(seen),
        "report.html": report_page(seen),
    }
    for name, content in forms.items():
        write_text(folder / name, content)
    return [folder / name for name in forms]
