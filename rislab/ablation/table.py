"""A paper's ablation table as one YAML file: read and checked; messages name file and line.

All mistakes are collected before any is reported, so that one run of the command shows them all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rislab.ablation import claims, folds, lookup, signature, stages, switches
from rislab.ablation.schema import COUNTED, METRICS, SCHEMA, against
from rislab.ablation.stages import Stage
from rislab.ablation.switches import PARTS, Parts, dotted
from rislab.ablation.yaml_lines import Mistake, YamlFile, YamlPath, overlay
from rislab.errors import ConfigError, nearest
from rislab.paths import user_path

CLUSTER = "rislab.launch.slurm.Cluster"
"""Its options are those of a profile's `cluster:` block; they are read from its source, not imported."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Paper:
    """method: folder below rislab/methods; sources: where the numbers were read."""

    method: str
    title: str
    venue: str
    year: int
    arxiv: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """The table at one scale.

    Attributes:
        config: config files, later ones over earlier ones.
        column: the paper's data set that results stand beside.
        dataset: what the results were measured on.
        split: the split that the table shows.
        stages: of each row, in order; empty where the method's own hold, if it declares any.
        cluster: what its trials request of a SLURM cluster; the options are those of `rislab.launch.slurm.Cluster`.
        folds: switches of each fold, by its name; a row is one training a fold. Empty for a row of one training.
        switches: by row, those that take the place of the row's own.
    """

    name: str
    config: tuple[Path, ...]
    column: str
    dataset: str
    is_paper_dataset: bool
    split: str
    stages: tuple[Stage, ...] = ()
    cluster: Mapping[str, Any] = field(default_factory=dict)
    folds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    switches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, row: "Row") -> "Row":
        """A row as this profile runs it."""
        return replace(row, switches={**row.switches, **self.switches.get(row.name, {})})

    def split_of(self, metric: str) -> str:
        """The split that the table shows of a metric: of `STAGE:METRIC` the stage's own, where it has one."""
        stage, colon, _ = metric.rpartition(":")
        return next((one.split for one in self.stages if colon and one.name == stage and one.split), self.split)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        switches: full config keys and values; `STAGE:` before a key makes it one stage's.
        paper: verified numbers, by the paper's data set and metric; `FOLD:METRIC` is one fold's.
        without: stages of the profile that the row leaves out; what starts from one of them starts from what that one starts
            from.
    """

    name: str
    label: str
    switches: Mapping[str, Any]
    paper: Mapping[str, Mapping[str, float]]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """judged: whether there is a source for it; a claim that is only recalled is shown apart, without a verdict."""

    name: str
    text: str
    holds: str
    source: str
    comparisons: tuple[claims.Comparison, ...]
    judged: bool = True


@dataclass(frozen=True)
class Table:
    path: Path
    name: str
    title: str
    paper: Paper
    profiles: Mapping[str, Profile]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    baseline: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    note: str = ""
    watch: Mapping[str, str] = field(default_factory=dict)
    """What the report plots beside the first metric: logged name -> title."""
    margin_of_interest: float = 1.0
    """The smallest difference that matters, in percent points: `negligible` is what is surely smaller."""

    def row(self, name: str) -> Row:
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise ConfigError(f"{self.path}: no row {name!r}{nearest(name, found)}; rows are {', '.join(found)}")
        return found[name]

    def profile(self, name: str) -> Profile:
        if name not in self.profiles:
            raise ConfigError(
                f"{self.path}: no profile {name!r}{nearest(name, self.profiles)}; profiles are {', '.join(self.profiles)}"
            )
        return self.profiles[name]


def find(name: str, tables: Path | None = None) -> Path:
    """`cris` -> ablations/cris.yaml, looked up as `rislab.ablation.lookup` says; a path stays a path.

    Args:
        name: Of a table, or a path.
        tables: `--tables DIR`.

    Raises:
        ConfigError: No such table; names the nearest one.
    """
    path = user_path(name)
    if path.suffix in (".yaml", ".yml"):
        return lookup.find(path, tables)
    known = lookup.every_table(tables)
    if name not in known:
        raise ConfigError(f"no table {name!r}{nearest(name, known)}; tables are {', '.join(known) or 'none'}")
    return known[name]


def load(path: Path) -> Table:
    """The table in `path`. Raises ConfigError listing every mistake with file, line and nearest name."""
    file = YamlFile(path)
    mistakes = file.repeated
    structural = list(against(SCHEMA, file.value, (), mistakes))
    in_configs: list[str] = []
    read: dict[str, _ReadProfile] = {}
    if not structural:
        if not file.value["profiles"]:
            mistakes.append((("profiles",), "profiles is empty: a table needs at least one"))
        reader = _Reader(path, mistakes)
        read = {key: reader.read(key, profile) for key, profile in file.value["profiles"].items()}
        in_configs = reader.in_configs
        mistakes += _meaning(file.value, read)
    said = file.blame(mistakes + structural) + in_configs
    if said:
        text = "\n".join(said)
        raise ConfigError(f"{len(said)} mistake{'s' if len(said) > 1 else ''} in the table\n{text}")
    return _build(file.value, path, read)


def config_path(name: str, table: Path) -> Path:
    """A config file named in a table: as written, below the folder above the table's, beside the table, or one of rislab's."""
    given = user_path(name)
    for candidate in (given, table.parent.parent / given, table.parent / given):
        if candidate.exists():
            return candidate
    return lookup.find(given)


def name_mistake(name: Any) -> str | None:
    """What is wrong with the name of a table, row, profile or stage, or None. Names become folders, jobs and arguments."""
    if not isinstance(name, str):
        return "a name is a text: put it in quotes"
    if not name:
        return "a name may not be empty"
    if len(name) > LONGEST_NAME:
        return f"a name may have {LONGEST_NAME} characters at most, this one has {len(name)}"
    if not NAME.fullmatch(name):
        return "a name has letters, digits and . _ + - only, and begins with a letter or digit"
    for part in ("..", "--"):
        if part in name:
            return f"a name may not hold {part!r}"
    return None


@dataclass(frozen=True)
class _ReadProfile:
    """A profile with its configs read.

    Attributes:
        stages: of every row; one without a name where there are none.
        parts: model and data by stage, where their classes are known and their options sound.
    """

    stages: tuple[Stage, ...]
    parts: dict[str, Parts]

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self.stages if stage.name]

    @property
    def scored(self) -> list[str]:
        """Stages that have metrics: all but those that make files which are not scored."""

        def is_unscored(name: str) -> bool:
            class_path = (self.parts.get(name, {}).get("model") or {}).get("class_path")
            known = signature.read(class_path) if signature.is_described(class_path) else None
            return known is not None and known.produces and not known.scored

        return [name for name in self.names if not is_unscored(name)]


class _Reader:
    """Reads the profiles of a table, each config file once.

    Args:
        path: of the table.
        mistakes: what is wrong in the table goes here.

    Attributes:
        in_configs: what is wrong in config files.
    """

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        self.path, self.mistakes = path, mistakes
        self.in_configs: list[str] = []
        self._files: dict[Path, YamlFile] = {}

    def read(self, key: str, profile: Mapping[str, Any]) -> _ReadProfile:
        """A profile that has passed the schema."""
        who = f"profile {_shown(key)}"
        position: YamlPath = ("profiles", key)
        files = self._existing(profile["config"], (*position, "config"), who)
        raw = profile.get("stages", [])
        if not raw:
            parts = self._parts(files)
            found = stages.declared((parts.get("model") or {}).get("class_path")) or stages.ONLY
            return _ReadProfile(found, {stage.name: parts for stage in found})
        is_sound = True
        of_stage: dict[str, tuple[Path, ...]] = {}
        entries: dict[str, int] = {}
        for number, one in enumerate(raw):
            name, entry = one["name"], (*position, "stages", number)
            if wrong := name_mistake(name):
                self.mistakes.append(((*entry, "name"), f"{who}: stage {_shown(name)}: {wrong}"))
                is_sound = False
            if "takes" in one and "from" not in one:
                self.mistakes.append(
                    ((*entry, "takes"), f"{who}: stage {_shown(name)}: takes {one['takes']!r} from no stage")
                )
            of_stage[name] = self._existing(one.get("config", []), (*entry, "config"), who)
            entries[name] = number
        found = stages.listed(raw, of_stage)
        if not is_sound:
            return _ReadProfile(found, {})
        by_stage: dict[str, Parts] = {
            stage.name: self._parts((*files, *stage.config), stage.takes == "outputs") for stage in found
        }
        for name, entry_key, text in stages.mistakes(found, by_stage):
            self.mistakes.append(((*position, "stages", entries[name], entry_key), f"{who}: {text}"))
        return _ReadProfile(found, by_stage)

    def _existing(self, names: Sequence[str], position: YamlPath, who: str) -> tuple[Path, ...]:
        """The config files that are there."""
        found = []
        for number, name in enumerate(names):
            file = config_path(name, self.path)
            if file.exists():
                found.append(file)
            else:
                self.mistakes.append(((*position, number), f"{who}: no config file {name}"))
        return tuple(found)

    def _file(self, path: Path) -> YamlFile:
        if path not in self._files:
            self._files[path] = YamlFile(path)
            self.in_configs += self._files[path].blame(self._files[path].repeated)
        return self._files[path]

    def _parts(self, files: Sequence[Path], takes_outputs: bool = False) -> dict[str, Any]:
        """Model and data of config files, later ones over earlier ones; one whose options cannot be read is left out."""
        config: dict[str, Any] = {}
        for path in files:
            overlay(config, self._file(path).value or {})
        parts: dict[str, Any] = {}
        for part in PARTS:
            options = config.get(part)
            if not isinstance(options, dict):
                continue
            if not signature.is_described(options.get("class_path")):
                if "class_path" in options:
                    parts[part] = options
                continue
            try:
                given = options.get("init_args") or {}
                wrong = list(signature.check_config(options["class_path"], given, takes_outputs))
                parts[part] = options
            except ConfigError as error:
                wrong = [((), str(error))]
            for inner, text in wrong:
                said = f"{self._where(files, (part, 'init_args', *inner))}  {'.'.join((part, 'init_args', *inner[:-1]))}: {text}"
                self.in_configs += [said] if said not in self.in_configs else []
        return parts

    def _where(self, files: Sequence[Path], position: YamlPath) -> str:
        """File and line of a config's key: of the last file that has it, or else the files."""
        setting = next((file for file in reversed(files) if position in self._file(file).lines), None)
        return f"{setting}:{self._file(setting).line(position)}" if setting is not None else ", ".join(map(str, files))


def _meaning(raw: dict[str, Any], profiles: Mapping[str, _ReadProfile]) -> Iterator[Mistake]:
    """Mistakes that a schema cannot see."""
    names = [row["name"] for row in raw["rows"]]
    scored = list(dict.fromkeys(name for profile in profiles.values() for name in profile.scored))
    # Switches are followed through the first profile whose classes are known.
    main = next((one for one in profiles.values() if any(one.parts.values())), _ReadProfile(stages.ONLY, {"": {}}))
    if wrong := name_mistake(raw["name"]):
        yield ("name",), f"table {_shown(raw['name'])}: {wrong}"
    for number, metric in enumerate(raw["metrics"]):
        wrong = _metric(metric, METRICS, scored)
        if wrong:
            yield ("metrics", number), wrong
    for key, profile in raw["profiles"].items():
        if wrong := name_mistake(key):
            yield ("profiles", key), f"profile {_shown(key)}: {wrong}"
        for below, text in folds.mistakes(profile, raw["rows"], profiles[key].parts, name_mistake):
            yield ("profiles", key, *below), f"profile {_shown(key)}: {text}"
        for option, value in profile.get("cluster", {}).items():
            wrong = signature.check(CLUSTER, option, value)
            if wrong:
                yield ("profiles", key, "cluster", option), f"profile {key!r}: cluster.{wrong}"
    interest = raw.get("margin_of_interest", 1.0)
    if not 0 < interest < 100:
        yield ("margin_of_interest",), f"margin_of_interest is {interest}, expected points above 0 and below 100"
    columns = {profile["column"] for profile in raw["profiles"].values()}
    if raw["baseline"] not in names:
        yield ("baseline",), f"baseline {raw['baseline']!r} is no row{nearest(raw['baseline'], names)}"
    for number, seed in enumerate(raw.get("seeds", [])):
        if seed < 0 or seed in raw["seeds"][:number]:
            yield ("seeds", number), f"seed {seed} is {'negative' if seed < 0 else 'there already'}"
    for number, row in enumerate(raw["rows"]):
        position: YamlPath = ("rows", number)
        who = f"row {_shown(row['name'])}"
        if row["name"] in names[:number]:
            yield (*position, "name"), f"{who} is there already"
        if wrong := name_mistake(row["name"]):
            yield (*position, "name"), f"{who}: {wrong}"
        for key, value in row["switches"].items():
            wrong = switches.mistake(key, value, main.parts) if main.parts else None
            if wrong:
                yield (*position, "switches", key), f"{who}: {wrong}"
        for stage, text in _left_out(row.get("without", []), profiles):
            yield (*position, "without", stage), f"{who}: {text}"
        for column, cells in row.get("paper", {}).items():
            if column not in columns:
                yield (*position, "paper", column), f"{who}: no profile has column {column!r}{nearest(column, columns)}"
            of_column = folds.names(raw["profiles"].values(), column)
            for metric in cells:
                what = "stage or fold" if of_column else "stage"
                wrong = _metric(metric, METRICS + COUNTED, [*scored, *of_column], what)
                if wrong:
                    yield (*position, "paper", column, metric), f"{who}: {wrong}"
    claimed = [claim["name"] for claim in raw.get("claims", [])]
    for number, claim in enumerate(raw.get("claims", [])):
        position = ("claims", number)
        who = f"claim {claim['name']!r}"
        if claim["name"] in claimed[:number]:
            yield (*position, "name"), f"{who} is there already"
        try:
            comparisons = claims.parse(claim["holds"])
        except ConfigError as error:
            yield (*position, "holds"), f"{who}: {error}"
            continue
        for term in (t for c in comparisons for t in c.terms):
            if term.row not in names:
                yield (*position, "holds"), f"{who}: no row {term.row!r}{nearest(term.row, names)}"
            wrong = _metric(term.metric, METRICS, scored)
            if wrong:
                yield (*position, "holds"), f"{who}: {wrong}"


def _shown(name: Any) -> str:
    return repr(f"{name[:20]}..." if isinstance(name, str) and len(name) > LONGEST_NAME else name)


def _left_out(names: Sequence[str], profiles: Mapping[str, _ReadProfile]) -> Iterator[tuple[int, str]]:
    """(number, what is wrong) of the stages that a row leaves out."""
    for number, name in enumerate(names):
        if name in names[:number]:
            yield number, f"without {name!r}, which is there already"
        for profile in profiles.values():
            if name not in profile.names:
                known = ", ".join(profile.names) or "none"
                yield number, f"without {name!r}, which is no stage{nearest(name, profile.names)}; stages are {known}"
                return
    for profile in profiles.values() if names else ():
        remaining = stages.without(profile.stages, names)
        if not remaining:
            yield 0, "without any stage: one has to remain"
        before = {text for _, _, text in stages.mistakes(profile.stages, profile.parts)}
        for _, _, text in stages.mistakes(remaining, profile.parts):
            if text not in before:
                yield 0, f"without {', '.join(names)}: {text}"
                return


def _metric(name: str, known: Sequence[str], stages: Sequence[str], what: str = "stage") -> str | None:
    """What is wrong with `metric` or `stage:metric`, or None."""
    stage, colon, metric = name.rpartition(":")
    if metric not in known:
        return f"no metric {metric!r}{nearest(metric, known)}; known: {', '.join(known)}"
    if colon and stage not in stages:
        return f"no {what} {stage!r}{nearest(stage, stages)}; {what}s are {', '.join(stages) or 'none'}"
    return None


def _build(raw: dict[str, Any], path: Path, read: Mapping[str, _ReadProfile]) -> Table:
    paper = raw["paper"]
    return Table(
        path=path,
        name=raw["name"],
        title=raw["title"],
        note=raw.get("note", ""),
        watch=raw.get("watch", {}),
        margin_of_interest=float(raw.get("margin_of_interest", 1.0)),
        paper=Paper(
            paper["method"],
            paper["title"],
            paper["venue"],
            paper["year"],
            paper.get("arxiv", ""),
            tuple(paper["sources"]),
        ),
        profiles={
            name: Profile(
                name,
                tuple(config_path(file, path) for file in profile["config"]),
                profile["column"],
                profile["dataset"],
                profile["is_paper_dataset"],
                profile["split"],
                read[name].stages if profile.get("stages") else (),
                profile.get("cluster", {}),
                {fold: folds.full(given) for fold, given in profile.get("folds", {}).items()},
                {row: folds.full(given) for row, given in profile.get("switches", {}).items()},
            )
            for name, profile in raw["profiles"].items()
        },
        seeds=tuple(raw.get("seeds", [0])),
        metrics=tuple(raw["metrics"]),
        baseline=raw["baseline"],
        rows=tuple(
            Row(
                row["name"],
                row["label"],
                {dotted(key): value for key, value in row["switches"].items()},
                row.get("paper", {}),
                tuple(row.get("without", [])),
            )
            for row in raw["rows"]
        ),
        claims=tuple(
            Claim(c["name"], c["text"], c["holds"], c["source"], claims.parse(c["holds"]), c.get("judged", True))
            for c in raw.get("claims", [])
        ),
    )
