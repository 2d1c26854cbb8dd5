"""Writes a table's report: report.md, .csv, .tex and one self-contained .html."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from rislab.ablation.plan import Planned
from rislab.ablation.table import Profile, Table
from rislab.files import write_text
from rislab.printable import shown
from rislab.report import figures, label_figures, text
from rislab.report.model import View, title, view
from rislab.report.results import collect
from rislab.report.verdicts import Verdict

MARKS: dict[Verdict, str] = {
    "replicated": "✓",
    "contradicted": "✗",
    "negligible": "≈",
    "inconclusive": "?",
    "single seed": "1",
    "not run": "–",
}


def build(table: Table, profile: Profile, seeds: Sequence[int], planned: Sequence[Planned], out: Path) -> list[Path]:
    """Write the report of `planned` and return its files. Half-done tables are fine: open cells show their state.

    The table's first profile is reported in OUT/<table>/, others in OUT/<table>-<profile>/. Same inputs, same bytes.
    """
    first = next(iter(table.profiles))
    folder = out / (table.name if profile.name == first else f"{table.name}-{profile.name}")
    seen = view(collect(table, profile, seeds, planned))
    forms = {
        "report.md": text.markdown(seen),
        "report.csv": text.csv_text(seen),
        "report.tex": text.latex(seen),
        "report.html": html(seen),
    }
    for name, content in forms.items():
        write_text(folder / name, content)
    return [folder / name for name in forms]


def html(seen: View) -> str:
    """One page that needs nothing else; everything that came from files is escaped."""
    environment = Environment(
        loader=PackageLoader("rislab.report"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = text.signed
    environment.filters["interval"] = text.interval
    environment.filters["headline"] = text.headline
    environment.filters["ratio"] = text.ratio
    curves = figures.validation_curves(seen.results)
    watched = {what: figures.curves(seen.results, name) for name, what in seen.results.table.watch.items()}
    return environment.get_template("report.html.jinja").render(
        view=seen,
        table=seen.results.table,
        profile=seen.results.profile,
        titles={metric: title(metric) for metric in seen.results.table.metrics},
        marks=MARKS,
        pooled_metrics={metric for metric, _ in seen.pooled},
        reach=figures.reach(seen.judged),
        interval_chart=figures.interval_chart,
        repeat_one=text.REPEAT_ONE,
        chart=figures.line_chart(curves, f"validation {title(seen.results.table.metrics[0])}"),
        legend=figures.legend(curves),
        watched=[(what, figures.line_chart(each, what), figures.legend(each)) for what, each in watched.items()],
        examples=figures.examples(seen.results),
        label_examples=label_figures.label_examples(seen.results),
    )
