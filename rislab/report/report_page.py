"""The report as one self-contained page of HTML."""

from rislab.report import figures, formatting, html, label_figures
from rislab.report.conventions import title
from rislab.report.model import View
from rislab.report.verdicts import Verdict

MARKS: dict[Verdict, str] = {
    "replicated": "✓",
    "contradicted": "✗",
    "negligible": "≈",
    "inconclusive": "?",
    "single seed": "1",
    "not run": "–",
}


def report_page(view: View) -> str:
    """The page; everything that came from files is escaped."""
    results = view.results
    validation = figures.validation_curves(results)
    watched = {what: figures.curves(results, name) for name, what in results.table.watch.items()}
    labelled = label_figures.label_examples(results)
    return html.render(
        "report_page.html.jinja",
        view=view,
        table=results.table,
        profile=results.profile,
        titles={metric: title(metric, results.profile) for metric in results.table.metrics},
        marks=MARKS,
        pooled_metrics={metric for metric, _ in view.pooled},
        signed=formatting.signed,
        interval=formatting.interval,
        headline=formatting.headline,
        folds=formatting.folds,
        ratio=formatting.ratio,
        reach=figures.reach(view.judged),
        interval_chart=figures.interval_chart,
        repeat_one=formatting.REPEAT_ONE,
        chart=figures.line_chart(validation, f"validation {title(results.table.metrics[0])}"),
        legend=figures.legend(validation),
        watched=[(what, figures.line_chart(each, what), figures.legend(each)) for what, each in watched.items()],
        examples=figures.examples(results),
        label_examples=labelled,
        has_groups=any(each.groups for example in labelled for each in example.maps),
    )
