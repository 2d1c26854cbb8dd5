"""The report as Markdown, CSV and LaTeX."""

import csv
import io
import re
from typing import Any

from rislab.printable import printable
from rislab.report.model import NOT_MEASURED, View, title
from rislab.report.verdicts import Decided, Judged

UNVERIFIED = "not verified"
REPEAT_ONE = "rislab fit --config runs/DIRECTORY/config.yaml --trainer.default_root_dir=ANOTHER"
"""The directory itself is the evidence; `fit` refuses to write into it."""


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def interval(test: Decided) -> str:
    """`+2.06 [+0.56, +3.56], p = 0.012`; the line of a claim with a margin; of one seed, its direction and no p."""
    reaches = f"[{test.low:+.2f}, {test.high:+.2f}]"
    line = f", line {test.line:+.2f}" if test.line else ""
    if test.p is None:
        return f"{test.difference:+.2f}{line}, {'' if test.as_claimed else 'not '}as claimed; over pictures alone {reaches}"
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    return f"{test.difference:+.2f} {reaches}{line}, {p}"


def headline(judged: Judged) -> str:
    """The verdict; of a single seed, with what it showed: `single seed: +2.06, as claimed`."""
    if judged.verdict != "single seed":
        return judged.verdict
    shown = (f"{t.difference:+.2f}, {'' if t.as_claimed else 'not '}as claimed" for t in judged.tests)
    return f"{judged.verdict}: {'; '.join(shown)}"


def ratio(value: float | None) -> str:
    """A row's spread between seeds over the pooled one."""
    return "" if value is None else f"{value:.2f}"


def evidence(judged: Judged) -> str:
    """Differences with their intervals, one a comparison, or why there are none."""
    return "; ".join(interval(test) for test in judged.tests) or judged.why


def markdown(view: View) -> str:
    table = view.results.table
    source = f"{md_escape(table.paper.title)} ({md_escape(table.paper.venue)} {table.paper.year})"
    out = [f"# {md_escape(table.title)}", "", f"{source}. {md_escape(view.summary)}.", ""]
    if view.notice:
        out += [f"> **These numbers are not the paper's benchmark.** {md_escape(view.notice)}", ""]
    head = ["row", "n"]
    for metric in table.metrics:
        head += [title(metric), "Δ"]
    for metric in view.paper_metrics:
        head += [f"paper: {title(metric)}, {md_escape(view.paper_dataset)}", "paper: Δ"]
    head += ["params (M)", "paper: params (M)", "same setup?"]
    out += [md_row(head), md_row(["---"] * len(head))]
    for line in view.lines:
        cells = [md_escape(line.label) + (" †" if line.stale else ""), line.n]
        for ours in line.ours:
            shown = f"*{md_escape(line.state or NOT_MEASURED)}*" if ours.spread is None else ours.text
            cells += [f"**{shown}**" if ours.best else shown, signed(ours.change)]
        for paper in line.paper:
            value = UNVERIFIED if paper.value is None else f"{paper.value:.2f}"
            cells += [f"**{value}**" if paper.best else value, signed(paper.change)]
        cells.append("" if line.parameters is None else f"{line.parameters:.2f}")
        cells.append(UNVERIFIED if line.paper_parameters is None else f"{line.paper_parameters:.2f}")
        cells.append(view.same_setup)
        out.append(md_row(cells))
    out += ["", f"Percent. {md_escape(view.meaning_of_delta)} {_footnotes(view)}", ""]
    if view.selection:
        out += [f"> {md_escape(view.selection)}", ""]
    if view.judged:
        out += [
            "## Claims",
            "",
            *([f"> {md_escape(view.caution)}", ""] if view.caution else []),
            md_row(["claim", "verdict", "measured", "note", "source"]),
            md_row(["---"] * 5),
        ]
        for judged in view.judged:
            claim = judged.claim
            text = f"{md_escape(claim.text)}<br>{md_code(claim.holds)}"
            note = md_escape(judged.why) if judged.tests else ""
            measured = evidence(judged) if judged.tests else md_escape(evidence(judged))
            out.append(md_row([text, f"**{headline(judged)}**", measured, note, md_escape(claim.source)]))
        out.append("")
    if view.unjudged:
        out += ["## Not judged", "", "Recalled, not read in a source: no verdict is given.", ""]
        for claim in view.unjudged:
            out.append(f"- {md_escape(claim.text)} ({md_code(claim.holds)}; {md_escape(claim.source)})")
        out.append("")
    if view.pooled:
        out += ["## Spread between seeds", ""]
        out += [md_row(["row", *(f"{title(metric)}: sd / pooled" for metric, _ in view.pooled)])]
        out += [md_row(["---"] * (1 + len(view.pooled)))]
        shown_metrics = {metric for metric, _ in view.pooled}
        for line in view.lines:
            ratios = [ratio(ours.ratio) for ours in line.ours if ours.metric in shown_metrics]
            out.append(md_row([md_escape(line.label), *ratios]))
        out.append(md_row(["pooled", *(pool for _, pool in view.pooled)]))
        out.append("")
    if view.failures:
        out += ["## What did not finish", ""]
        out += [
            f"- {md_escape(f['trial'])}: {md_escape(f['state'])}: {md_escape(f['error'])} ({md_code(f['log'])})"
            for f in view.failures
        ]
        out.append("")
    out += (
        ["## Conventions", ""] + [f"- {md_escape(name)}: {md_escape(text)}" for name, text in view.conventions] + [""]
    )
    out += ["## Provenance", ""] + [f"- {md_escape(name)}: {md_escape(text)}" for name, text in view.provenance]
    out += [
        f"- repeat the table: {md_code(view.command)}",
        f"- see whether finished trials repeat: {md_code(view.command.replace('ablate run', 'ablate verify', 1))}",
        f"- repeat one trial elsewhere: {md_code(REPEAT_ONE)}",
        "",
        md_row(["trial", "directory", "state", "minutes", "steps/s", "MiB"]),
    ]
    out.append(md_row(["---"] * 6))
    out += [
        md_row(
            [
                md_escape(t["trial"]),
                md_code(t["directory"]),
                md_escape(t["state"]),
                t["minutes"],
                t["speed"],
                t["memory"],
            ]
        )
        for t in view.trials
    ]
    out += ["", "Sources of the paper's numbers: " + "; ".join(map(md_escape, table.paper.sources)) + ".", ""]
    return "\n".join(out)


def _footnotes(view: View) -> str:
    notes = ['"not verified": the published cell could not be checked in a source, so it is not printed.']
    if any(line.stale for line in view.lines):
        notes.append("† made with code that has changed since.")
    return " ".join(notes)


def md_escape(text: str) -> str:
    """Plain text for Markdown: no tags, no emphasis, no links, no control characters; `md_row` sees to columns and lines."""
    for mark in "\\`*_[":
        text = text.replace(mark, "\\" + mark)
    # GitHub makes a link of a bare address; a character reference keeps it as it is read.
    text = re.sub(r"(?i)\b(https?|ftp|mailto):", r"\1&#58;", text)
    text = re.sub(r"(?i)\bwww\.", "www&#46;", text)
    return printable(text).replace("\n", " ").replace("\t", " ").replace("<", "&lt;")


def md_code(text: str) -> str:
    """Text as code. A code span takes no escapes, so its fence is longer than any run of backticks inside."""
    text = printable(text).replace("\n", " ").replace("\t", " ")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    if not longest:
        return f"`{text}`"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}"


def md_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


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
            for prefix, stage in (*((f"{name}:", each) for name, each in cell.earlier.items()), ("", cell)):
                for split, scores in sorted(stage.metrics.get("splits", {}).items()):
                    for metric, value in sorted(scores.items()):
                        where = (table.name, profile.name, "ours", profile.dataset, split, result.row.name, cell.seed)
                        if not isinstance(value, dict):  # scores of single classes are in metrics.json
                            writer.writerow([*where, f"{prefix}{metric}", value, stage.planned.trial.path.name])
        for column, cells in sorted(result.row.paper.items()):
            for metric, value in sorted(cells.items()):
                writer.writerow(
                    [
                        table.name,
                        profile.name,
                        "paper",
                        column,
                        profile.split,
                        result.row.name,
                        "",
                        metric,
                        value,
                        "",
                    ]
                )
    return writer.text


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "−": "-",
    "[": "{[}",  # at a row's start it would be read as an argument of the line break before
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_escape(text: str) -> str:
    """Plain text for LaTeX; letters that its T1 fonts lack become `?`, where pdflatex would stop, as it would at controls."""
    return "".join(
        _LATEX.get(c, c if ord(c) < 0x180 or c in "\u2013\u2014\u2018\u2019\u201c\u201d\u2026" else "?")
        for c in " ".join(printable(text).splitlines())
    )


def latex(view: View) -> str:
    """A document that compiles by itself; the table between the two marked lines can be cut out (needs booktabs)."""
    table = view.results.table
    ours, paper = len(table.metrics), len(view.paper_metrics)
    columns = "l" + "r" * (2 * ours) + "r" * (2 * paper) + "rr"
    first = [""] + [rf"\multicolumn{{2}}{{c}}{{{latex_escape(title(m))}}}" for m in table.metrics]
    first += [rf"\multicolumn{{2}}{{c}}{{{latex_escape(title(m))}}}" for m in view.paper_metrics]
    first.append(r"\multicolumn{2}{c}{params (M)}")
    top = [""]
    top.append(rf"\multicolumn{{{2 * ours}}}{{c}}{{ours, {latex_escape(view.results.profile.dataset)}}}")
    rules = [rf"\cmidrule(lr){{2-{1 + 2 * ours}}}"]
    if paper:
        top.append(rf"\multicolumn{{{2 * paper}}}{{c}}{{paper, {latex_escape(view.paper_dataset)}}}")
        rules.append(rf"\cmidrule(lr){{{2 + 2 * ours}-{1 + 2 * ours + 2 * paper}}}")
    top += ["ours", "paper"]
    body = []
    for line in view.lines:
        cells = [latex_escape(line.label) + (r"\textsuperscript{\dag}" if line.stale else "")]
        if line.state:
            cells.append(rf"\multicolumn{{{2 * ours}}}{{c}}{{\emph{{{latex_escape(line.state)}}}}}")
        for cell in line.ours if not line.state else ():
            text = latex_escape(cell.text if cell.spread is not None else "--")
            cells += [rf"\textbf{{{text}}}" if cell.best else text, signed(cell.change)]
        for published in line.paper:
            text = "--" if published.value is None else f"{published.value:.2f}"
            cells += [rf"\textbf{{{text}}}" if published.best else text, signed(published.change)]
        cells.append("" if line.parameters is None else f"{line.parameters:.2f}")
        cells.append("--" if line.paper_parameters is None else f"{line.paper_parameters:.2f}")
        body.append(" & ".join(cells) + r" \\")
    caption = latex_escape(f"{table.title}. Percent; mean ± standard deviation over seeds where there are several. ")
    if view.notice:
        caption += rf"\textbf{{{latex_escape(view.notice)}}} "
    if view.selection:
        caption += latex_escape(view.selection + " ")
    unmeasured = any(cell.spread is None for line in view.lines if not line.state for cell in line.ours)
    caption += latex_escape(
        "--: the published value could not be verified" + (", or we measured none." if unmeasured else ".")
    )
    if any(line.stale for line in view.lines):
        caption += r" \dag: made with code that has changed since."
    verdicts = [
        rf"\item \textbf{{{headline(judged)}}}: {latex_escape(judged.claim.text)} ({latex_escape(evidence(judged))})"
        for judged in view.judged
    ]
    caution = [rf"\emph{{{latex_escape(view.caution)}}}"] if view.caution else []
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage{booktabs,graphicx}",
            r"\usepackage[margin=2cm,landscape]{geometry}",
            r"\begin{document}",
            "% --- table",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(top) + r" \\",
            "".join(rules),
            " & ".join(first) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "% --- end of table",
            *([r"\section*{Claims}", *caution, r"\begin{itemize}", *verdicts, r"\end{itemize}"] if verdicts else []),
            r"\end{document}",
            "",
        ]
    )
