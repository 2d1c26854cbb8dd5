"""The comparison as a document, and its files. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rislab.ablation import lookup
from rislab.ablation.published import Published
from rislab.ablation.table import Table
from rislab.ablation.yaml_lines import read_yaml
from rislab.errors import ConfigError
from rislab.files import write_text
from rislab.report import claims
from rislab.report.comparison.costs import of_costs
from rislab.report.comparison.panels import Known, generated_panel, protocol_panels
from rislab.report.comparison.scores import Score, Scored, scored, trainings
from rislab.report.comparison.tables import Tables, is_generated, of_claims, of_tables
from rislab.report.document import Cell, Column, Document, Grid, Row, Section, listed, words
from rislab.report.document_forms import forms
from rislab.report.provenance import provenance

TITLE = "Methods of text-driven segmentation, compared"


@dataclass(frozen=True)
class Places:
    """Folders that are read.

    Attributes:
        runs: trials of tables.
        matrix: cells of matrices.
        costs: files of `rislab bench cost`.
        reports: of tables, which the ledger names.
    """

    runs: Path = Path("runs")
    matrix: Path = Path("runs/matrix")
    costs: Path = Path("runs/costs")
    reports: Path = Path("reports")


def document(
    published: Published, tables: Sequence[Table], broken: Sequence[str], seeds: Sequence[int], places: Places
) -> Document:
    """The whole report. The same files give the same bytes.

    Args:
        tables: all that could be read.
        broken: what is wrong with the others, a line each.
        seeds: of the rows that are the whole methods; others that are done count, too.
    """
    trained = trainings(published.methods, places.runs, seeds)
    benchmarks = _benchmarks()
    found = scored(trained, places.matrix, benchmarks)
    known = Known(published, trained, found.scores, generated_benchmarks())
    first = generated_panel(known)
    panels = protocol_panels(known)
    ran = of_tables(tables, places.runs)
    ledger, counted = of_claims(claims.ledger(tables, places.runs, places.reports))
    cost, unread = of_costs(known, places.costs)
    filled = sum(1 for row in first.rows for cell in row.cells if cell.value is not None)
    total = sum(len(row.cells) - 2 for row in first.rows)
    return Document(
        TITLE,
        f"{len(known.methods)} methods, {len(known.generated)} generated benchmarks ({filled} of {total} cells have a score, "
        f"each other its reason), {len(published.protocols)} protocols of papers, {len(ran.grids)} tables with results.",
        (
            Section(
                "Methods by benchmarks",
                (
                    "Each method in its whole form, trained by its own table, on that table's world: a benchmark may be of "
                    "another one. Methods for sentences get class names, methods for class names get sentences.",
                ),
                (first,),
            ),
            Section(
                "Beside the papers, protocol by protocol",
                (
                    "A column has one protocol. Numbers of papers are those that were read in a source; ours stand beside them "
                    "only where the same protocol was followed on the same data.",
                ),
                tuple(panels),
            ),
            Section("Sources of the papers' numbers", (), (_sources(published),)),
            Section("Tables of the papers", (), ran.grids, () if ran.grids else ("No trial of any table is done.",)),
            Section("Claims", counted, (ledger,)),
            Section("Cost of a picture", (), (cost,)),
            Section("What was not run, and why", (), (), tuple(_not_run(known, found, ran, broken, unread, places))),
            Section("Evidence", (), (_evidence(known),)),
        ),
        "Scores on generated worlds say how methods compare there at a small scale. Their level has no meaning beside a paper's.",
        _provenance(ran),
    )


def write(content: Document, out: Path) -> list[Path]:
    """Write compare.md, .csv, .tex and .html into a folder."""
    made = forms(content, "compare")
    for name, text in made.items():
        write_text(out / name, text)
    return [out / name for name in made]


def generated_benchmarks() -> tuple[str, ...]:
    """Names of the benchmarks whose world is made, not downloaded. Raises ConfigError."""
    return tuple(name for name, data in _benchmarks().items() if is_generated(data))


def _benchmarks() -> dict[str, object]:
    """The data part of each benchmark's config."""
    found: dict[str, object] = {}
    for path in lookup.own_files("experiments/benchmarks/*.yaml").values():
        content = read_yaml(path)
        if not isinstance(content, dict) or "data" not in content:
            raise ConfigError(f"{path}: expected `data:`, as in the other files of {path.parent}")
        found[path.stem] = content["data"]
    return found


def _sources(published: Published) -> Grid:
    rows = []
    for paper in published.methods:
        for number, result in enumerate(paper.results):
            title = published.protocols[result.protocol].title
            first = f"{paper.title} ({paper.paper})"
            rows.append(Row(words((first, result.name, title, result.source)), number == 0))
    heads = {"method": 0.8, "model": 1.0, "protocol": 0.8, "source": 2.0}
    columns = tuple(Column(head, kind="text", share=share) for head, share in heads.items())
    return Grid("sources", "", columns, tuple(rows))


def _not_run(
    known: Known, found: Scored, ran: Tables, broken: Sequence[str], unread: Sequence[str], places: Places
) -> Iterator[str]:
    """One line each; what is missing for one reason stands in one line."""
    for training in known.trained:
        if training.expected and (missing := training.missing):
            what = "is not trained" if training.needs_training else "has no result in its own table"
            yield f"{known.title(training.method)} {what}: {missing}. {training.command}"
    for score in known.scores:
        if not score.values:
            yield f"{known.title(score.method)} on {score.benchmark}: {score.reason} ({score.directory})"
    real = [name for name in _benchmarks() if name not in known.generated]
    scores = {(score.benchmark, score.method) for score in known.scores if score.values}
    if absent := [name for name in real if not any(benchmark == name for benchmark, _ in scores)]:
        yield (
            f"No method was scored on {listed(absent)}: they need the real data. "
            "rislab matrix --methods METHOD --benchmarks BENCHMARK --checkpoints FILE --data DIR"
        )
    protocols = known.published.protocols.values()
    for score in known.scores:
        if not score.values or score.benchmark in known.generated:
            continue
        if not any(protocol.is_followed(score.protocol, score.benchmark) for protocol in protocols):
            where = f"{score.protocol} on {score.benchmark}"
            yield f"In no table above, since no protocol of ablations/papers is {where}: {score.directory}"
    official = {score.method for score in known.scores if score.weights.source == "official"}
    if without := [known.title(method) for method in known.methods if method not in official]:
        yield (
            f"No official weights were given of {listed(without)}: rislab compare --run --checkpoints FILE, "
            "`METHOD: {official: WEIGHTS, config: RECIPE.yaml}` a line."
        )
    for paper in known.published.methods:
        if not paper.results:
            yield f"{paper.title}: no paper of its own reports numbers that could be verified."
    yield from (f"Table {line}" for line in ran.not_run)
    yield from (f"Table left out: {line}" for line in broken)
    yield from (f"Cell left out: {line}" for line in found.left_out)
    yield from (f"Cost left out: {line}" for line in unread)


def _evidence(known: Known) -> Grid:
    def line(score: Score) -> tuple[str, ...]:
        seed = "" if score.weights.seed is None else f", seed {score.weights.seed}"
        values = ", ".join(f"{name} {value:.2f}" for name, value in score.values.items()) or score.reason
        where = f"{score.benchmark} {score.split}".strip()
        whose = f"{score.weights.source}: {score.weights.label}{seed}"
        return known.title(score.method), whose, where, score.protocol or "none", values, score.directory

    heads = ("method", "weights", "benchmark", "protocol", "scores", "directory")
    ordered = sorted(known.scores, key=lambda s: (known.methods.index(s.method), s.directory))
    rows = tuple(Row(tuple(Cell(text) for text in line(score))) for score in ordered)
    return Grid("evidence", "", tuple(Column(head, kind="text") for head in heads), rows)


def _provenance(ran: Tables) -> tuple[str, ...]:
    """What the finished trials of tables were made with, a line for each value that occurs."""
    values: Mapping[str, dict[str, None]] = {"commit": {}, "hardware": {}, "packages": {}}
    for seen in ran.views:
        for what, text in provenance(seen.results):
            if what in values:
                values[what][text] = None
    return tuple(f"{what}: {'; '.join(texts)}" for what, texts in values.items() if texts)
