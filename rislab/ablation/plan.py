"""From a table to trials: which configs, which directories, what is done, what is missing."""

import os
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation import identity, signature
from rislab.ablation.table import PARTS, Profile, Row, Table
from rislab.ablation.trial import State, TrialDir
from rislab.ablation.yamlfile import overlay, read_yaml
from rislab.errors import ConfigError, DataError
from rislab.files import read_json, write_json, write_text

DATA_ROOT = "data.init_args.root"
STAGE = "model.init_args.stage"


@dataclass(frozen=True)
class Planned:
    """A row with a seed and, where a method has several, a stage: its config, and the directory of its trial.

    parent: what it starts from. is_last: whether this is the stage that the row's cells show.
    """

    row: Row
    seed: int
    config: dict[str, Any]
    hash: str
    trial: TrialDir
    stage: str = ""
    parent: "Planned | None" = None
    is_last: bool = True

    @property
    def name(self) -> str:
        return f"{self.row.name} s{self.seed}" + (f" {self.stage}" if self.stage else "")

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
        if not isinstance(recorded, dict):
            return []
        return identity.changed_sources(recorded.get("sources", {}), self.config["model"]["class_path"])

    @property
    def can_split(self) -> bool:
        """Whether a batch may be computed in parts without changing what is learned."""
        model = self.config["model"]
        needed = signature.read(model["class_path"]).splits_batches.get(self.stage)
        return needed is not None and needed.items() <= model["init_args"].items()

    def write(self) -> None:
        """Create the trial's directory with its config and identity.

        The config of an existing one is brought up to date, since the data may lie elsewhere today; its identity, with
        the sources that the trial was begun with, stays. Raises ConfigError when the directory is another trial's.
        """
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


def merged(profile: Profile, stage: str = "") -> dict[str, Any]:
    """The profile's config files, later ones over earlier ones, and those of a stage over them."""
    config: dict[str, Any] = {}
    for path in (*profile.config, *profile.stages.get(stage, ())):
        overlay(config, read_yaml(path) or {})
    for part in PARTS:
        if "class_path" not in config.get(part, {}):
            raise ConfigError(f"{', '.join(map(str, profile.config))}: no {part}.class_path")
    return config


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        config = config.setdefault(name, {})
    config[last] = value


def plan(
    table: Table,
    profile: Profile,
    seeds: Sequence[int],
    runs: Path,
    rows: Iterable[str] | None = None,
    data: str | None = None,
) -> list[Planned]:
    """One entry a row, seed and stage, in the table's order, stages in theirs. Nothing is written.

    rows: names, or None for all. data: where the data set lies, instead of what the config says.
    """
    chosen = [table.row(name) for name in rows] if rows is not None else list(table.rows)
    bases: dict[str, dict[str, Any]] = {"": merged(profile)}
    planned: list[Planned] = []
    first: dict[str, Planned] = {}
    for row in chosen:
        chain = _chain(bases[""], row)
        for seed in seeds:
            parent: Planned | None = None
            for stage in chain:
                base = bases.setdefault(stage, merged(profile, stage))
                cell = _cell(table, row, seed, stage, parent, base, runs, data, is_last=stage == chain[-1])
                planned.append(cell)
                # Whoever starts from this stage starts from the directory in which it is trained, be it another row's.
                parent = first.setdefault(cell.hash, cell)
    return planned


def _chain(base: dict[str, Any], row: Row) -> tuple[str, ...]:
    """The stages of a row: those that the method declares, or the one that the row itself or the config asks for."""
    known = signature.read(base["model"]["class_path"])
    given = row.switches.get(STAGE, base["model"].get("init_args", {}).get("stage"))
    if not known.stages:
        return ("",)
    return (str(given),) if given is not None else known.stages


def _cell(
    table: Table,
    row: Row,
    seed: int,
    stage: str,
    parent: Planned | None,
    base: dict[str, Any],
    runs: Path,
    data: str | None,
    is_last: bool,
) -> Planned:
    config = deepcopy(base)
    if data is not None:
        _put(config, DATA_ROOT, str(Path(data).resolve()))
    for key, value in row.switches.items():
        _put(config, key, value)
    if stage:
        _put(config, STAGE, stage)
    if parent is not None:
        _put(config, "trial.start_from", str(parent.trial.checkpoints / "best.ckpt"))
    config["seed_everything"] = seed
    _put(config, "data.init_args.seed", seed)
    digest = identity.digest(identity.identity(config, parent.hash if parent else None))
    name = f"{row.name}--{stage}" if stage else row.name
    path = runs / table.name / f"{name}--s{seed}--{digest[:8]}"
    _put(config, "trainer.default_root_dir", str(path))
    # What a run fills in anyway is written out, so that the file says all that was hashed.
    config["model"] = identity.resolve(config["model"])
    config["data"] = identity.resolve(config["data"])
    return Planned(row, seed, config, digest, TrialDir(path), stage, parent, is_last)


def distinct(planned: Iterable[Planned]) -> list[Planned]:
    """The first of those that share an identity: rows that resolve to one config are one trial."""
    return list({cell.hash: cell for cell in reversed(list(planned))}.values())[::-1]


def answered_by(planned: Sequence[Planned]) -> dict[str, Planned]:
    """Cell name -> the cell whose trial answers it."""
    first = {cell.hash: cell for cell in reversed(planned)}
    return {cell.name: first[cell.hash] for cell in planned}


def orphans(table: Table, planned: Sequence[Planned], runs: Path) -> list[Path]:
    """Trial directories of rows that the table no longer has. Nothing happens to them."""
    rows = {row.name for row in table.rows}
    folder = runs / table.name
    found = [path for path in folder.glob("*--s*--*") if path.is_dir()] if folder.is_dir() else []
    return sorted(path for path in found if path.name.split("--")[0] not in rows)


@dataclass(frozen=True)
class Cost:
    """What a trial takes: seconds from start to result, and MiB of each GPU (0 on the CPU)."""

    seconds: float
    gpu_mb: float


def expected(planned: Sequence[Planned]) -> dict[str, Cost | None]:
    """What each cell should take, by name: what the same config took with any seed; None when never measured."""
    measured: dict[str, list[Cost]] = {}
    for folder in {cell.trial.path.parent for cell in planned}:
        for file in folder.glob("*--s*--*/provenance.json"):
            provenance, recorded = read_json(file), read_json(file.with_name("identity.json"))
            if isinstance(provenance, dict) and isinstance(recorded, dict):
                cost = Cost(sum(provenance["seconds"].values()), provenance.get("peak_gpu_memory_mb") or 0.0)
                measured.setdefault(_unseeded(recorded["config"]), []).append(cost)
    if not measured:
        return {cell.name: None for cell in planned}
    found = {cell.name: measured.get(_unseeded(cell.identity)) for cell in planned}
    return {
        name: Cost(sum(c.seconds for c in costs) / len(costs), max(c.gpu_mb for c in costs)) if costs else None
        for name, costs in found.items()
    }


def expected_seconds(planned: Sequence[Planned]) -> dict[str, float | None]:
    return {name: cost.seconds if cost is not None else None for name, cost in expected(planned).items()}


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
    return sorted({path for root, dataset, split_by in wanted for path in _missing(Path(root), dataset, split_by)})


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
