"""The papers' tables as far as they have been run, and the claims about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rislab.ablation import plan
from rislab.ablation.table import Table
from rislab.report import claims
from rislab.report.claims import Line
from rislab.report.conventions import title
from rislab.report.document import Cell, Column, Grid, Row, words
from rislab.report.formatting import UNVERIFIED, folds
from rislab.report.model import NOT_MEASURED, View, view
from rislab.report.results import collect


@dataclass(frozen=True)
class Tables:
    """Grids of the profiles that have results, and what has none.

    Attributes:
        not_run: one line a profile without a result.
        views: of the grids, in their order.
    """

    grids: tuple[Grid, ...]
    not_run: tuple[str, ...]
    views: tuple[View, ...]


def of_tables(tables: Sequence[Table], runs: Path) -> Tables:
    """One grid for each profile of which a trial is done."""
    begun = claims.begun_seeds(runs)
    seeds = sorted(set().union(*begun.values())) if begun else []
    grids, not_run, views = [], [], []
    for table in tables:
        for profile in table.profiles.values():
            planned = plan.plan(table, profile, seeds, runs) if seeds else []
            needs_data = not is_generated(planned[0].config["data"]) if planned else profile.is_paper_dataset
            finished = {cell.seed for cell in planned if cell.trial.metrics_file.exists()}
            planned = [cell for cell in planned if cell.seed in finished]
            if not planned:
                data = " --data DIR" if needs_data else ""
                command = f"rislab ablate run {table.path.stem} --profile {profile.name}{data}"
                not_run.append(f"{table.name}, {profile.name} ({profile.dataset}): {command}")
                continue
            seen = view(collect(table, profile, sorted(finished), planned))
            views.append(seen)
            grids.append(_grid(seen))
    return Tables(tuple(grids), tuple(not_run), tuple(views))


def is_generated(data: object) -> bool:
    """Whether the `data` of a config is a world that is made, not downloaded."""
    if not isinstance(data, dict):
        return False
    return data.get("generate") is not None or any(map(is_generated, data.values()))


def _grid(seen: View) -> Grid:
    table, profile = seen.results.table, seen.results.profile
    columns = [Column("row", kind="text"), Column("n")]
    columns += [Column(title(metric), ("ours",)) for metric in table.metrics]
    columns += [Column(title(metric), ("paper", seen.paper_dataset)) for metric in seen.paper_metrics]
    rows, left = [], []
    for line in seen.lines:
        if line.state == "pending":
            left.append(line.name)
            continue
        ours = tuple(
            Cell(reason=line.state or NOT_MEASURED)
            if cell.spread is None
            else Cell(cell.text, cell.spread.mean, best=cell.best, soft=folds(cell.folds).strip())
            for cell in line.ours
        )
        paper = tuple(
            Cell(reason=UNVERIFIED)
            if cell.value is None
            else Cell(f"{cell.value:.2f}", cell.value, best=cell.best, soft=folds(cell.folds).strip())
            for cell in line.paper
        )
        label = line.label + (" †" if line.stale else "")
        rows.append(Row((Cell(label), Cell(line.n), *ours, *paper)))
    after = [text for text in (seen.meaning_of_folds, seen.selection, table.note) if text]
    if left:
        after.append(f"Not run: {', '.join(left)}. {seen.command}")
    if any(line.stale for line in seen.lines):
        after.append("† made with code that has changed since.")
    paper_text = f"{table.paper.title} ({table.paper.venue} {table.paper.year})"
    name = f"{table.name}-{profile.name}"
    heading = f"{table.title}: {profile.dataset}, {profile.split}"
    return Grid(name, heading, tuple(columns), tuple(rows), f"{paper_text}. {seen.summary}.", tuple(after))


def of_claims(lines: Sequence[Line]) -> tuple[Grid, tuple[str, ...]]:
    """One row a claim and profile that was judged, and one for a claim that was judged nowhere; and the counts."""
    rows = []
    for line in lines:
        shown = [entry for entry in line.entries if entry.verdict not in (claims.NOT_RUN, claims.NOT_READ)]
        shown = shown or list(line.entries[:1])
        for number, entry in enumerate(shown):
            seeds = {len(found) for found in entry.seeds.values()}
            count = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else "".join(map(str, seeds))
            measured = Cell(entry.measured) if entry.measured else Cell(entry.note or claims.NO_RESULT)
            first = (line.table.name, f"{line.claim.text} ({line.claim.holds})") if number == 0 else ("", "")
            where = f"{entry.profile} ({entry.dataset}, {entry.split})"
            rest = (Cell(where), Cell(entry.verdict), measured, Cell(count), Cell(line.claim.source))
            rows.append(Row((*words(first), *rest), number == 0))
    heads = {"table": 0.8, "claim": 2.0, "profile": 1.0, "verdict": 0.6, "measured": 1.4, "seeds": 0.3, "source": 1.4}
    columns = tuple(Column(head, kind="text", share=share) for head, share in heads.items())
    grid = Grid("claims", "", columns, tuple(rows))
    counted = []
    for is_paper, where in ((False, "On other data than the paper's"), (True, "On the paper's data")):
        tally: Mapping[str, int] = claims.counts(lines, is_paper)
        counted.append(f"{where}: {', '.join(f'{n} {verdict}' for verdict, n in tally.items()) or 'nothing'}.")
    return grid, tuple(counted)
