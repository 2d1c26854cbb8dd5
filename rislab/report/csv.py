"""The report as CSV, and a writer of rows that no spreadsheet takes for formulas."""

import csv
import io
from typing import Any

from rislab.printable import printable
from rislab.report.model import View
from rislab.report.results import RowResult


def csv_cell(value: Any) -> Any:
    """A cell of CSV that no spreadsheet takes for a formula; numbers stay what they are."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) or value[:1] in ("\t", "\r") else text


class CsvWriter:
    """Rows of text and numbers, one a line; floats in full precision."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self._writer = csv.writer(self._out, lineterminator="\n")

    def writerow(self, cells: list[Any]) -> None:
        self._writer.writerow([repr(cell) if isinstance(cell, float) else csv_cell(cell) for cell in cells])

    @property
    def text(self) -> str:
        return self._out.getvalue()


def csv_text(view: View) -> str:
    """Long form, full precision: one line a measured or published value."""
    table, profile = view.results.table, view.results.profile
    writer = CsvWriter()
    writer.writerow(["table", "profile", "source", "dataset", "split", "row", "seed", "metric", "value", "trial"])
    for result in view.results.rows:
        for cell in result.cells:
            of_fold = f"{cell.planned.fold}:" if cell.planned.fold else ""
            for stage_prefix, stage in (*((f"{name}:", each) for name, each in cell.earlier.items()), ("", cell)):
                prefix = of_fold + stage_prefix
                for split, scores in sorted(stage.metrics.get("splits", {}).items()):
                    for metric, value in sorted(scores.items()):
                        where = (table.name, profile.name, "ours", profile.dataset, split, result.row.name, cell.seed)
                        if not isinstance(value, dict):  # scores of single classes are in metrics.json
                            writer.writerow([*where, f"{prefix}{metric}", value, stage.planned.trial.path.name])
        for cells in result.by_seed if profile.folds else ():
            of_seed = RowResult(result.row, cells)
            for metric in table.metrics:
                where = (
                    table.name,
                    profile.name,
                    "ours",
                    profile.dataset,
                    profile.split,
                    result.row.name,
                    cells[0].seed,
                )
                for value in of_seed.values(profile.split, metric):  # the mean over folds, where all are there
                    writer.writerow([*where, metric, value, ""])
        for column, published in sorted(result.row.paper.items()):
            for metric, value in sorted(published.items()):
                writer.writerow(
                    [
                        table.name,
                        profile.name,
                        "paper",
                        column,
                        profile.split_of(metric),
                        result.row.name,
                        "",
                        metric,
                        value,
                        "",
                    ]
                )
    return writer.text
