"""A document as Markdown, CSV, LaTeX and one page of HTML."""

import textwrap

from rislab.report import html
from rislab.report.csv import CsvWriter
from rislab.report.document import Cell, Column, Document, Grid
from rislab.report.latex import latex_escape
from rislab.report.markdown import md_escape, md_row

ABSENT = "–"
"""Stands before the letter of a reason."""


def forms(document: Document, name: str) -> dict[str, str]:
    """Content of each file. name: of the files, without suffix."""
    return {
        f"{name}.md": markdown(document),
        f"{name}.csv": csv_text(document),
        f"{name}.tex": latex(document),
        f"{name}.html": html.render("document_page.html.jinja", document=document, absent=ABSENT),
    }


def markdown(document: Document) -> str:
    out = [f"# {md_escape(document.title)}", "", md_escape(document.summary), ""]
    if document.notice:
        out += [f"> **{md_escape(document.notice)}**", ""]
    for section in document.sections:
        out += [f"## {md_escape(section.title)}", ""]
        for text in section.text:
            out += [md_escape(text), ""]
        for grid in section.grids:
            out += _md_grid(grid)
        out += [f"- {md_escape(item)}" for item in section.items] + ([""] if section.items else [])
    for text in document.footer:
        out += [md_escape(text), ""]
    return "\n".join(out)


def _md_grid(grid: Grid) -> list[str]:
    marks = grid.marks

    def said(cell: Cell) -> str:
        if cell.reason:
            return f"{ABSENT}<sup>{marks[cell.reason]}</sup>"
        text = f"**{md_escape(cell.text)}**" if cell.best else md_escape(cell.text)
        return f"{text} {md_escape(cell.soft)}" if cell.soft else text

    out = [f"### {md_escape(grid.title)}", ""] if grid.title else []
    out += [md_escape(grid.text), ""] if grid.text else []
    heads = ["<br>".join(map(md_escape, (column.title, *column.soft))) for column in grid.columns]
    out += [md_row(heads), md_row(["---:" if column.kind == "number" else "---" for column in grid.columns])]
    out += [md_row([said(cell) for cell in row.cells]) for row in grid.rows]
    out.append("")
    out += [f"- <sup>{mark}</sup> {md_escape(reason)}" for reason, mark in marks.items()] + ([""] if marks else [])
    for text in grid.after:
        out += [md_escape(text), ""]
    return out


def csv_text(document: Document) -> str:
    """Long form: one line a cell, with the number in full precision, or with the reason why there is none."""
    writer = CsvWriter()
    writer.writerow(["section", "table", "row", "column", "text", "value", "beside", "reason"])
    for section in document.sections:
        for grid in section.grids:
            lead = next((i for i, column in enumerate(grid.columns) if column.kind == "number"), 1) or 1
            for row in grid.rows:
                name = " / ".join(cell.text for cell in row.cells[:lead])
                for column, cell in zip(grid.columns[lead:], row.cells[lead:], strict=True):
                    value = "" if cell.value is None else float(cell.value)
                    head = " / ".join((column.title, *column.soft))
                    writer.writerow([section.title, grid.name, name, head, cell.text, value, cell.soft, cell.reason])
        for number, item in enumerate(section.items):
            writer.writerow([section.title, "list", str(number), "", item, "", "", ""])
    return writer.text


def latex(document: Document) -> str:
    """A document that compiles by itself (longtable, booktabs)."""
    out = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs,longtable,array}",
        r"\usepackage[a4paper,landscape,margin=1.5cm]{geometry}",
        r"\setlength{\parindent}{0pt}\setlength{\tabcolsep}{4pt}\setlength{\emergencystretch}{3em}",
        KEPT_TOGETHER,
        rf"\title{{{latex_escape(document.title)}}}",
        r"\author{}\date{}",
        r"\begin{document}",
        r"\maketitle",
        latex_escape(document.summary),
        "",
    ]
    if document.notice:
        out += [rf"\textbf{{{latex_escape(document.notice)}}}", ""]
    for section in document.sections:
        out += [rf"\together\section*{{{latex_escape(section.title)}}}"]
        for text in section.text:
            out += [latex_escape(text), ""]
        for grid in section.grids:
            out += _tex_grid(grid)
        if section.items:
            out += [r"\begin{itemize}", *(rf"\item {latex_escape(item)}" for item in section.items), r"\end{itemize}"]
    out += [part for text in document.footer for part in (latex_escape(text), "")]
    return "\n".join([*out, r"\end{document}", ""])


KEPT_TOGETHER = (
    r"\makeatletter\newcommand{\together}{\par\if@nobreak\else\@tempdima\pagegoal\advance\@tempdima-\pagetotal\relax"
    r"\ifdim\@tempdima<5cm\relax\newpage\fi\fi}\makeatother"
)
"""A heading with little space below it begins a page, so that its table does not stand on the next one."""
TEXT_WIDTH = 26.5
"""Centimetres of a line on the page."""
BETWEEN = 0.3
"""Centimetres between two columns."""
LEAST_PROSE = 2.4
"""Centimetres that a column of prose has at least."""
HEAD_LETTERS = (20, 16, 12, 9, 7)
"""Letters after which the head of a column of numbers is broken: the first with which the table fits."""


def _tex_width(text: str) -> float:
    """About the centimetres of a text in a table."""
    return sum(0.19 if letter.isupper() else 0.14 for letter in text)


def _tex_heads(grid: Grid) -> tuple[list[list[str]], float]:
    """The lines of each column's head, and the centimetres that columns of numbers take together."""
    heads: list[list[str]] = []
    taken = 0.0
    numbers = [number for number, column in enumerate(grid.columns) if column.kind == "number"]
    widest = {
        n: max((_tex_width(f"{r.cells[n].text} {r.cells[n].soft}") for r in grid.rows), default=0) for n in numbers
    }
    for letters in HEAD_LETTERS:
        heads = [
            [
                part
                for line in (column.title, *column.soft)
                for part in textwrap.wrap(line, letters, break_long_words=False)
            ]
            if column.kind == "number"
            else [column.title, *column.soft]
            for column in grid.columns
        ]
        taken = sum(max(widest[n], *map(_tex_width, heads[n]), 0) + BETWEEN for n in numbers)
        if taken + (LEAST_PROSE + BETWEEN) * (len(grid.columns) - len(numbers)) <= TEXT_WIDTH:
            break
    return heads, taken


def _tex_columns(columns: tuple[Column, ...], taken: float) -> str:
    """Columns of prose share what those of numbers leave. taken: centimetres of those."""
    prose = [column for column in columns if column.kind == "text"]
    left = max(TEXT_WIDTH - taken - BETWEEN * len(prose), LEAST_PROSE * len(prose))
    unit = left / max(sum(column.share for column in prose), 1.0)

    def form(column: Column) -> str:
        width = min(column.share * unit, 9.0)
        return rf">{{\raggedright\arraybackslash}}p{{{width:.2f}cm}}" if column.kind == "text" else "r"

    return "".join(map(form, columns))


def _tex_grid(grid: Grid) -> list[str]:
    marks = grid.marks

    def said(cell: Cell) -> str:
        if cell.reason:
            return rf"--\textsuperscript{{{marks[cell.reason]}}}"
        text = latex_escape(cell.text)
        text = rf"\textbf{{{text}}}" if cell.best else text
        return rf"{text} {{\tiny {latex_escape(cell.soft)}}}" if cell.soft else text

    heads, taken = _tex_heads(grid)

    def head(column: Column, texts: list[str]) -> str:
        lines = [latex_escape(text) for text in texts]
        if column.kind == "text":
            return rf"\textbf{{{lines[0]}}}" + "".join(f" {line}" for line in lines[1:])
        stacked = r"\\{}".join(lines)
        return rf"\shortstack[r]{{{stacked}}}"

    out = [rf"\together\subsection*{{{latex_escape(grid.title)}}}"] if grid.title else []
    out += [latex_escape(grid.text), ""] if grid.text else []
    out += [
        r"{\scriptsize",
        rf"\begin{{longtable}}{{{_tex_columns(grid.columns, taken)}}}",
        r"\toprule",
        " & ".join(map(head, grid.columns, heads)) + r" \\",
        r"\midrule",
        r"\endhead",
    ]
    for number, row in enumerate(grid.rows):
        if row.begins and number:
            out.append(r"\addlinespace")
        out.append(" & ".join(map(said, row.cells)) + r" \\")
    out += [r"\bottomrule", r"\end{longtable}"]
    notes = [rf"\textsuperscript{{{mark}}} {latex_escape(reason)}" for reason, mark in marks.items()]
    out += [line for text in (*notes, *map(latex_escape, grid.after)) for line in (text, "")]
    return [*out, r"\par}", ""]
