"""The report as one self-contained page of HTML."""

import re
from urllib.parse import urlencode

from rislab.ablation.table import Claim, Table
from rislab.report import figures, formatting, html, label_figures
from rislab.report.conventions import title
from rislab.report.model import View
from rislab.report.verdicts import Verdict

MARKS: dict[Verdict, str] = {
    "replicated": "✓",
    "contradicted": "✗",
    "negligible": "≈",
    "inconclusive": "?",
    "single seed": "·",
    "not run": "–",
}


def report_page(view: View, browser: str | None = None) -> str:
    """The page; everything that came from files is escaped.

    Args:
        browser: relative URL of the browser of results, which claims link to; None where there is none.
    """
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
        main=main_metric(results.table),
        marks=MARKS,
        pooled_metrics={metric for metric, _ in view.pooled},
        signed=formatting.signed,
        exactly=formatting.exactly,
        interval=formatting.interval,
        headline=formatting.headline,
        folds=formatting.folds,
        ratio=formatting.ratio,
        links={judged.claim.name: browser_links(judged.claim, browser) for judged in view.judged},
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


def main_metric(table: Table) -> str:
    """The metric that most claims are about, the first of the table in case of a tie: what a narrow screen shows."""
    named = [name for claim in table.claims for name in re.findall(r"([\w:@]+)\[", claim.holds)]
    return max(table.metrics, key=named.count)


def browser_links(claim: Claim, browser: str | None) -> list[tuple[str, str]]:
    """(text, URL) for each comparison of a claim: the row that is said to be better beside one that is said to be worse.

    Stages of a metric name a row's stage, as the browser does.
    """
    if browser is None:
        return []
    found = []
    for comparison in claim.comparisons:
        sides = [[term for term in comparison.terms if term.sign == sign] for sign in (1, -1)]
        if not all(sides):
            continue  # compared with a number
        a, b = (f"{terms[0].metric.rpartition(':')[0]}:{terms[0].row}".removeprefix(":") for terms in sides)
        if a != b:
            found.append((f"{a} beside {b}, answer by answer", f"{browser}#{urlencode({'a': a, 'b': b})}"))
    return list(dict.fromkeys(found))
