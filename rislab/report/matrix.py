"""Methods by benchmarks: one table in four forms, each cell with its metric, convention and provenance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation import identity, records, sources
from rislab.ablation.schema import METRICS
from rislab.ablation.trial import TrialDir
from rislab.errors import ConfigError
from rislab.evaluation.arithmetic import protocol_of
from rislab.files import write_json, write_text
from rislab.report import html
from rislab.report.conventions import title
from rislab.report.csv import CsvWriter
from rislab.report.latex import latex_escape
from rislab.report.markdown import md_code, md_escape, md_row


@dataclass(frozen=True)
class Cell:
    """One method on one benchmark.

    Attributes:
        identity: everything that decides the result.
        weights: sha256 of the checkpoint, if any.
        trunk: what the method was built on.
    """

    method: str
    benchmark: str
    runs: Path
    identity: dict[str, Any]
    config: dict[str, Any]
    weights: str | None
    trunk: str

    @cached_property
    def hash(self) -> str:
        return identity.digest(self.identity)

    @property
    def name(self) -> str:
        return f"{self.method}--{self.benchmark}--{self.hash[:8]}"

    @property
    def trial(self) -> TrialDir:
        path = self.runs / self.name
        # A cell that an earlier release finished has neither file, and is taken as it is.
        is_old = not (path / "identity.json").exists() and not (path / "manifest.json").exists()
        return TrialDir(path, None if is_old else self.hash)

    def write(self) -> None:
        """The config that `rislab fit --config` repeats. Raises ConfigError where the directory is another cell's, or damaged."""
        state, found = self.trial.inspect()
        if found.suspect:
            raise ConfigError(f"{self.trial.path} is {state}: {found.reason}; move it away")
        trainer = self.config["trainer"] | {"default_root_dir": str(self.trial.path)}
        write_text(self.trial.config, yaml.safe_dump(self.config | {"trainer": trainer}, sort_keys=False))
        if not self.trial.identity.exists():
            files = sources.sources(self.config)
            write_json(self.trial.identity, {"hash": self.hash, "config": self.identity, "sources": files})


@dataclass(frozen=True)
class CellResult:
    """A cell as it is printed. value: in percent, None where there is none; detail: what else belongs to it."""

    value: float | None
    metric: str
    protocol: str
    split: str
    state: str
    detail: str
    directory: str
    best: bool = False


def cell_result(cell: Cell) -> CellResult:
    state, look = cell.trial.inspect(thorough=True)
    found = look.result
    splits: dict[str, dict[str, Any]] = found.get("splits", {})
    split = next(iter(splits), "")
    values = splits.get(split, {})
    metric = next((name for name in ("miou_class", "miou_expr", *METRICS) if name in values), "")
    if state != "done" or not metric:
        return CellResult(None, "", "", "", f"{state}: {look.reason}" if look.suspect else state, "", cell.name)
    try:
        provenance = records.load(cell.trial.provenance_file, records.PROVENANCE) or {}
    except (records.DamagedError, OSError):
        provenance = {}
    weights = f"weights {cell.weights[:8]}" if cell.weights else "no training"
    counted = (
        f"{values.get('expressions', values.get('images'))} {'expressions' if 'expressions' in values else 'pictures'}"
    )
    commit = str(provenance.get("code", {}).get("commit") or "")[:8]
    parts = (found.get("benchmark", ""), counted, f"trunk {cell.trunk}" if cell.trunk else "", weights)
    detail = ", ".join(part for part in (*parts, f"commit {commit}" if commit else "") if part)
    return CellResult(float(values[metric]), metric, protocol_of(found), split, state, detail, cell.name)


def build(cells: Sequence[Cell], methods: list[str], benchmarks: list[str], out: Path) -> list[Path]:
    """Write matrix.md, .csv, .tex and .html; half-done matrices included."""
    table = {(cell.method, cell.benchmark): cell_result(cell) for cell in cells}
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
        "matrix.html": html.render("matrix_page.html.jinja", heads=heads, rows=rows),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


Rows = list[tuple[str, list[CellResult]]]


def _cell_text(one: CellResult) -> str:
    return (
        f"*{md_escape(one.state)}*" if one.value is None else f"**{one.value:.2f}**" if one.best else f"{one.value:.2f}"
    )


def _markdown(heads: list[str], rows: Rows) -> str:
    out = ["# Methods by benchmarks", "", md_row(["method", *map(md_escape, heads)]), f"|---{'|---' * len(heads)}|"]
    out += [md_row([md_escape(method), *map(_cell_text, ours)]) for method, ours in rows]
    out += [
        "",
        "Percent; the best of a column is bold. Columns follow different conventions and do not compare.",
        "",
        "## Cells",
        "",
    ]
    out += [f"- {md_code(one.directory)}: {md_escape(one.detail or one.state)}" for _, ours in rows for one in ours]
    return "\n".join(out) + "\n"


def _csv(benchmarks: list[str], rows: Rows) -> str:
    writer = CsvWriter()
    writer.writerow(["method", "benchmark", "split", "protocol", "metric", "value", "state", "detail", "directory"])
    for method, ours in rows:
        for name, one in zip(benchmarks, ours, strict=True):
            value = "" if one.value is None else one.value
            writer.writerow(
                [method, name, one.split, one.protocol, one.metric, value, one.state, one.detail, one.directory]
            )
    return writer.text


def _latex(heads: list[str], rows: Rows) -> str:
    out = [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    out += [" & ".join(["method", *map(latex_escape, heads)]) + r" \\", r"\midrule"]
    for method, ours in rows:
        values = [
            "--" if o.value is None else rf"\textbf{{{o.value:.2f}}}" if o.best else f"{o.value:.2f}" for o in ours
        ]
        out.append(" & ".join([latex_escape(method), *values]) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}"]) + "\n"
