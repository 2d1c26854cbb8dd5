"""From a table to trials: which configs, which directories, what is done, what is missing."""

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation import identity, records, sharing, signature, sources, stages
from rislab.ablation.compatibility import check_batches
from rislab.ablation.configs import STAGE, Configs, merged, put, seed_key, stages_of, with_outputs
from rislab.ablation.integrity import Finding
from rislab.ablation.stages import Stage, Takes
from rislab.ablation.table import Profile, Row, Table
from rislab.ablation.trial import State, TrialDir
from rislab.errors import ConfigError, DataError
from rislab.files import write_json, write_text

__all__ = [
    "Cost",
    "Planned",
    "answered_by",
    "distinct",
    "expected",
    "expected_seconds",
    "merged",
    "missing_data",
    "orphans",
    "plan",
    "states",
]


MEASURED = records.Record(
    {"seconds": records.Mapped(records.POSITIVE)},
    {"peak_gpu_memory_mb": records.PROVENANCE.optional["peak_gpu_memory_mb"]},
)
"""What of a provenance.json says how much a trial took."""


Group = tuple[str, str, str, str]
"""What cells of several seeds share: table, row, fold, stage."""


@dataclass(eq=False)
class Planned:
    """A row with a seed and, where it has several, a fold and a stage: its config, and the directory of its trial.

    Attributes:
        config: Shares its parts with other cells' configs; nothing in it may be changed in place.
        directory: The trial's directory.
        parent: What it starts from.
        takes: what it takes of that.
        is_last: Whether this is the stage that the row's cells show.
        shared_with: The table in whose folder the trial lies, where that is not its own.
        metric: What it is watched by, the first of the table's that its stage is scored with; "" for one that is not scored.
        split: Where that is measured.
        fold: Of the profile's folds; "" where it has none.
        of_table: Names its table where trials of several tables are run together; else "".
    """

    row: Row
    seed: int
    config: dict[str, Any]
    hash: str
    directory: Path
    stage: str = ""
    parent: "Planned | None" = None
    takes: Takes = ""
    is_last: bool = True
    shared_with: str = ""
    metric: str = ""
    split: str = ""
    fold: str = ""
    of_table: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.of_table, self.row.name, f"s{self.seed}", self.fold, self.stage)))

    @property
    def group(self) -> Group:
        """What it shares with the same cell of other seeds."""
        return self.of_table, self.row.name, self.fold, self.stage

    @cached_property
    def trial(self) -> TrialDir:
        return TrialDir(self.directory, self.hash)

    @property
    def identity(self) -> dict[str, Any]:
        """What was hashed."""
        parent = self.parent.hash if self.parent else None
        return identity.identity(self.config, parent, self.takes == "outputs")

    @property
    def produces(self) -> bool:
        """Whether it makes files for a later stage instead of training."""
        return _produces(self.config)

    @property
    def state(self) -> State:
        return self.trial.state()

    def stale(self, recorded: Mapping[str, Any] | None = None) -> list[str]:
        """Source files that have changed since the trial was begun; empty where that is not known.

        Args:
            recorded: identity.json, where it has been read already.
        """
        if recorded is None:
            recorded = _record(self.trial.identity, records.IDENTITY) or {}
        before = recorded.get("sources", {})
        return sources.changed(before, self.config) if isinstance(before, dict) else []

    @property
    def can_split(self) -> bool:
        """Whether a batch may be computed in parts without changing what is learned."""
        model = self.config["model"]
        known = signature.read(model["class_path"])
        needed = known.splits_batches.get(self.stage if known.stages else "")
        return needed is not None and needed.items() <= model["init_args"].items()

    def write(self) -> None:
        """Create the trial's directory with its config and identity; what it starts from must have been written before.

        When another table has begun the same trial since this one was planned, it is that table's directory from now on.
        The config of an existing one is brought up to date, since the data may lie elsewhere today; its identity, with
        the sources that the trial was begun with, stays; so does everything of one that has a result.

        Raises:
            ConfigError: When the directory is another trial's, damaged, or closed to us.
        """
        self._settle()
        state, found = self.trial.inspect()
        if found.suspect:
            raise ConfigError(f"{self.trial.path} is {state}: {found.reason}; move it away")
        if state == "done":
            return
        write_text(self.trial.config, yaml.safe_dump(self.config, sort_keys=False))
        if not self.trial.identity.exists():
            write_json(
                self.trial.identity,
                {
                    "hash": self.hash,
                    "config": self.identity,
                    "sources": sources.sources(self.config),
                },
            )

    def _settle(self) -> None:
        """Be in the one directory that is this hash's, here and for what starts from it."""
        if not self.directory.exists():
            owner = sharing.claim(self.directory.parents[1], self.hash, self.directory)
            if owner != self.directory:
                self.directory, self.trial, self.shared_with = owner, TrialDir(owner, self.hash), owner.parent.name
        self.config = _placed(self.config, self.directory, self.parent, self.takes)


def _placed(config: dict[str, Any], directory: Path, parent: Planned | None, takes: Takes) -> dict[str, Any]:
    """The config with what depends on where trials lie."""
    if parent is not None and takes == "outputs":
        config = with_outputs(config, parent.trial.outputs.folder)
    elif parent is not None:
        config = put(config, "trial.start_from", str(parent.trial.checkpoints / "best.ckpt"))
    return put(config, "trainer.default_root_dir", str(directory))


def plan(
    table: Table,
    profile: Profile,
    seeds: Sequence[int],
    runs: Path,
    rows: Iterable[str] | None = None,
    data: str | None = None,
) -> list[Planned]:
    """One entry a row, seed, fold and stage, in the table's order, stages in theirs. Nothing is written.

    A trial that has been begun in another table's folder below `runs` is used where it lies.

    Args:
        rows: names, or None for all.
        data: where the data set lies, instead of what the config says.
    """
    chosen = [profile.of(row) for row in (map(table.row, rows) if rows is not None else table.rows)]
    configs, shared, folder = Configs(profile, data), sharing.SharedDirectories(runs), runs / table.name
    planned: list[Planned] = []
    first: dict[str, Planned] = {}
    for row in chosen:
        chain = _chain(configs, row)
        for seed, (fold, of_fold) in product(seeds, (profile.folds or {"": {}}).items()):
            before: dict[str, Planned] = {}
            for stage in chain:
                parent = before.get(stage.parent)
                config, digest = configs.cell(row, seed, stage, parent.hash if parent else None, of_fold)
                if seed == seeds[0]:
                    check_batches(config)
                if digest in first:
                    directory = first[digest].directory
                else:
                    name = "--".join(filter(None, (row.name, fold, stage.name)))
                    directory = shared.find(digest, folder / f"{name}--s{seed}--{digest[:8]}")
                folder_of_it = directory.parent.name
                cell = Planned(
                    row,
                    seed,
                    _placed(config, directory, parent, stage.takes),
                    digest,
                    directory,
                    stage.name,
                    parent,
                    stage.takes,
                    is_last=stage is chain[-1],
                    shared_with="" if folder_of_it == table.name else folder_of_it,
                    metric="" if _is_unscored(config) else _watched(table.metrics, stage.name, stage is chain[-1]),
                    split=stage.split or profile.split,
                    fold=fold,
                )
                planned.append(cell)
                # What starts from this stage starts from the directory in which it is trained, be it another row's.
                before[stage.name] = first.setdefault(cell.hash, cell)
    return planned


def _watched(metrics: Sequence[str], stage: str, is_last: bool) -> str:
    """The bare name of the first metric that the table shows of a stage, or else of the first metric of all."""
    named = [metric.rpartition(":")[::2] for metric in metrics]
    return next((bare for of, bare in named if of == stage or (is_last and not of)), named[0][1] if named else "")


def _produces(config: Mapping[str, Any]) -> bool:
    class_path = config["model"]["class_path"]
    return signature.is_described(class_path) and signature.read(class_path).produces


def _is_unscored(config: Mapping[str, Any]) -> bool:
    """Whether a stage makes files that nothing scores."""
    return _produces(config) and not signature.read(config["model"]["class_path"]).scored


def _chain(configs: Configs, row: Row) -> tuple[Stage, ...]:
    """The stages of a row: those that the profile lists or the method declares, or the one that the row or the config sets."""
    profile, base = configs.profile, configs.base()
    if not profile.stages and not stages_of(base):
        return stages.ONLY
    known = profile.stages or stages.declared(base["model"]["class_path"])
    alone = row.switches.get(STAGE) if stages_of(base) else None
    if alone is None and not profile.stages:
        alone = base["model"].get("init_args", {}).get("stage")
    if alone is not None:
        config = next((stage.config for stage in known if stage.name == alone), ())
        return (Stage(str(alone), config),)
    return stages.without(known, row.without) if row.without else known


def distinct(planned: Iterable[Planned]) -> list[Planned]:
    """The first of those that share an identity: rows that resolve to one config are one trial."""
    return list({cell.hash: cell for cell in reversed(list(planned))}.values())[::-1]


def answered_by(planned: Sequence[Planned]) -> dict[str, Planned]:
    """Cell name -> the cell whose trial answers it."""
    first = {cell.hash: cell for cell in reversed(planned)}
    return {cell.name: first[cell.hash] for cell in planned}


def states(planned: Iterable[Planned]) -> list[State]:
    """State of each; directories that are not there are not looked into."""
    return [state for state, _ in inspected(planned)]


def inspected(planned: Iterable[Planned]) -> list[tuple[State, Finding]]:
    """The same, with what was found in each directory."""
    there: dict[Path, set[str] | None] = {}
    found: dict[str, tuple[State, Finding]] = {}
    result: list[tuple[State, Finding]] = []
    for cell in planned:
        if cell.hash not in found:
            folder = cell.directory.parent
            if folder not in there:
                # A folder that may not be listed may still be looked into.
                is_open = os.access(folder, os.R_OK) or not os.path.lexists(folder)
                there[folder] = set(sharing.listed(folder)) if is_open else None
            names = there[folder]
            is_there = names is None or cell.directory.name in names
            found[cell.hash] = cell.trial.inspect() if is_there else ("pending", Finding())
        result.append(found[cell.hash])
    return result


def orphans(table: Table, planned: Sequence[Planned], runs: Path) -> list[Path]:
    """Trial directories of rows that the table no longer has, and whose trials none needs. Nothing happens to them."""
    rows = {row.name for row in table.rows}
    used = {cell.directory for cell in planned}
    folder = runs / table.name
    names = [n for n in sharing.listed(folder) if n.count("--") >= 2 and n.split("--")[0] not in rows]
    return sorted(path for path in (folder / name for name in names) if path not in used and os.path.isdir(path))  # noqa: PTH112  # no error for one that is closed to us


@dataclass(frozen=True)
class Cost:
    """What a trial takes: seconds from start to result, and MiB of each GPU (0 on the CPU)."""

    seconds: float
    gpu_mb: float


def expected(planned: Sequence[Planned], among: Sequence[Planned] = ()) -> dict[str, Cost | None]:
    """What each cell should take, by name: what the same config took with any seed; None when never measured.

    Args:
        among: further cells of the table, from which it may be known.
    """
    requested = {cell.group: cell for cell in planned}
    by_group: dict[Group, dict[str, Planned]] = {}
    for cell in (*planned, *among):
        if cell.group in requested:
            by_group.setdefault(cell.group, {})[cell.hash] = cell
    names: dict[Path, dict[str, list[str]]] = {}
    by_hash: dict[str, Cost] = {}
    means: dict[Group, Cost] = {}
    for key, cells in by_group.items():
        found = {digest: cost for digest, cell in cells.items() if (cost := _measured(cell.directory)) is not None}
        by_hash |= found
        costs = list(found.values())
        if not costs:
            folder = requested[key].directory.parent
            if folder not in names:
                names[folder] = _by_row(folder)
            candidates = [folder / name for name in names[folder].get("--".join(filter(None, key[1:])), ())]
            costs = _of_other_seeds(requested[key], candidates)
        if costs:
            means[key] = Cost(sum(cost.seconds for cost in costs) / len(costs), max(cost.gpu_mb for cost in costs))
    return {cell.name: means.get(cell.group, by_hash.get(cell.hash)) for cell in planned}


def expected_seconds(planned: Sequence[Planned], among: Sequence[Planned] = ()) -> dict[str, float | None]:
    return {name: cost.seconds if cost is not None else None for name, cost in expected(planned, among).items()}


def _by_row(folder: Path) -> dict[str, list[str]]:
    """Names of trial directories by their row, fold and stage."""
    found: dict[str, list[str]] = {}
    for name in sharing.listed(folder):
        found.setdefault(name.rsplit("--", 2)[0], []).append(name)
    return found


def _of_other_seeds(cell: Planned, candidates: Iterable[Path]) -> list[Cost]:
    """What finished trials took that differ from a cell in nothing but their seed."""
    wanted, found = None, []
    for path in candidates:
        cost = _measured(path)
        recorded = _record(path / "identity.json", records.IDENTITY) if cost is not None else None
        if cost is None or recorded is None:
            continue
        wanted = wanted or _unseeded(cell.identity)
        if _unseeded(recorded.get("config", {})) == wanted:
            found.append(cost)
    return found


def _record(path: Path, shape: records.Shape) -> Any:
    """A record for an estimate: None for one that is not there, damaged or closed to us; its trial's state says so elsewhere."""
    try:
        return records.load(path, shape)
    except (records.DamagedError, OSError):
        return None


def _measured(path: Path) -> Cost | None:
    """What a finished trial took, all its starts together."""
    provenance = _record(path / "provenance.json", MEASURED)
    if not provenance or not provenance["seconds"] or not (path / "metrics.json").exists():
        return None
    return Cost(sum(provenance["seconds"].values()), provenance.get("peak_gpu_memory_mb") or 0.0)


def _unseeded(config: dict[str, Any]) -> str:
    """What two trials that differ in their seed alone have in common."""
    data = config.get("data")
    if isinstance(data, dict) and isinstance(data.get("init_args"), dict):
        seed = seed_key(data).rpartition(".")[2]
        data = data | {"init_args": {key: value for key, value in data["init_args"].items() if key != seed}}
    return identity.digest({**config, "data": data, "seed_everything": None, "parent": None})


def missing_data(planned: Iterable[Planned]) -> list[str]:
    """What of real data sets is not there, as paths, each once; nothing for worlds that generate themselves."""
    return sorted(_missing(planned))


def _missing(planned: Iterable[Planned]) -> dict[str, str]:
    """Path of what is not there -> where to get it. Every data class, at any depth, says what it needs."""
    parts = {id(cell.config["data"]): cell.config["data"] for cell in planned}
    needs = {json.dumps(need, sort_keys=True, default=str): need for part in parts.values() for need in _needs(part)}
    found: dict[str, str] = {}
    for function, options in needs.values():
        module, _, name = function.rpartition(".")
        for each in getattr(importlib.import_module(module), name)(options):
            found[each.path] = each.get
    return found


def _needs(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(function that knows what must be there, options) of a class in a config, and of those inside it."""
    if not isinstance(part, dict):
        return
    class_path, options = part.get("class_path"), part.get("init_args") or {}
    is_ours = signature.is_described(class_path)
    function = signature.read(class_path).required_files if is_ours else ""
    if function:
        yield function, options
    for value in (options if class_path else part).values():
        yield from _needs(value)


def require_data(planned: Sequence[Planned], profile: Profile) -> None:
    """Raises DataError that says what to put where, and how to say where it is."""
    absent = _missing(planned)
    if absent:
        listed = "\n  ".join(sorted(absent))
        raise DataError(
            f"profile {profile.name!r} needs {profile.dataset}, and this is not there:\n  {listed}\n"
            f"{' '.join(dict.fromkeys(absent.values()))} Another place: --data DIR, or DATA=DIR with make."
        )
