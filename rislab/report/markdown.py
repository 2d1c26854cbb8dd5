"""The report as Markdown, and what its tables and text are made of."""

import re

from rislab.printable import printable
from rislab.report.conventions import title
from rislab.report.formatting import REPEAT_ONE, UNVERIFIED, evidence, folds, headline, ratio, signed
from rislab.report.model import NOT_MEASURED, View


def markdown(view: View) -> str:
    table = view.results.table
    source = f"{md_escape(table.paper.title)} ({md_escape(table.paper.venue)} {table.paper.year})"
    out = [f"# {md_escape(table.title)}", "", f"{source}. {md_escape(view.summary)}.", ""]
    if view.notice:
        out += [f"> **These numbers are not the paper's benchmark.** {md_escape(view.notice)}", ""]
    head = ["row", "n"]
    for metric in table.metrics:
        head += [title(metric, view.results.profile), "Δ"]
    for metric in view.paper_metrics:
        head += [f"paper: {title(metric)}, {md_escape(view.published_on(metric))}", "paper: Δ"]
    head += ["params (M)", "paper: params (M)", "same setup?"]
    out += [md_row(head), md_row(["---"] * len(head))]
    for line in view.lines:
        cells = [md_escape(line.label) + (" †" if line.stale else ""), line.n]
        for ours in line.ours:
            shown = f"*{md_escape(line.state or NOT_MEASURED)}*" if ours.spread is None else ours.text
            shown = f"**{shown}**" if ours.best else shown
            cells += [shown + ("" if line.state else folds(ours.folds)), signed(ours.change)]
        for paper in line.paper:
            value = UNVERIFIED if paper.value is None else f"{paper.value:.2f}"
            cells += [(f"**{value}**" if paper.best else value) + folds(paper.folds), signed(paper.change)]
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
        out += [md_row(["row", *(f"{title(metric, view.results.profile)}: sd / pooled" for metric, _ in view.pooled)])]
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
    notes = [md_escape(view.meaning_of_folds)] if view.meaning_of_folds else []
    notes += ['"not verified": the published cell could not be checked in a source, so it is not printed.']
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
