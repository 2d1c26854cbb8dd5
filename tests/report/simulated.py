"""Tables whose truth is known, through the whole of `judge`: how often a claim is decided wrongly, and how often rightly.

A scenario says how rows, seeds and pictures vary. Its tables are drawn again and again: either as trial directories that
`collect` reads, or, many times faster, as cells that hold the same content in memory. Both give the same verdicts (tested).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rislab.ablation import plan, table
from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.metrics import referring
from rislab.metrics.protocols import Protocol
from rislab.report.results import Cell, Counts, Results, RowResult, collect
from rislab.report.verdicts import Judged, judge
from tests.report.trials import record
from tests.worlds import tiny_chain

UNION = 10_000
ROWS = ("a", "b", "c", "d", "e", "f", "g")
PAIR = ("miou_expr[a] > miou_expr[b]",)
ALL = tuple(f"miou_expr[{row}] > miou_expr[a]" for row in ROWS[1:])
STEPS = tuple(f"miou_expr[{low}] < miou_expr[{high}]" for low, high in pairwise(ROWS))


@dataclass(frozen=True)
class Scenario:
    """One kind of table; numbers are percent points of IoU.

    Attributes:
        claims: what is judged; where no row has a gain, all claims are wrong to be decided.
        sd: standard deviation between seeds; spread: factors of single rows. seeds: of every row, but for other_seeds.
        untrained: rows without a seed effect. chain: all others have two stages; those in `sharing` share the first.
        gains: what a row is truly better by.
        per_picture: what a picture adds to a single row; common: to all rows; noise: to a single expression and seed.
        pictures: of the split, with `each` expressions. skewed: expressions weigh by sizes that differ a lot (for oIoU).
    """

    name: str
    claims: tuple[str, ...] = PAIR
    rows: tuple[str, ...] = ROWS
    seeds: int = 3
    sd: float = 2.0
    spread: Mapping[str, float] = field(default_factory=dict)
    other_seeds: Mapping[str, int] = field(default_factory=dict)
    untrained: tuple[str, ...] = ()
    chain: bool = False
    sharing: tuple[str, ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)
    per_picture: float = 3.0
    common: float = 10.0
    noise: float = 5.0
    pictures: int = 60
    each: int = 3
    skewed: bool = False


class Simulation:
    """Tables of a scenario. folder: for the table's file and its trials."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.table = table.load(self._write_table(folder))
        self.profile = self.table.profile("toy")
        every = plan.plan(
            self.table, self.profile, range(max(scenario.seeds, *scenario.other_seeds.values(), 0)), folder
        )
        self.planned = [c for c in every if c.seed < scenario.other_seeds.get(c.row.name, scenario.seeds)]

    def _write_table(self, folder: Path) -> Path:
        options: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(self.scenario.rows):
            if name in self.scenario.untrained:
                options[name] = {
                    "adapters": False,
                    "cfe": False,
                    "ske": False,
                    "word_len": 20 + number,
                    "stage": "patch",
                }
            elif not self.scenario.chain:
                options[name] = {"ske_mlp": 64 + number, "stage": "patch"}
            else:
                first = 0 if name in self.scenario.sharing else number
                options[name] = {"ske_mlp": 64 + first, "decoder_width": [8 + number, 8, 8]}
        path = tiny_chain(folder, yaml.safe_dump(options, sort_keys=False))
        content = yaml.safe_load(path.read_text())
        content["claims"] = [
            {"name": f"claim {n}", "text": "-", "holds": holds, "source": "-"}
            for n, holds in enumerate(self.scenario.claims)
        ]
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def draw(self, seed: int) -> dict[str, dict[str, NDArray[np.int64]]]:
        """Counts of every expression of every trial, by its hash."""
        of, rng = self.scenario, np.random.default_rng(seed)
        count = of.pictures * of.each
        picture = np.arange(of.pictures).repeat(of.each)
        common = rng.normal(0, of.common, of.pictures)[picture]
        union = np.full(count, UNION) if not of.skewed else (UNION * rng.lognormal(0, 1, count)).astype(np.int64)
        own: dict[str, NDArray[np.float64]] = {}
        luck: dict[str, float] = {}
        drawn: dict[str, dict[str, NDArray[np.int64]]] = {}
        for cell in self.planned:
            row = cell.row.name
            if cell.hash in drawn:
                continue
            place = f"{row} {cell.stage}"
            if place not in own:
                own[place] = rng.normal(0, of.per_picture, of.pictures)[picture]
            trained = row not in of.untrained
            luck[cell.hash] = rng.normal(0, of.sd * of.spread.get(row, 1.0)) if trained else 0.0
            if cell.parent is not None:
                luck[cell.hash] += luck[cell.parent.hash]
            noise = rng.normal(0, of.noise, count) if trained else 0.0
            iou = 50 + of.gains.get(row, 0.0) + common + own[place] + luck[cell.hash] + noise
            hits = np.rint(np.clip(iou, 0, 100) / 100 * union).astype(np.int64)
            ids = np.arange(count)
            drawn[cell.hash] = {
                "sent_id": ids,
                "ref_id": ids,
                "image_id": picture,
                "intersection": hits,
                "union": union,
                "target": union,
                "prediction": union,
                "no_target": 0 * ids,
            }
        return drawn

    def from_directories(self, seed: int) -> list[Judged]:
        """The verdicts of one drawn table, by way of its trial directories, which are written over."""
        drawn = self.draw(seed)
        for cell in plan.distinct(self.planned):
            if not cell.trial.identity.exists():
                cell.write()
            record(cell, drawn[cell.hash], "native", ("miou_expr", "oiou"))
        return judge(collect(self.table, self.profile, range(self.scenario.seeds), self.planned))

    def in_memory(self, seed: int) -> list[Judged]:
        """The same without a file."""
        drawn = self.draw(seed)
        convention = Protocol["native"].convention
        scores = {
            digest: {
                name: 100 * float(np.divide(*map(np.sum, referring.PARTS[name](t, convention)))) for name in METRICS
            }
            for digest, t in drawn.items()
        }
        rows: dict[str, list[Cell]] = {}
        before: dict[str, Cell] = {}
        for cell in self.planned:
            held = Counts(drawn[cell.hash], ExpressionArithmetic(convention))
            made = _Held(cell, "done", "", "", (), dict(before), held=held)
            made.__dict__["metrics"] = {"splits": {self.profile.split: scores[cell.hash]}}
            if cell.is_last:
                rows.setdefault(cell.row.name, []).append(made)
                before = {}
            else:
                before[cell.stage] = made
        results = [RowResult(row, tuple(rows[row.name])) for row in self.table.rows]
        return judge(Results(self.table, self.profile, tuple(range(self.scenario.seeds)), tuple(results)))


METRICS = ("miou_expr", "oiou")


@dataclass(frozen=True)
class _Held(Cell):
    held: Counts | None = None

    def evidence(self, split: str) -> Counts | None:
        return self.held


def unequal() -> Iterator[Scenario]:
    """Two rows of seven are compared; they, or one of them, spread more or less than the rest."""
    for seeds in (2, 3, 4, 5):
        yield Scenario(f"{seeds} seeds, equal spread", seeds=seeds)
        for factor in (2.0, 4.0):
            both, one = {"a": factor, "b": factor}, {"a": factor}
            yield Scenario(f"{seeds} seeds, both rows x{factor:g}", seeds=seeds, spread=both)
            yield Scenario(f"{seeds} seeds, one row x{factor:g}", seeds=seeds, spread=one)


def families() -> Iterator[Scenario]:
    """Six claims of one table, none of them true: false positives are tables with one decided claim at least."""
    for seeds in (2, 3, 5):
        yield Scenario(f"{seeds} seeds, six claims against one row", claims=ALL, seeds=seeds)
        yield Scenario(f"{seeds} seeds, the same, that row x4", claims=ALL, seeds=seeds, spread={"a": 4.0})
        yield Scenario(
            f"{seeds} seeds, six steps, every other row x4", claims=STEPS, seeds=seeds, spread=dict.fromkeys("bdf", 4.0)
        )


def others() -> Iterator[Scenario]:
    """Stages, rows without training, numbers of seeds that differ, pictures that decide, sizes that differ."""
    patch = ("patch:miou_expr[a] > patch:miou_expr[b]",)
    yield Scenario("stages, the first one", claims=patch, chain=True)
    yield Scenario("stages, four rows share the first", chain=True, sharing=("d", "e", "f", "g"))
    yield Scenario(
        "stages, compared rows share the first, x2", chain=True, sharing=("a", "b"), spread={"a": 2.0, "b": 2.0}
    )
    for seeds in (2, 3, 5):
        yield Scenario(f"{seeds} seeds, against an untrained row", seeds=seeds, untrained=("b", "g"))
        yield Scenario(f"{seeds} seeds, the same, x4", seeds=seeds, untrained=("b", "g"), spread={"a": 4.0})
    yield Scenario("two untrained rows, one seed", seeds=1, untrained=("a", "b"))
    yield Scenario("two untrained rows, 20 pictures", seeds=3, untrained=("a", "b"), pictures=20)
    yield Scenario("2 seeds against 5, x2 and x1", spread={"a": 2.0}, other_seeds={"a": 2, "b": 5})
    yield Scenario("5 seeds against 2, x4 and x1", spread={"a": 4.0}, other_seeds={"a": 5, "b": 2})
    yield Scenario("three rows", rows=("a", "b", "c"), spread={"a": 4.0})
    yield Scenario("two rows", rows=("a", "b"), spread={"a": 4.0})
    yield Scenario(
        "difference of differences",
        claims=("miou_expr[a] - miou_expr[b] > miou_expr[c] - miou_expr[d]",),
        spread={"a": 4.0},
    )
    yield Scenario("small spread, few pictures", sd=0.5, pictures=20)
    yield Scenario("oIoU, sizes that differ", claims=("oiou[a] > oiou[b]",), skewed=True, sd=1.0)
    yield Scenario("one expression a picture", each=1, pictures=120)


def all_null() -> list[Scenario]:
    return [*unequal(), *families(), *others()]


def powers() -> Iterator[Scenario]:
    """Claims that are true, of rows alike in spread: 1.5 points between seeds and 200 pictures."""
    for seeds in (2, 3, 5):
        for gain in (2.0, 4.0, 6.0, 8.0):
            gains = dict.fromkeys(ROWS[1:], gain)
            yield Scenario(
                f"{seeds} seeds, {gain:g} points", claims=ALL[:4], seeds=seeds, sd=1.5, gains=gains, pictures=200
            )


def is_wrong(judged: list[Judged]) -> bool:
    """Whether a table in which all is alike was told that something differs."""
    return any(claim.verdict in ("replicated", "contradicted") for claim in judged)
