"""What `rislab compare --run` does before the report: train, score and measure what is missing."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rislab.ablation import plan, table
from rislab.ablation.integrity import sha256
from rislab.ablation.published import FullRow, Published
from rislab.cli import matrix
from rislab.cli.ablate.run_view import RunView
from rislab.cli.console import open_console
from rislab.errors import ConfigError, RislabError, nearest
from rislab.launch.table_run import Request, TableRun
from rislab.report.comparison.build import Places
from rislab.report.comparison.scores import OFFICIAL
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
    for paper in known.methods:
        if paper.full is not None:
            try:
                code = _train(paper.full, options, places)
            except RislabError as error:
                problems.append(f"{paper.method}: {error}")
                continue
            if code == 130:
                return None
            if code:
                problems.append(f"{paper.method}: not all of row {paper.full.row} of {paper.full.table} are done")
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


def _train(full: FullRow, options: argparse.Namespace, places: Places) -> int:
    """Run the row that is a method by its own table, as `ablate run` does. Returns its exit code."""
    loaded = table.load(table.find(full.table))
    profile = loaded.profile(full.profile)
    planned = plan.plan(loaded, profile, range(options.seeds), places.runs, [full.row], options.data)
    request = Request(places.runs, full.table, options.jobs, retry=options.retry)
    return TableRun(loaded, profile, plan.distinct(planned), request, RunView()).run()


def _trained(known: Published, options: argparse.Namespace, places: Places) -> Iterator[Candidate]:
    """The checkpoints of the rows that are done, and methods that need none."""
    for paper in known.methods:
        full = paper.full
        if full is None:
            yield Candidate(paper.method, None)
            continue
        loaded = table.load(table.find(full.table))
        cells = plan.plan(
            loaded, loaded.profile(full.profile), range(options.seeds), places.runs, [full.row], options.data
        )
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
    for method, given in _read(file).items():
        known.of(method)
        try:
            found.append(_candidate(method, given, file or Path(), folder))
        except RislabError as error:
            wrong.append(f"{method}: {error}")
    return found, wrong


def _candidate(method: str, given: Any, file: Path, folder: Path) -> Candidate:
    if isinstance(given, str):
        return Candidate(method, matrix.beside(file, given))
    if not isinstance(given, dict) or given.keys() != {"official", "config"}:
        keys = ("official", "config")
        strange = next((key for key in given if key not in keys), None) if isinstance(given, dict) else None
        hint = f": no key {strange!r}{nearest(str(strange), keys)}" if strange is not None else ""
        raise ConfigError(f"{file}: {method}: expected a path, or {{official: FILE, config: RECIPE.yaml}}{hint}")
    from rislab.training.official_weights import as_checkpoint

    release, recipe = matrix.beside(file, given["official"]), Path(given["config"])
    if not release.is_file():
        raise ConfigError(f"{file}: {method}: no file {release}")
    stem = release.stem.replace("--", "-")
    target = folder / OFFICIAL / f"{method}--{stem}--{sha256(release)[:8]}.ckpt"
    if not target.exists():
        as_checkpoint(release, recipe if recipe.is_file() else matrix.beside(file, given["config"]), target)
    return Candidate(method, target)


def _read(file: Path | None) -> Mapping[str, Any]:
    from rislab.ablation.yaml_lines import read_yaml

    content = {} if file is None else read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file}: expected `method: path` or `method: {{official: FILE, config: RECIPE}}` on each line"
        )
    return content


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
