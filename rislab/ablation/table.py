"""A paper's ablation table as one YAML file: read, checked, and blamed by file and line.

All mistakes are collected before anything is said, so that one run of the command shows them all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rislab.ablation import claims, plugins, signature
from rislab.ablation.schema import COUNTED, METRICS, SCHEMA, against
from rislab.ablation.yaml_lines import Mistake, YamlFile, YamlPath, overlay
from rislab.errors import ConfigError, nearest
from rislab.paths import user_path

CLUSTER = "rislab.launch.slurm.Cluster"
"""Its options are those of a profile's `cluster:` block; they are read from its source, not imported."""

PARTS = ("model", "data")
"""Parts of a config that are classes with options."""

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

    config: config files, later ones over earlier ones. column: the paper's data set that results stand beside.
    dataset: what the results were measured on. split: the split that the table shows.
    stages: config files of single stages, over the others, by the stage's name.
    cluster: what its trials ask of a SLURM cluster; the options are those of `rislab.launch.slurm.Cluster`.
    """

    name: str
    config: tuple[Path, ...]
    column: str
    dataset: str
    is_paper_dataset: bool
    split: str
    stages: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """switches: dotted config keys and values. paper: verified numbers, by the paper's data set and metric."""

    name: str
    label: str
    switches: Mapping[str, Any]
    paper: Mapping[str, Mapping[str, float]]


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


def find(name: str, folder: Path = Path("ablations")) -> Path:
    """`cris` -> ablations/cris.yaml; a path stays a path. Raises ConfigError naming the nearest table."""
    path = user_path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = tables(folder)
    if name not in known:
        raise ConfigError(
            f"no table {name!r} in {folder}/{nearest(name, known)}; tables are {', '.join(known) or 'none'}"
        )
    return known[name]


def tables(folder: Path = Path("ablations")) -> dict[str, Path]:
    """Files by name: those in a folder, then those of installed packages."""
    ours = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return ours | {name: Path(file) for name, file in plugins.sound(plugins.TABLES, ours).items()}


def load(path: Path) -> Table:
    """The table in `path`. Raises ConfigError listing every mistake with file, line and nearest name."""
    file = YamlFile(path)
    mistakes = file.repeated
    structural = list(against(SCHEMA, file.value, (), mistakes))
    in_configs: list[str] = []
    if not structural:
        parts, in_configs = _read_profiles(file.value, path, mistakes)
        mistakes += _meaning(file.value, parts)
    said = file.blame(mistakes + structural) + in_configs
    if said:
        text = "\n".join(said)
        raise ConfigError(f"{len(said)} mistake{'s' if len(said) > 1 else ''} in the table\n{text}")
    return _build(file.value, path)


def config_path(name: str, table: Path) -> Path:
    """A config file named in a table: as written, below the folder above the table's, or beside the table."""
    given = user_path(name)
    for candidate in (given, table.parent.parent / given, table.parent / given):
        if candidate.exists():
            return candidate
    return given


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


def dotted(key: str) -> str:
    """`model.x` and `data.x` are short for `model.init_args.x` and `data.init_args.x`."""
    head, _, rest = key.partition(".")
    if head in PARTS and not rest.startswith(("init_args.", "class_path")):
        return f"{head}.init_args.{rest}"
    return key


def _read_profiles(
    raw: dict[str, Any], path: Path, mistakes: list[Mistake]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """({part: its class and options}, for switches to be checked against; what is wrong inside the config files)."""
    parts: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    if not raw["profiles"]:
        mistakes.append((("profiles",), "profiles is empty: a table needs at least one"))
    for key, profile in raw["profiles"].items():
        merged: dict[str, Any] = {}
        files = [config_path(name, path) for name in profile["config"]]
        for number, (name, file) in enumerate(zip(profile["config"], files, strict=True)):
            if not file.exists():
                mistakes.append((("profiles", key, "config", number), f"profile {key!r}: no config file {name}"))
                continue
            content = YamlFile(file)
            said += content.blame(content.repeated)
            overlay(merged, content.value or {})
        for part in PARTS:
            options = merged.get(part)
            if not isinstance(options, dict) or not signature.is_described(options.get("class_path")):
                continue
            try:
                wrong = list(signature.check_config(options["class_path"], options.get("init_args") or {}))
                parts.setdefault(part, options)
            except ConfigError as error:
                wrong = [((), str(error))]
            for inner, text in wrong:
                said.append(f"{', '.join(map(str, files))}  {'.'.join((part, 'init_args', *inner[:-1]))}: {text}")
    return parts, said


def _meaning(raw: dict[str, Any], parts: dict[str, dict[str, Any]]) -> Iterator[Mistake]:
    """Mistakes that a schema cannot see."""
    names = [row["name"] for row in raw["rows"]]
    stages = _stages(parts)
    if wrong := name_mistake(raw["name"]):
        yield ("name",), f"table {_shown(raw['name'])}: {wrong}"
    for number, metric in enumerate(raw["metrics"]):
        wrong = _metric(metric, METRICS, stages)
        if wrong:
            yield ("metrics", number), wrong
    for key, profile in raw["profiles"].items():
        if wrong := name_mistake(key):
            yield ("profiles", key), f"profile {_shown(key)}: {wrong}"
        for stage in profile.get("stages", {}):
            if wrong := name_mistake(stage):
                yield ("profiles", key, "stages", stage), f"profile {_shown(key)}: stage {_shown(stage)}: {wrong}"
            elif stage not in stages:
                yield ("profiles", key, "stages", stage), f"profile {key!r}: no stage {stage!r}{nearest(stage, stages)}"
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
        place: YamlPath = ("rows", number)
        who = f"row {_shown(row['name'])}"
        if row["name"] in names[:number]:
            yield (*place, "name"), f"{who} is there already"
        if wrong := name_mistake(row["name"]):
            yield (*place, "name"), f"{who}: {wrong}"
        for key, value in row["switches"].items():
            wrong = switch_mistake(key, value, parts)
            if wrong:
                yield (*place, "switches", key), f"{who}: {wrong}"
        for column, cells in row.get("paper", {}).items():
            if column not in columns:
                yield (*place, "paper", column), f"{who}: no profile has column {column!r}{nearest(column, columns)}"
            for metric in cells:
                wrong = _metric(metric, METRICS + COUNTED, stages)
                if wrong:
                    yield (*place, "paper", column, metric), f"{who}: {wrong}"
    claimed = [claim["name"] for claim in raw.get("claims", [])]
    for number, claim in enumerate(raw.get("claims", [])):
        place = ("claims", number)
        who = f"claim {claim['name']!r}"
        if claim["name"] in claimed[:number]:
            yield (*place, "name"), f"{who} is there already"
        try:
            comparisons = claims.parse(claim["holds"])
        except ConfigError as error:
            yield (*place, "holds"), f"{who}: {error}"
            continue
        for term in (t for c in comparisons for t in c.terms):
            if term.row not in names:
                yield (*place, "holds"), f"{who}: no row {term.row!r}{nearest(term.row, names)}"
            wrong = _metric(term.metric, METRICS, stages)
            if wrong:
                yield (*place, "holds"), f"{who}: {wrong}"


def _shown(name: Any) -> str:
    return repr(f"{name[:20]}..." if isinstance(name, str) and len(name) > LONGEST_NAME else name)


def _stages(parts: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    class_path = str(parts.get("model", {}).get("class_path", ""))
    return signature.read(class_path).stages if signature.is_described(class_path) else ()


def _metric(name: str, known: Sequence[str], stages: Sequence[str]) -> str | None:
    """What is wrong with `metric` or `stage:metric`, or None."""
    stage, colon, metric = name.rpartition(":")
    if metric not in known:
        return f"no metric {metric!r}{nearest(metric, known)}; known: {', '.join(known)}"
    if colon and stage not in stages:
        return f"no stage {stage!r}{nearest(stage, stages)}; stages are {', '.join(stages) or 'none'}"
    return None


def switch_mistake(key: str, value: Any, parts: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with a switch, or None. It is followed through the classes of `parts`, a config's model and data."""
    part, *path = dotted(key).split(".")
    if part not in PARTS or path[:1] != ["init_args"] or len(path) < 2:
        return f"switch {key!r} must begin with {' or '.join(f'{p}.' for p in PARTS)}"
    place: Any = parts.get(part)
    owner, said = None, part
    while isinstance(place, dict):
        owner = place.get("class_path", owner)
        if not (signature.is_described(owner)):
            return None
        if path[0] == "init_args":
            path = path[1:]
        if not path:
            return f"switch {key!r} names no option"
        known = signature.read(owner).options
        if len(path) == 1 or path[0] not in known:
            wrong = signature.check(owner, path[0], value)
            return f"{said}.{wrong}" if wrong else None
        owner, said = known[path[0]].of, f"{said}.{path[0]}"
        options = place.get("init_args") or {} if "class_path" in place else place
        place, path = options.get(path[0]), path[1:]
    return None


def _build(raw: dict[str, Any], path: Path) -> Table:
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
                {
                    stage: tuple(config_path(file, path) for file in files)
                    for stage, files in profile.get("stages", {}).items()
                },
                profile.get("cluster", {}),
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
            )
            for row in raw["rows"]
        ),
        claims=tuple(
            Claim(c["name"], c["text"], c["holds"], c["source"], claims.parse(c["holds"]), c.get("judged", True))
            for c in raw.get("claims", [])
        ),
    )
