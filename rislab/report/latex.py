"""The report as LaTeX."""

from rislab.printable import printable
from rislab.report.conventions import title
from rislab.report.formatting import evidence, folds, headline, signed
from rislab.report.model import View

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
    "†": r"\dag{}",
    "[": "{[}",  # at a row's start it would be read as an argument of the line break before
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_escape(text: str) -> str:
    """Plain text for LaTeX; letters that its T1 fonts lack become `?`, where pdflatex would stop, as it would at controls.

    Two hyphens stay two, as in an option of a command: LaTeX makes a dash of them.
    """
    return "".join(
        _LATEX.get(c, c if ord(c) < 0x180 or c in "\u2013\u2014\u2018\u2019\u201c\u201d\u2026" else "?")
        for c in " ".join(printable(text).splitlines())
    ).replace("--", "-{}-")


def latex(view: View) -> str:
    """A document that compiles by itself; the table between the two marked lines can be cut out (needs booktabs)."""
    table = view.results.table
    ours, paper = len(table.metrics), len(view.paper_metrics)
    columns = "l" + "r" * (2 * ours) + "r" * (2 * paper) + "rr"
    first = [""] + [rf"\multicolumn{{2}}{{c}}{{{latex_escape(title(m, view.results.profile))}}}" for m in table.metrics]
    first += [rf"\multicolumn{{2}}{{c}}{{{latex_escape(title(m, view.results.profile))}}}" for m in view.paper_metrics]
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
            text = latex_escape(cell.text) if cell.spread is not None else "--"
            text = rf"\textbf{{{text}}}" if cell.best else text
            cells += [text + latex_escape(folds(cell.folds)), signed(cell.change)]
        for published in line.paper:
            text = "--" if published.value is None else f"{published.value:.2f}"
            text = rf"\textbf{{{text}}}" if published.best else text
            cells += [text + latex_escape(folds(published.folds)), signed(published.change)]
        cells.append("" if line.parameters is None else f"{line.parameters:.2f}")
        cells.append("--" if line.paper_parameters is None else f"{line.paper_parameters:.2f}")
        body.append(" & ".join(cells) + r" \\")
    caption = latex_escape(f"{table.title}. Percent; mean ± standard deviation over seeds where there are several. ")
    if view.notice:
        caption += rf"\textbf{{{latex_escape(view.notice)}}} "
    if view.meaning_of_folds:
        caption += latex_escape(view.meaning_of_folds + " ")
    if view.selection:
        caption += latex_escape(view.selection + " ")
    unmeasured = any(cell.spread is None for line in view.lines if not line.state for cell in line.ours)
    caption += "--: the published value could not be verified" + (", or we measured none." if unmeasured else ".")
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
