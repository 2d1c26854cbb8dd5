"""Methods by benchmarks: a grid for the generated worlds, and one for each protocol under which papers report.

A column has one benchmark, split, metric and protocol, so numbers of two protocols never stand in one column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rislab.ablation.published import PaperFile, Published, PublishedProtocol, Result
from rislab.report.comparison.scores import Score, Training, Weights
from rislab.report.conventions import title
from rislab.report.document import Cell, Column, Grid, Row, listed
from rislab.report.statistics import spread

SHOWN = ("miou_expr", "oiou", "acc", "miou_class", "aacc", "miou_fold", "fb_iou")
"""Metrics of a benchmark that are shown, as far as they were measured or published."""
WIDEST = 10
"""Columns of numbers in a grid; a protocol with more gets a grid for each metric."""
NOT_RUN = "not run here: needs the real data; see “What was not run”"
NO_PROTOCOL = "rislab cannot score by this protocol"
UNPUBLISHED = "no verified number"
NOT_SCORED = "not scored: rislab compare --run"


@dataclass(frozen=True)
class Spot:
    """What one column shows. metric: "" where no score of the benchmark is known yet."""

    benchmark: str
    split: str
    metric: str


@dataclass(frozen=True)
class Known:
    """Everything that the grids are made of. generated: benchmarks whose world is made, in the order of columns."""

    published: Published
    trained: Sequence[Training]
    scores: Sequence[Score]
    generated: Sequence[str]

    def title(self, method: str) -> str:
        return next((paper.title for paper in self.published.methods if paper.method == method), method)

    @property
    def methods(self) -> list[str]:
        """Those with a file first, then others that a matrix has scored."""
        return list(dict.fromkeys([p.method for p in self.published.methods] + sorted({s.method for s in self.scores})))

    def why_untrained(self, method: str) -> str:
        """Why the whole method has no checkpoint to score; "" where it has, or needs none."""
        training = self.training(method)
        missing = training.missing if training is not None else ""
        return f"not trained: {missing}" if missing else ""

    def training(self, method: str) -> Training | None:
        """The row that is trained for this report; None for a method without training."""
        return next((t for t in self.trained if t.method == method and t.expected and t.needs_training), None)


def generated_panel(known: Known) -> Grid:
    """Every method on every generated benchmark."""
    scores = [score for score in known.scores if score.benchmark in known.generated]
    spots = [spot for name in known.generated for spot in _spots(name, scores)]
    protocols = {(s.benchmark, s.split): s.protocol for s in scores if s.values}
    rows: list[Row] = []
    for method in known.methods:
        mine = [score for score in scores if score.method == method]
        groups = _by_weights(mine)
        if not any(weights.source == "ours" for weights, _ in groups):
            groups.insert(0, (Weights("ours", _expected_label(known, method), ""), []))
        for number, (weights, group) in enumerate(groups):
            cells = tuple(_ours(known, method, group, spot) for spot in spots)
            rows.append(Row((Cell(known.title(method)), Cell(_whose(weights)), *cells), number == 0))
    columns = tuple(_column(spot, protocols.get((spot.benchmark, spot.split), "")) for spot in spots)
    after = (
        "Percent; mean ± standard deviation over seeds where there are several; bold: best of a column. Columns do not "
    )
    after += "compare."
    return Grid("generated", "On generated worlds", (*_LEAD, *columns), _marked(rows), "", (after,))


def protocol_panels(known: Known) -> list[Grid]:
    """A grid for each protocol, or for each metric of one that has many columns."""
    found: list[Grid] = []
    for protocol in known.published.protocols.values():
        scores = _under(known, protocol)
        spots = _published_spots(known.published, protocol, scores)
        by_metric = [[spot for spot in spots if spot.metric == metric] for metric in SHOWN]
        groups = [spots] if len(spots) <= WIDEST else [group for group in by_metric if group]
        found += [_protocol_panel(known, protocol, scores, group, len(groups) > 1) for group in groups if group]
    return found


_LEAD = (Column("method", kind="text"), Column("whose numbers", kind="text", share=1.6))


def _protocol_panel(
    known: Known, protocol: PublishedProtocol, scores: Sequence[Score], spots: Sequence[Spot], is_part: bool
) -> Grid:
    rows, absent = [], []
    for method in known.methods:
        lines = list(_lines(known, method, protocol, scores, spots))
        if any(not cell.reason for _, cells in lines for cell in cells):
            rows += [
                Row((Cell(known.title(method)), Cell(whose), *cells), number == 0)
                for number, (whose, cells) in enumerate(lines)
            ]
        else:
            absent.append(known.title(method))
    metric = f": {title(spots[0].metric)}" if is_part else ""
    name = f"{protocol.name}-{spots[0].metric}" if is_part else protocol.name
    columns = tuple(_column(spot, protocol.name) for spot in spots)
    after = [f"No number is known here of {listed(absent)}."] if absent else []
    return Grid(name, f"{protocol.title}{metric}", (*_LEAD, *columns), _marked(rows), f"{protocol.text}.", tuple(after))


def _lines(
    known: Known, method: str, protocol: PublishedProtocol, scores: Sequence[Score], spots: Sequence[Spot]
) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    """Ours, official weights under our evaluation, other checkpoints, and the paper's models."""
    mine = _by_weights([score for score in scores if score.method == method])
    missing = Cell(reason=NOT_RUN if protocol.is_ours else NO_PROTOCOL)
    if not any(weights.source == "ours" for weights, _ in mine):
        yield "ours", (missing,) * len(spots)
    for weights, group in mine:
        yield _whose(weights), tuple(_measured(group, spot) or missing for spot in spots)
    for result in _of(known.published.methods, method):
        if result.protocol == protocol.name:
            cells = tuple(_reported(result, spot) for spot in spots)
            if any(not cell.reason for cell in cells):
                yield f"paper: {result.name}", cells


def _of(papers: Sequence[PaperFile], method: str) -> tuple[Result, ...]:
    return next((paper.results for paper in papers if paper.method == method), ())


def _reported(result: Result, spot: Spot) -> Cell:
    value = result.values.get(f"{spot.benchmark}/{spot.split}", {}).get(spot.metric)
    return Cell(reason=UNPUBLISHED) if value is None else Cell(f"{value:.2f}", value)


def _under(known: Known, protocol: PublishedProtocol) -> list[Score]:
    """Scores that were made by rislab's form of a protocol, on no generated world."""
    return [
        score
        for score in known.scores
        if protocol.is_followed(score.protocol, score.benchmark) and score.benchmark not in known.generated
    ]


def _published_spots(published: Published, protocol: PublishedProtocol, scores: Sequence[Score]) -> list[Spot]:
    spots = [
        Spot(where.partition("/")[0], where.partition("/")[2], metric)
        for paper in published.methods
        for result in paper.results
        if result.protocol == protocol.name
        for where, values in result.values.items()
        for metric in values
    ]
    spots += [Spot(s.benchmark, s.split, metric) for s in scores for metric in SHOWN if metric in s.values]
    order = {benchmark: number for number, benchmark in enumerate(dict.fromkeys(spot.benchmark for spot in spots))}
    return sorted(dict.fromkeys(spots), key=lambda spot: (SHOWN.index(spot.metric), order[spot.benchmark]))


def _spots(benchmark: str, scores: Sequence[Score]) -> list[Spot]:
    """Columns of one benchmark: what was measured on it, or one column of reasons."""
    done = [score for score in scores if score.benchmark == benchmark and score.values]
    found = dict.fromkeys(Spot(benchmark, s.split, metric) for metric in SHOWN[:4] for s in done if metric in s.values)
    return list(found) or [Spot(benchmark, "", "")]


def _by_weights(scores: Sequence[Score]) -> list[tuple[Weights, list[Score]]]:
    """Scores by whose weights they are, seeds together: ours first, then official ones, then others."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.weights.key, []).append(score)
    order = {"ours": 0, "official": 1, "other": 2}
    ordered = sorted(groups.items(), key=lambda item: (order[item[1][0].weights.source], item[0]))
    return [(group[0].weights, group) for _, group in ordered]


def _measured(group: Sequence[Score], spot: Spot) -> Cell | None:
    """Mean over the seeds of a group; the first reason where no seed has a score; None where there is neither."""
    here = [s for s in group if s.benchmark == spot.benchmark and s.split in (spot.split, "")]
    values = [value for s in here if (value := s.values.get(spot.metric)) is not None]
    found = spread(values)
    if found is None:
        reasons = [s.reason or f"not measured: {title(spot.metric)}" for s in here if spot.metric]
        reasons = reasons or [s.reason for s in here if s.reason]
        return Cell(reason=reasons[0]) if reasons else None
    sd = "" if found.sd is None else f" ± {found.sd:.2f}"
    number = f"n = {found.n}" if found.n == len(here) else f"n = {found.n} of {len(here)}"
    return Cell(f"{found.mean:.2f}{sd}", found.mean, soft=number if len(here) > 1 else "")


def _ours(known: Known, method: str, group: Sequence[Score], spot: Spot) -> Cell:
    return _measured(group, spot) or Cell(reason=known.why_untrained(method) or NOT_SCORED)


def _expected_label(known: Known, method: str) -> str:
    training = known.training(method)
    return "no training" if training is None else training.label


def _whose(weights: Weights) -> str:
    said: Mapping[str, str] = {"ours": "ours", "official": "official weights, our evaluation", "other": "checkpoint"}
    return f"{said[weights.source]}: {weights.label}" if weights.label else said[weights.source]


def _column(spot: Spot, protocol: str) -> Column:
    lines = (spot.split, title(spot.metric) if spot.metric else "", f"protocol {protocol}" if protocol else "")
    return Column(spot.benchmark, tuple(filter(None, lines)))


def _marked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The best of each column, among what was measured here and among what papers report, where two can be compared."""
    best: dict[tuple[bool, int], list[float]] = {}
    for row in rows:
        for number, cell in enumerate(row.cells):
            if cell.value is not None:
                best.setdefault((_is_published(row), number), []).append(cell.value)
    return tuple(
        Row(
            tuple(
                Cell(cell.text, cell.value, cell.reason, _is_best(cell, best[_is_published(row), n]), cell.soft)
                if cell.value is not None
                else cell
                for n, cell in enumerate(row.cells)
            ),
            row.begins,
        )
        for row in rows
    )


def _is_best(cell: Cell, column: Sequence[float]) -> bool:
    return len(column) > 1 and cell.value == max(column)


def _is_published(row: Row) -> bool:
    return row.cells[1].text.startswith("paper: ")
