"""What `rislab compare --run` does before the report: train, score and measure what is missing."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rislab.ablation import plan, table
from rislab.ablation.published import FullRow, Published
from rislab.cli import matrix
from rislab.cli.ablate.run_view import RunView
from rislab.cli.console import open_console
from rislab.errors import ConfigError, RislabError
from rislab.launch.table_run import Request, TableRun, run_together
from rislab.report.comparison.build import Places
from rislab.report.matrix import Cell


@dataclass(frozen=True)
class Candidate:
    """A method as it is scored: with a checkpoint, or as its recipe builds it. checkpoint: None for the recipe alone."""

    method: str
    checkpoint: Path | None


def run_missing(
    known: Published, options: argparse.Namespace, places: Places, benchmarks: Sequence[str]
) -> list[str] | None:
    """Run what is missing for the chosen methods; a method that fails hides no other.

    Returns:
        What went wrong, a line each; None when the user stopped it.

    Raises:
        ConfigError: An unknown benchmark, or a file of checkpoints that cannot be read.
    """
    data = {name: matrix.benchmark_data(name, options.data) for name in benchmarks}
    further, problems = _further(options.checkpoints, known, places.matrix)
    runs: list[tuple[str, FullRow, TableRun]] = []
    for paper in known.methods:
        if paper.full is not None:
            try:
                runs.append((paper.method, paper.full, _row(paper.full, options, places)))
            except RislabError as error:
                problems.append(f"{paper.method}: {error}")
    codes = _train([run for *_, run in runs], problems)
    if 130 in codes:
        return None
    problems += [
        f"{method}: not all of row {full.row} of {full.table} are done"
        for (method, full, _), code in zip(runs, codes, strict=True)
        if code
    ]
    cells: list[Cell] = []
    for candidate in (*_trained(known, options, places), *further):
        cells += _cells(candidate, data, places.matrix, problems)
    if matrix.score([cell for cell in cells if options.retry or not _is_refused(cell)], options.jobs):
        return None
    problems += [
        f"{cell.name} is {state}" for cell in cells if (state := cell.trial.state()) != "done" and not _is_refused(cell)
    ]
    problems += _measure(known, places.costs)
    for line in problems:
        open_console().print(line, style="red", markup=False, soft_wrap=True)
    return problems


def _is_refused(cell: Cell) -> bool:
    """Whether the pair cannot be scored, as a closed vocabulary on sentences: an answer, not a fault."""
    return cell.trial.state() == "failed" and cell.trial.status().get("kind") == "config"


def _planned(
    full: FullRow, options: argparse.Namespace, places: Places
) -> tuple[table.Table, table.Profile, list[plan.Planned]]:
    """The row that is a method, with the chosen seeds."""
    loaded = table.load(table.find(full.table))
    profile = loaded.profile(full.profile)
    data = options.data if profile.is_paper_dataset else None
    return loaded, profile, plan.plan(loaded, profile, range(options.seeds), places.runs, [full.row], data)


def _row(full: FullRow, options: argparse.Namespace, places: Places) -> TableRun:
    """The run of the row that is a method, by its own table, as `ablate run` has it."""
    loaded, profile, planned = _planned(full, options, places)
    request = Request(places.runs, full.table, options.jobs, retry=options.retry)
    return TableRun(loaded, profile, plan.distinct(planned), request, RunView())


def _train(runs: Sequence[TableRun], problems: list[str]) -> list[int]:
    """Run what is missing of all in one pool; where that cannot be started, one by one. Returns an exit code for each."""
    try:
        return run_together(runs)
    except RislabError:
        codes = []
        for run in runs:
            try:
                codes.append(run.run())
            except RislabError as error:
                problems.append(f"{run.request.table}: {error}")
                codes.append(0)
        return codes


def _trained(known: Published, options: argparse.Namespace, places: Places) -> Iterator[Candidate]:
    """The checkpoints of the rows that are done, and methods that need none."""
    for paper in known.methods:
        full = paper.full
        if full is None:
            yield Candidate(paper.method, None)
            continue
        _, _, cells = _planned(full, options, places)
        for cell in cells:
            if not (cell.stage == full.stage if full.stage else cell.is_last):
                continue
            best = cell.trial.checkpoints / "best.ckpt"
            if matrix.is_training_free(cell.config["model"]["class_path"]):
                yield Candidate(paper.method, None)
                break
            if cell.state == "done" and best.is_file():
                yield Candidate(paper.method, best)


def _further(file: Path | None, known: Published, folder: Path) -> tuple[list[Candidate], list[str]]:
    """What a file of checkpoints names: official weights in our form, checkpoints and recipes as they are.

    Returns:
        What can be scored, and what is wrong with the rest, a line each.
    """
    found, wrong = [], []
    for method, given in matrix.read_checkpoints(file).items():
        known.of(method)
        try:
            found.append(Candidate(method, matrix.weights(method, given, file or Path(), folder)))
        except RislabError as error:
            wrong.append(f"{method}: {error}")
    return found, wrong


def _cells(
    candidate: Candidate, data: Mapping[str, dict[str, Any]], folder: Path, problems: list[str]
) -> Iterator[Cell]:
    """A cell for each benchmark that the method's trunk may be scored on; why it may not on others goes to `problems`."""
    method, checkpoint = candidate.method, candidate.checkpoint
    try:
        model = matrix.model_of(method, checkpoint)
        trunk = matrix.trunk_of(model)
    except RislabError as error:
        problems.append(f"{method}: {error}")
        return
    for name, content in data.items():
        try:
            matrix.require_trunk(method, model, checkpoint, name, content)
        except ConfigError as error:
            problems.append(str(error))
            continue
        yield matrix.cell_of(folder, method, model, name, content, checkpoint, trunk)


def _measure(known: Published, folder: Path) -> list[str]:
    """Measure what has no file of costs yet. Returns what went wrong, a line each; the files say why a cell has no number."""
    from rislab.bench import cost

    wrong = []
    for paper in known.methods:
        try:
            for subject in cost.subjects(paper):
                if not cost.is_measured(subject, folder):
                    cost.save(subject, folder)
        except RislabError as error:
            wrong.append(f"cost of {paper.method}: {error}")
    return wrong
