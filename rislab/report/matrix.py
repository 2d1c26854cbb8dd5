"""Methods by benchmarks: one table in four forms, each cell with its metric, convention and provenance."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from rislab.ablation.trial import TrialDir
from rislab.files import read_json, write_text
from rislab.report.text import latex_escape
from rislab.report.view import title


@dataclass(frozen=True)
class Cell:
    """One method on one benchmark. digest: of everything that decides the result; weights: sha256 of the checkpoint, if any."""

    method: str
    benchmark: str
    runs: Path
    digest: str
    config: dict[str, Any]
    weights: str | None

    @property
    def name(self) -> str:
        return f"{self.method}--{self.benchmark}--{self.digest}"

    @property
    def trial(self) -> TrialDir:
        return TrialDir(self.runs / self.name)

    def write(self) -> None:
        """The config that `rislab fit --config` repeats."""
        trainer = self.config["trainer"] | {"default_root_dir": str(self.trial.path)}
        write_text(self.trial.config, yaml.safe_dump(self.config | {"trainer": trainer}, sort_keys=False))


@dataclass(frozen=True)
class Shown:
    """A cell as it is printed. value: in percent, None where there is none; detail: what else belongs to it."""

    value: float | None
    metric: str
    protocol: str
    split: str
    state: str
    detail: str
    directory: str
    best: bool = False


def shown(cell: Cell) -> Shown:
    state = cell.trial.state()
    found = read_json(cell.trial.metrics_file) if state == "done" else None
    if not isinstance(found, dict):
        return Shown(None, "", "", "", state, "", cell.name)
    split, values = next(iter(found["splits"].items()))
    metric = "miou_class" if "miou_class" in values else "miou_expr" if "miou_expr" in values else next(iter(values))
    provenance = read_json(cell.trial.provenance_file) or {}
    weights = f"weights {cell.weights[:8]}" if cell.weights else "no training"
    counted = (
        f"{values.get('expressions', values.get('images'))} {'expressions' if 'expressions' in values else 'pictures'}"
    )
    commit = str(provenance.get("code", {}).get("commit") or "")[:8]
    detail = ", ".join(
        part for part in (found["benchmark"], counted, weights, f"commit {commit}" if commit else "") if part
    )
    return Shown(float(values[metric]), metric, str(found["protocol"]), split, state, detail, cell.name)


def build(cells: Sequence[Cell], methods: list[str], benchmarks: list[str], out: Path) -> list[Path]:
    """Write matrix.md, .csv, .tex and .html; half-done matrices included."""
    table = {(cell.method, cell.benchmark): shown(cell) for cell in cells}
    heads = []
    for name in benchmarks:
        done = [one for method in methods if (one := table[method, name]).value is not None]
        highest = max((one.value for one in done if one.value is not None), default=None)
        for method in methods:
            one = table[method, name]
            if one.value is not None and one.value == highest:
                table[method, name] = replace(one, best=True)
        heads.append(f"{name}: {title(done[0].metric)}, {done[0].protocol}, {done[0].split}" if done else name)
    rows = [(method, [table[method, name] for name in benchmarks]) for method in methods]
    texts = {
        "matrix.md": _markdown(heads, rows),
        "matrix.csv": _csv(benchmarks, rows),
        "matrix.tex": _latex(heads, rows),
        "matrix.html": Environment(loader=PackageLoader("rislab.report"), autoescape=True)
        .get_template("matrix.html.jinja")
        .render(heads=heads, rows=rows),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


Rows = list[tuple[str, list[Shown]]]


def _said(one: Shown) -> str:
    return f"*{one.state}*" if one.value is None else f"**{one.value:.2f}**" if one.best else f"{one.value:.2f}"


def _markdown(heads: list[str], rows: Rows) -> str:
    out = ["# Methods by benchmarks", "", f"| method | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    out += [f"| {method} | {' | '.join(map(_said, ours))} |" for method, ours in rows]
    out += [
        "",
        "Percent; the best of a column is bold. Columns follow different conventions and do not compare.",
        "",
        "## Cells",
        "",
    ]
    out += [f"- `{one.directory}`: {one.detail or one.state}" for _, ours in rows for one in ours]
    return "\n".join(out) + "\n"


def _csv(benchmarks: list[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "benchmark", "split", "protocol", "metric", "value", "state", "detail", "directory"])
    for method, ours in rows:
        for name, one in zip(benchmarks, ours, strict=True):
            value = "" if one.value is None else repr(one.value)
            writer.writerow(
                [method, name, one.split, one.protocol, one.metric, value, one.state, one.detail, one.directory]
            )
    return text.getvalue()


def _latex(heads: list[str], rows: Rows) -> str:
    out = [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    out += [" & ".join(["method", *map(latex_escape, heads)]) + r" \\", r"\midrule"]
    for method, ours in rows:
        values = [
            "--" if o.value is None else rf"\textbf{{{o.value:.2f}}}" if o.best else f"{o.value:.2f}" for o in ours
        ]
        out.append(" & ".join([latex_escape(method), *values]) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}"]) + "\n"
