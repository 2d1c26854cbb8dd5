"""From a table to trials: which configs, which directories, what is done, what is missing."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation import identity, sharing, signature
from rislab.ablation.configs import STAGE, Configs, merged, put
from rislab.ablation.table import Profile, Row, Table
from rislab.ablation.trial import State, TrialDir
from rislab.errors import ConfigError, DataError
from rislab.files import read_json, write_json, write_text
from rislab.paths import user_path

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


@dataclass(eq=False)
class Planned:
    """A row with a seed and, where a method has several, a stage: its config, and the directory of its trial.

    config: shares its parts with other cells' configs; nothing in it may be changed in place. place: the trial's directory.
    parent: what it starts from. is_last: whether this is the stage that the row's cells show.
    shared_with: the table in whose folder the trial lies, where that is not its own.
    metric: what it is watched by, the first of the table's that its stage is scored with; split: where that is measured.
    """

    row: Row
    seed: int
    config: dict[str, Any]
    hash: str
    place: Path
    stage: str = ""
    parent: "Planned | None" = None
    is_last: bool = True
    shared_with: str = ""
    metric: str = ""
    split: str = ""

    @property
    def name(self) -> str:
        return f"{self.row.name} s{self.seed}" + (f" {self.stage}" if self.stage else "")

    @cached_property
    def trial(self) -> TrialDir:
        return TrialDir(self.place)

    @property
    def identity(self) -> dict[str, Any]:
        """What was hashed."""
        return identity.identity(self.config, self.parent.hash if self.parent else None)

    @property
    def state(self) -> State:
        return self.trial.state()

    def stale(self) -> list[str]:
        """Source files that have changed since the trial was made; empty for a trial that is not done."""
        recorded = read_json(self.trial.identity)
        made_with = recorded.get("sources") if isinstance(recorded, dict) else None
        if not isinstance(made_with, dict):
            return []
        return identity.changed_sources(made_with, self.config["model"]["class_path"])

    @property
    def can_split(self) -> bool:
        """Whether a batch may be computed in parts without changing what is learned."""
        model = self.config["model"]
        needed = signature.read(model["class_path"]).splits_batches.get(self.stage)
        return needed is not None and needed.items() <= model["init_args"].items()

    def write(self) -> None:
        """Create the trial's directory with its config and identity; what it starts from must have been written before.

        When another table has begun the same trial since this one was planned, it is that table's directory from now on.
        The config of an existing one is brought up to date, since the data may lie elsewhere today; its identity, with
        the sources that the trial was begun with, stays. Raises ConfigError when the directory is another trial's.
        """
        self._settle()
        recorded = read_json(self.trial.identity)
        if isinstance(recorded, dict) and recorded.get("hash") != self.hash:
            raise ConfigError(f"{self.trial.path} belongs to a trial with hash {recorded.get('hash')}; move it away")
        write_text(self.trial.config, yaml.safe_dump(self.config, sort_keys=False))
        if not isinstance(recorded, dict):
            write_json(
                self.trial.identity,
                {
                    "hash": self.hash,
                    "config": self.identity,
                    "sources": identity.sources(self.config["model"]["class_path"]),
                },
            )

    def _settle(self) -> None:
        """Be in the one directory that is this hash's, here and for what starts from it."""
        if not self.place.exists():
            owner = sharing.claim(self.place.parents[1], self.hash, self.place)
            if owner != self.place:
                self.place, self.trial, self.shared_with = owner, TrialDir(owner), owner.parent.name
        self.config = _placed(self.config, self.place, self.parent)


def _placed(config: dict[str, Any], place: Path, parent: Planned | None) -> dict[str, Any]:
    """The config with what depends on where trials lie."""
    if parent is not None:
        config = put(config, "trial.start_from", str(parent.trial.checkpoints / "best.ckpt"))
    return put(config, "trainer.default_root_dir", str(place))


def plan(
    table: Table,
    profile: Profile,
    seeds: Sequence[int],
    runs: Path,
    rows: Iterable[str] | None = None,
    data: str | None = None,
) -> list[Planned]:
    """One entry a row, seed and stage, in the table's order, stages in theirs. Nothing is written.

    A trial that has been begun in another table's folder below `runs` is used where it lies.

    rows: names, or None for all. data: where the data set lies, instead of what the config says.
    """
    chosen = [table.row(name) for name in rows] if rows is not None else list(table.rows)
    configs, places, folder = Configs(profile, data), sharing.Places(runs), runs / table.name
    planned: list[Planned] = []
    first: dict[str, Planned] = {}
    for row in chosen:
        chain = _chain(configs.base(), row)
        for seed in seeds:
            parent: Planned | None = None
            for stage in chain:
                config, digest = configs.cell(row, seed, stage, parent.hash if parent else None)
                if digest in first:
                    place = first[digest].place
                else:
                    name = f"{row.name}--{stage}" if stage else row.name
                    place = places.find(digest, folder / f"{name}--s{seed}--{digest[:8]}")
                home = place.parent.name
                cell = Planned(
                    row,
                    seed,
                    _placed(config, place, parent),
                    digest,
                    place,
                    stage,
                    parent,
                    is_last=stage == chain[-1],
                    shared_with="" if home == table.name else home,
                    metric=_watched(table.metrics, stage, stage == chain[-1]),
                    split=profile.split,
                )
                planned.append(cell)
                # Whoever starts from this stage starts from the directory in which it is trained, be it another row's.
                parent = first.setdefault(cell.hash, cell)
    return planned


def _watched(metrics: Sequence[str], stage: str, is_last: bool) -> str:
    """The bare name of the first metric that the table shows of a stage, or else of the first metric of all."""
    named = [metric.rpartition(":")[::2] for metric in metrics]
    return next((bare for of, bare in named if of == stage or (is_last and not of)), named[0][1] if named else "")


def _chain(base: dict[str, Any], row: Row) -> tuple[str, ...]:
    """The stages of a row: those that the method declares, or the one that the row itself or the config asks for."""
    known = signature.read(base["model"]["class_path"])
    given = row.switches.get(STAGE, base["model"].get("init_args", {}).get("stage"))
    if not known.stages:
        return ("",)
    return (str(given),) if given is not None else known.stages


def distinct(planned: Iterable[Planned]) -> list[Planned]:
    """The first of those that share an identity: rows that resolve to one config are one trial."""
    return list({cell.hash: cell for cell in reversed(list(planned))}.values())[::-1]


def answered_by(planned: Sequence[Planned]) -> dict[str, Planned]:
    """Cell name -> the cell whose trial answers it."""
    first = {cell.hash: cell for cell in reversed(planned)}
    return {cell.name: first[cell.hash] for cell in planned}


def states(planned: Iterable[Planned]) -> list[State]:
    """State of each; directories that are not there are not looked into."""
    there: dict[Path, set[str]] = {}
    found: dict[str, State] = {}
    result: list[State] = []
    for cell in planned:
        if cell.hash not in found:
            folder = cell.place.parent
            if folder not in there:
                there[folder] = set(sharing.listed(folder))
            found[cell.hash] = cell.state if cell.place.name in there[folder] else "pending"
        result.append(found[cell.hash])
    return result


def orphans(table: Table, planned: Sequence[Planned], runs: Path) -> list[Path]:
    """Trial directories of rows that the table no longer has, and whose trials none needs. Nothing happens to them."""
    rows = {row.name for row in table.rows}
    used = {cell.place for cell in planned}
    folder = runs / table.name
    names = [n for n in sharing.listed(folder) if n.count("--") >= 2 and n.split("--")[0] not in rows]
    return sorted(path for path in (folder / name for name in names) if path not in used and path.is_dir())


@dataclass(frozen=True)
class Cost:
    """What a trial takes: seconds from start to result, and MiB of each GPU (0 on the CPU)."""

    seconds: float
    gpu_mb: float


def expected(planned: Sequence[Planned], among: Sequence[Planned] = ()) -> dict[str, Cost | None]:
    """What each cell should take, by name: what the same config took with any seed; None when never measured.

    among: further cells of the table, from which it may be known.
    """
    asked = {(cell.row.name, cell.stage): cell for cell in planned}
    by_group: dict[tuple[str, str], dict[str, Planned]] = {}
    for cell in (*planned, *among):
        if (cell.row.name, cell.stage) in asked:
            by_group.setdefault((cell.row.name, cell.stage), {})[cell.hash] = cell
    names: dict[Path, dict[str, list[str]]] = {}
    by_hash: dict[str, Cost] = {}
    means: dict[tuple[str, str], Cost] = {}
    for key, cells in by_group.items():
        found = {digest: cost for digest, cell in cells.items() if (cost := _measured(cell.place)) is not None}
        by_hash |= found
        costs = list(found.values())
        if not costs:
            folder = asked[key].place.parent
            if folder not in names:
                names[folder] = _by_row(folder)
            candidates = [folder / name for name in names[folder].get("--".join(filter(None, key)), ())]
            costs = _of_other_seeds(asked[key], candidates)
        if costs:
            means[key] = Cost(sum(cost.seconds for cost in costs) / len(costs), max(cost.gpu_mb for cost in costs))
    return {cell.name: means.get((cell.row.name, cell.stage), by_hash.get(cell.hash)) for cell in planned}


def expected_seconds(planned: Sequence[Planned], among: Sequence[Planned] = ()) -> dict[str, float | None]:
    return {name: cost.seconds if cost is not None else None for name, cost in expected(planned, among).items()}


def _by_row(folder: Path) -> dict[str, list[str]]:
    """Names of trial directories by their row and stage."""
    found: dict[str, list[str]] = {}
    for name in sharing.listed(folder):
        found.setdefault(name.rsplit("--", 2)[0], []).append(name)
    return found


def _of_other_seeds(cell: Planned, candidates: Iterable[Path]) -> list[Cost]:
    """What finished trials took that differ from a cell in nothing but their seed."""
    wanted, found = None, []
    for path in candidates:
        cost = _measured(path)
        recorded = _readable(path / "identity.json") if cost is not None else None
        config: Any = recorded.get("config") if isinstance(recorded, dict) else None
        if cost is None or not _has_options(config):
            continue
        wanted = wanted or _unseeded(cell.identity)
        if _unseeded(config) == wanted:
            found.append(cost)
    return found


def _measured(path: Path) -> Cost | None:
    """What a finished trial took, all its starts together; None also where that was damaged, or is closed to us."""
    provenance = _readable(path / "provenance.json")
    seconds = provenance.get("seconds") if isinstance(provenance, dict) else None
    try:
        is_finished = (path / "metrics.json").exists()
    except OSError:
        is_finished = False
    if not is_finished or not isinstance(seconds, dict) or not seconds or not all(map(_is_amount, seconds.values())):
        return None
    memory = provenance.get("peak_gpu_memory_mb")
    return Cost(sum(seconds.values()), memory if _is_amount(memory) else 0.0)


def _readable(path: Path) -> Any:
    """The parsed file; None when there is none, or none that can be read."""
    try:
        return read_json(path)
    except OSError:
        return None


def _is_amount(value: Any) -> bool:
    """Whether it is a number that can be a time or a size."""
    return type(value) in (int, float) and 0 <= value < 1e15


def _has_options(config: Any) -> bool:
    data = config.get("data") if isinstance(config, dict) else None
    return isinstance(data, dict) and isinstance(data.get("init_args"), dict)


def _unseeded(config: dict[str, Any]) -> str:
    """What two trials that differ in their seed alone have in common."""
    options = {key: value for key, value in config["data"]["init_args"].items() if key != "seed"}
    data = config["data"] | {"init_args": options}
    return identity.digest({**config, "data": data, "seed_everything": None, "parent": None})


def missing_data(planned: Iterable[Planned]) -> list[str]:
    """What of real data sets is not there, as paths, each once; nothing for worlds that generate themselves."""
    wanted: dict[tuple[str, str | None, str | None], None] = {}
    for cell in planned:
        options = cell.config["data"]["init_args"]
        options = options.get("benchmark_data", {}).get("init_args", options)  # training has data of its own
        if options.get("generate") is None:
            wanted[options["root"], options.get("dataset"), options.get("split_by")] = None
    return sorted({path for root, dataset, split_by in wanted for path in _missing(user_path(root), dataset, split_by)})


def _missing(root: Path, dataset: str | None, split_by: str | None) -> list[str]:
    if dataset is None or split_by is None:  # not of the REFER family: its own reader will say what it wants
        return [] if root.is_dir() else [str(root)]
    names = [name.format(split_by) for name in signature.constant("rislab.data.published", "REFERENCE_FILES")]
    absent = [str(path) for path in [root / dataset / "instances.json"] if not path.exists()]
    if not any((root / dataset / name).exists() for name in names):
        absent.append(str(root / dataset / names[0]))
    folders = [root / name for name in signature.constant("rislab.data.images", "IMAGE_FOLDERS")]
    if not any(folder.is_dir() and _has_jpeg(folder) for folder in folders):
        absent.append(f"{folders[0]}/COCO_train2014_*.jpg")
    return absent


def _has_jpeg(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".jpg") for entry in entries)


def require_data(planned: Sequence[Planned], profile: Profile) -> None:
    """Raises DataError that says what to put where, and how to say where it is."""
    absent = missing_data(planned)
    if absent:
        listed = "\n  ".join(absent)
        raise DataError(
            f"profile {profile.name!r} needs {profile.dataset}, and this is not there:\n  {listed}\n"
            "Annotations: github.com/lichengunc/refer; pictures: COCO train2014 (cocodataset.org). "
            "Another place: --data DIR, or DATA=DIR with make."
        )
