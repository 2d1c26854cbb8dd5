"""What finished trials and cells of matrices have scored: whose weights, on which benchmark, by which protocol."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rislab.ablation import identity, plan, records, signature, table
from rislab.ablation.integrity import sha256
from rislab.ablation.plan import Planned
from rislab.ablation.published import FullRow, PaperFile
from rislab.ablation.schema import METRICS
from rislab.ablation.sharing import listed
from rislab.ablation.table import Profile, Table
from rislab.ablation.trial import TrialDir
from rislab.ablation.yaml_lines import read_yaml
from rislab.errors import ConfigError
from rislab.evaluation.arithmetic import protocol_of
from rislab.moved_names import with_options_moved
from rislab.report.claims import begun_seeds
from rislab.report.results import collect

_CELL = re.compile(r"(?P<method>.+?)--(?P<benchmark>.+)--[0-9a-f]{8}")
REFUSED = " cannot be scored on "
"""Of the message of a method that a benchmark is no question for; what follows the colon says why."""
OFFICIAL = "official"
"""Folder below that of the matrix: official weights in our form, `METHOD--FILE--SHA8.ckpt`."""


@dataclass(frozen=True)
class Weights:
    """Whose weights were scored.

    Attributes:
        source: `ours` (the whole method of a table), `official` (the authors' release), `other` (another checkpoint).
        label: the row and table, or the file.
        key: what is the same for all seeds of one row and profile.
        seed: of ours; None else.
    """

    source: str
    label: str
    key: str
    seed: int | None = None


@dataclass(frozen=True)
class Score:
    """One method on one benchmark and split.

    Attributes:
        values: percent, by metric; empty for a cell without a result.
        protocol: of rislab; "" without a result.
        reason: why there is no result.
        directory: where the evidence lies, no machine's path.
    """

    method: str
    weights: Weights
    benchmark: str
    split: str
    protocol: str
    values: Mapping[str, float]
    reason: str
    directory: str


@dataclass(frozen=True)
class Training:
    """The row that is a method, in one profile, as far as it has been trained.

    Attributes:
        planned: its last stage (or the one that the method is), a trial a seed.
        chain: all its stages.
        benchmark: which one the profile's own scores belong to; "" for data that are no benchmark of experiments/benchmarks.
        expected: whether the row should be trained for this report: the profile that was chosen.
    """

    method: str
    table: Table
    profile: Profile
    full: FullRow
    planned: tuple[Planned, ...]
    chain: tuple[Planned, ...]
    benchmark: str
    expected: bool

    @property
    def needs_training(self) -> bool:
        """Whether there are weights of its own to score; a method without is scored as its recipe builds it."""
        model = self.planned[0].config["model"]
        return not signature.trains_nothing(model["class_path"], model.get("init_args") or {})

    @property
    def command(self) -> str:
        """What trains it."""
        seeds = sorted(cell.seed for cell in self.planned)
        given = str(len(seeds)) if seeds == list(range(len(seeds))) else ",".join(map(str, seeds)) + ","
        return (
            f"rislab ablate run {self.full.table} --profile {self.profile.name} --rows {self.full.row} --seeds {given}"
        )

    @property
    def label(self) -> str:
        """The row as its table prints it, with table and profile."""
        return f"{self.table.row(self.full.row).label} ({self.full.table}, {self.profile.name})"

    @property
    def missing(self) -> str:
        """`pending (seeds 0, 1)`: states and reasons of the trials that are not done; "" where all are."""
        seeds: dict[str, list[int]] = {}
        for cell in self.planned:
            state, look = cell.trial.inspect()
            if state != "done":
                why = look.reason if look.suspect else str(cell.trial.status().get("error") or "")
                seeds.setdefault(f"{state}: {why}" if why else state, []).append(cell.seed)
        return "; ".join(
            f"{said} (seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))})" for said, of in seeds.items()
        )


@dataclass
class Scored:
    """All scores, and what was left out of them.

    Attributes:
        left_out: directories that are no cells of a matrix, or cannot be read, each with its reason.
    """

    scores: list[Score] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def trainings(
    papers: Iterable[PaperFile], runs: Path, seeds: Sequence[int], folder: Path = Path("ablations")
) -> list[Training]:
    """The whole method of each paper, with the chosen seeds and any other that has been begun. Raises ConfigError."""
    started = begun_seeds(runs)
    found = []
    for paper in papers:
        full = paper.full
        if full is None:
            continue
        loaded = table.load(table.find(full.table))
        loaded.row(full.row)
        unknown = [name for name in (full.profile, *full.measured) if name not in loaded.profiles]
        if unknown:
            raise ConfigError(f"{folder}/papers/{paper.method}.yaml: {full.table} has no profile {unknown[0]!r}")
        for name in dict.fromkeys((full.profile, *full.measured)):
            expected = name == full.profile
            chosen = sorted({*(seeds if expected else ()), *started.get(full.row, ())})
            cells = plan.plan(loaded, loaded.profile(name), chosen, runs, [full.row]) if chosen else []
            kept = [cell for cell in cells if (cell.stage == full.stage if full.stage else cell.is_last)]
            kept = [cell for cell in kept if (expected and cell.seed in seeds) or cell.trial.metrics_file.exists()]
            if kept:
                benchmark = full.measured.get(name, "")
                found.append(
                    Training(
                        paper.method, loaded, loaded.profile(name), full, tuple(kept), tuple(cells), benchmark, expected
                    )
                )
    return found


def scored(trained: Sequence[Training], matrix: Path, benchmarks: Mapping[str, Any]) -> Scored:
    """Scores of the trials themselves on a paper's data, and of all cells of the matrix.

    Args:
        trained: the whole methods.
        matrix: folder of cells.
        benchmarks: the data part of each benchmark's config, by name; cells of other ones are left out.
    """
    found = Scored()
    current = {name: identity.identity({"data": data})["data"] for name, data in benchmarks.items()}
    for training in trained:
        if training.benchmark:
            found.scores += _of_trials(training)
    owners = {digest: weights for training in trained for digest, weights in _checkpoints(training)}
    known = {_key(score) for score in found.scores}
    for name in sorted(listed(matrix)):
        match = _CELL.fullmatch(name)
        if match is None:
            continue
        try:
            score = _of_cell(matrix / name, match["method"], match["benchmark"], current, owners)
            if _key(score) in known:
                raise ConfigError(
                    "the same weights were scored on the same benchmark by their own trial, or by another cell"
                )
        except (ConfigError, OSError, records.DamagedError) as error:
            found.left_out.append(f"{name}: {error}")
        else:
            known.add(_key(score))
            found.scores.append(score)
    return found


def _key(score: Score) -> tuple[Any, ...]:
    """What may count once: the same weights, seed, benchmark, split and protocol."""
    return score.method, score.weights.key, score.weights.seed, score.benchmark, score.split, score.protocol


def _of_trials(training: Training) -> Iterator[Score]:
    """The scores that finished trials have written of their profile's split, checked against their counts as reports do."""
    kept = {cell.hash for cell in training.planned}
    seeds = [cell.seed for cell in training.planned]
    for row in collect(training.table, training.profile, seeds, training.chain).rows:
        for cell in row.done:
            if cell.planned.hash in kept:
                weights, where = _ours(training, cell.planned), cell.planned.directory
                yield _score(training.method, weights, training.benchmark, cell.metrics, cell.planned.split, where)


def _ours(training: Training, cell: Planned) -> Weights:
    return Weights("ours", training.label, f"{training.method} {training.full.row} {training.profile.name}", cell.seed)


def _checkpoints(training: Training) -> Iterator[tuple[str, Weights]]:
    """sha256 of every checkpoint of a finished trial."""
    for cell in training.planned:
        best = cell.trial.checkpoints / "best.ckpt"
        with suppress(OSError):  # closed to us, or taken away by another process this moment
            if cell.trial.metrics_file.exists() and best.is_file():
                yield digest_of(best), _ours(training, cell)


def digest_of(path: Path) -> str:
    """sha256 of a file, computed once for each state of it."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    return sha256(path)


def _of_cell(
    folder: Path, method: str, benchmark: str, benchmarks: Mapping[str, Any], owners: Mapping[str, Weights]
) -> Score:
    """A cell of a matrix. Raises ConfigError for one that does not fit, OSError and DamagedError for one that cannot be read.

    Args:
        benchmarks: what of each benchmark's config is hashed.
        owners: whose weights a sha256 is.
    """
    recorded = records.load(folder / "identity.json", records.IDENTITY)
    if recorded is None:
        raise ConfigError("no identity.json: a cell of an earlier release")
    if benchmark not in benchmarks:
        raise ConfigError(f"no benchmark {benchmark!r} in experiments/benchmarks")
    # An option that was the data's first and is the model's today is hashed among the data.
    held = with_options_moved({"data": recorded.get("config", {}).get("data")})["data"]
    if identity.digest(held) != identity.digest(benchmarks[benchmark]):
        raise ConfigError(f"scored by another config than today's of {benchmark}")
    trial = TrialDir(folder, recorded["hash"])
    state, look = trial.inspect(thorough=True)
    weights = _whose(recorded.get("config", {}), read_yaml(folder / "config.yaml"), owners)
    if state != "done":
        why = look.reason if look.suspect else str(trial.status().get("error") or "")
        whose, _, why_not = why.partition(": ")
        # A refusal is an answer, not a fault, and one for all benchmarks of a kind.
        said = f"cannot be scored: {why_not}" if REFUSED in whose and why_not else f"{state}: {why}"
        reason = said if why else state
        return Score(method, weights, benchmark, "", "", {}, reason, folder.name)
    split = next(iter(look.result.get("splits", {})), "")
    return _score(method, weights, benchmark, look.result, split, folder)


def _whose(hashed: Mapping[str, Any], config: Any, owners: Mapping[str, Weights]) -> Weights:
    """Of a cell: from its identity, and from what its config says of the checkpoint. Raises ConfigError for what is neither."""
    parent = hashed.get("parent")
    if parent is None:
        clip = _within(hashed, "model", "init_args", "clip")
        trunk = f"{clip.get('name')} {clip.get('pretrained') or 'without pretrained weights'}" if clip else ""
        key = f"untrained {trunk} {identity.digest(hashed.get('model'))}"
        return Weights("ours", f"no training, {trunk}" if trunk else "no training", key)
    if not isinstance(parent, str):
        raise ConfigError("identity.json: `parent` is no sha256")
    if parent in owners:
        return owners[parent]
    start = Path(str(_within(config, "trial").get("start_from") or "checkpoint"))
    if start.parent.name == OFFICIAL:
        label = start.stem.split("--")[1] if start.stem.count("--") == 2 else start.stem
        return Weights("official", label, f"official {parent}")
    return Weights("other", f"{'/'.join(start.parts[-3:])} ({parent[:8]})", f"other {parent}")


def _within(content: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping below some keys; empty where there is none, as in a file of another tool."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _score(method: str, weights: Weights, benchmark: str, result: Mapping[str, Any], split: str, folder: Path) -> Score:
    found = result.get("splits", {}).get(split, {})
    values = {name: float(value) for name, value in found.items() if name in METRICS}
    reason = "" if values else f"no score of split {split!r}"
    where = "/".join(folder.parts[-2:])
    return Score(method, weights, benchmark, split, protocol_of(result), values, reason, where)
