"""What a report says, once, for all its forms: cells as text and numbers, notes, conventions, provenance."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rislab.ablation import lookup
from rislab.ablation.integrity import SUSPECT
from rislab.ablation.table import Claim
from rislab.report.conventions import conventions, selected_on
from rislab.report.measurements import Evidence
from rislab.report.provenance import provenance
from rislab.report.results import Cell, Results, RowResult, relative
from rislab.report.statistics import Spread, spread
from rislab.report.verdicts import Judged, judge

Folds = tuple[tuple[str, float | None], ...]
"""Name and value of each fold that a cell is the mean of; empty without folds."""

NOT_MEASURED = "not measured"
"""What a finished row shows of a metric of a stage that it has not."""


@dataclass(frozen=True)
class Measured:
    """One cell of ours: value with spread, change against the baseline row, whether it is the column's best.

    Attributes:
        ratio: the row's standard deviation over the one pooled over rows; None where it has none.
        folds: each the mean over its seeds.
    """

    metric: str
    spread: Spread | None
    change: float | None
    best: bool
    ratio: float | None
    folds: Folds = ()

    @property
    def text(self) -> str:
        if self.spread is None:
            return NOT_MEASURED
        sd = "" if self.spread.sd is None else f" ± {self.spread.sd:.2f}"
        return f"{self.spread.mean:.2f}{sd}"


@dataclass(frozen=True)
class Published:
    """One cell of the paper's: None is "not verified"."""

    metric: str
    value: float | None
    change: float | None
    best: bool
    folds: Folds = ()


@dataclass(frozen=True)
class Line:
    """One row. state: what its trials are doing, empty once one of them has a result; n: finished seeds."""

    result: RowResult
    ours: tuple[Measured, ...]
    paper: tuple[Published, ...]
    parameters: float | None
    paper_parameters: float | None
    state: str
    n: str
    stale: bool

    @property
    def label(self) -> str:
        return self.result.row.label

    @property
    def name(self) -> str:
        return self.result.row.name


@dataclass(frozen=True)
class View:
    results: Results
    lines: tuple[Line, ...]
    judged: tuple[Judged, ...]
    pooled: tuple[tuple[str, str], ...]
    paper_metrics: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    trials: tuple[dict[str, str], ...]
    conventions: tuple[tuple[str, str], ...]

    @property
    def notice(self) -> str | None:
        """Said first and largest when the numbers are not from the paper's data."""
        profile = self.results.profile
        if profile.is_paper_dataset:
            return None
        return (
            f"Our numbers were measured on {profile.dataset}, the paper's on {self.paper_dataset}. "
            "Compare the order of the rows, never the level."
        )

    @property
    def caution(self) -> str | None:
        """Said before the claims when a trained row has been run once only."""
        if not any(judged.verdict == "single seed" for judged in self.judged):
            return None
        return (
            "One seed is no verdict. The differences say what this run showed, their intervals what other pictures would "
            "change; seeds can differ by more than that. Run two seeds at least."
        )

    @property
    def unjudged(self) -> tuple[Claim, ...]:
        """Claims that could not be read in a source."""
        return tuple(claim for claim in self.results.table.claims if not claim.judged)

    @property
    def selection(self) -> str | None:
        """Said with the table when the checkpoints were chosen on the very split that it shows."""
        split = self.results.profile.split
        if split not in selected_on(self.results):
            return None
        return (
            f"The checkpoint of every trained row was chosen on {split}, the split that is reported: these numbers are higher "
            "than those of a split that the choice has not seen."
        )

    @property
    def paper_dataset(self) -> str:
        """Data set and split as the table's own profile on that data calls them."""
        return self.published_on("")

    def published_on(self, metric: str) -> str:
        """The same of one metric: earlier stages may have splits of their own."""
        mine = self.results.profile
        profiles = self.results.table.profiles.values()
        theirs = next((p for p in profiles if p.is_paper_dataset and p.column == mine.column), None)
        return f"{mine.column if theirs is None else theirs.dataset}, {(theirs or mine).split_of(metric)}"

    @property
    def meaning_of_folds(self) -> str:
        """What stands in brackets behind a mean over folds; empty without folds."""
        folds = list(self.results.profile.folds)
        return f"A cell is the mean over {len(folds)} folds; in brackets: {', '.join(folds)}." if folds else ""

    @property
    def same_setup(self) -> str:
        return "yes" if self.results.profile.is_paper_dataset else "no"

    @property
    def summary(self) -> str:
        done = sum(1 for cell in self.results.cells if cell.state == "done")
        verdicts = Counter(j.verdict for j in self.judged)
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        return f"{done} of {len(self.results.cells)} trials done; claims: {said or 'none'}"

    @property
    def command(self) -> str:
        """What makes this table again."""
        table, seeds = self.results.table, self.results.seeds
        listed = ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")
        given = str(len(seeds)) if seeds == tuple(range(len(seeds))) else listed
        name = Path(lookup.shown_name(table.path)).name  # no machine's path
        chosen = [result.row.name for result in self.results.rows]
        rows = f" --rows {','.join(chosen)}" if len(chosen) < len(table.rows) else ""
        return f"rislab ablate run {name} --profile {self.results.profile.name} --seeds {given}{rows}"

    @property
    def meaning_of_delta(self) -> str:
        """It is empty where only other rows were chosen."""
        table = self.results.table
        missing = "" if self.results.row(table.baseline) else ", which was not chosen"
        return f"Δ: change against the row “{table.row(table.baseline).label}”{missing}."


def view(results: Results) -> View:
    table, split, column = results.table, results.profile.split, results.profile.column
    base = results.row(table.baseline)
    evidence = Evidence(results)
    means = {
        (r.row.name, m): s.mean
        for r in results.rows
        for m in table.metrics
        if (s := spread(r.values(split, m))) is not None
    }
    published = {(r.row.name, m): v for r in results.rows for m, v in r.row.paper.get(column, {}).items()}
    paper_metrics = tuple(m for m in table.metrics if any((r.row.name, m) in published for r in results.rows))
    lines = []
    for result in results.rows:
        name = result.row.name
        ours = tuple(
            Measured(
                metric,
                spread(result.values(split, metric)),
                _change(means, name, base.row.name if base else "", metric),
                _is_best(means, name, metric, results),
                evidence.spread_ratio(result, metric),
                tuple((fold, result.of_fold(fold, split, metric)) for fold in results.profile.folds),
            )
            for metric in table.metrics
        )
        paper = tuple(
            Published(
                metric,
                published.get((name, metric)),
                _change(published, name, table.baseline, metric),
                _is_best(published, name, metric, results),
                _published_folds(results.profile.folds, published, name, metric),
            )
            for metric in paper_metrics
        )
        done, seeds = result.finished_seeds, len(result.by_seed)
        lines.append(
            Line(
                result,
                ours,
                paper,
                result.parameters,
                published.get((name, "params_m")),
                "" if done else _states(result),
                str(done) if done == seeds else f"{done}/{seeds}",
                any(cell.stale for cell in result.cells),
            )
        )
    return View(
        results,
        tuple(lines),
        tuple(judge(results)),
        tuple(_pooled(evidence, table.metrics)),
        paper_metrics,
        tuple(_failures(results)),
        tuple(provenance(results)),
        tuple(_trials(results)),
        tuple(conventions(results)),
    )


def _pooled(evidence: Evidence, metrics: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(metric, its standard deviation between seeds, pooled over the trained rows)."""
    for metric in metrics:
        pool = evidence.pool(((metric, 1),))
        if pool is not None:
            yield metric, f"{pool.sd:.2f} ({pool.freedom} degrees of freedom)"


def _states(result: RowResult) -> str:
    """`diverged`; `1 running, 2 pending`."""
    counts = Counter(cell.state for cell in result.cells)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _change(values: dict[tuple[str, str], float], row: str, base: str, metric: str) -> float | None:
    mine, theirs = values.get((row, metric)), values.get((base, metric))
    return None if mine is None or theirs is None or row == base else mine - theirs


def _is_best(values: dict[tuple[str, str], float], row: str, metric: str, results: Results) -> bool:
    column = [v for r in results.rows if (v := values.get((r.row.name, metric))) is not None]
    return len(column) > 1 and values.get((row, metric)) == max(column)


def _published_folds(folds: Iterable[str], published: dict[tuple[str, str], float], row: str, metric: str) -> Folds:
    """The paper's values of single folds; empty where it has none of a row and metric."""
    found = tuple((fold, published.get((row, f"{fold}:{metric}"))) for fold in folds)
    return found if any(value is not None for _, value in found) else ()


def _failures(results: Results) -> list[dict[str, str]]:
    return [
        {
            "trial": cell.planned.name,
            "state": f"{cell.state} ({cell.kind})" if cell.kind and cell.kind != cell.state else cell.state,
            "error": cell.error or "no reason was recorded",
            "log": relative(cell.planned.trial.path) + "/log/stdout.txt",
        }
        for cell in results.cells
        if cell.state in ("failed", "diverged", "lost", "interrupted", *SUSPECT)
    ]


def _trials(results: Results) -> list[dict[str, str]]:
    rows = []
    for cell in results.cells:
        seconds = cell.provenance.get("seconds", {}) if cell.state == "done" else {}
        rows.append(
            {
                "trial": cell.planned.name,
                "directory": relative(cell.planned.trial.path),
                "state": cell.state + (" (code changed since)" if cell.stale else ""),
                "minutes": f"{sum(seconds.values()) / 60:.1f}" if seconds else "",
                "speed": _printed(cell, "steps_per_second", 2),
                "memory": _printed(cell, "peak_memory_mb", 0),
            }
        )
    return rows


def _printed(cell: Cell, what: str, digits: int) -> str:
    value = cell.provenance.get(what) if cell.state == "done" else None
    return "" if value is None else f"{value:.{digits}f}"
