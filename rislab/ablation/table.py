"""A paper's ablation table as one YAML file: read, checked, and blamed by file and line.

All mistakes are collected before anything is said, so that one run of the command shows them all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from rislab.ablation import claims, signature
from rislab.errors import ConfigError, nearest

METRICS = ("miou_expr", "oiou", "pr@50", "pr@60", "pr@70", "pr@80", "pr@90")
"""Per-expression metrics that a table may show and a claim may compare."""

COUNTED = ("params_m",)
"""Cells that are counted, not measured over expressions: parameters in millions."""


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
    """

    name: str
    config: tuple[Path, ...]
    column: str
    dataset: str
    is_paper_dataset: bool
    split: str


@dataclass(frozen=True)
class Row:
    """switches: dotted config keys and values. paper: verified numbers, by the paper's data set and metric."""

    name: str
    label: str
    switches: Mapping[str, Any]
    paper: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Claim:
    name: str
    text: str
    holds: str
    source: str
    comparisons: tuple[claims.Comparison, ...]


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


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "rislab ablation table",
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "title", "paper", "profiles", "metrics", "baseline", "rows"],
    "properties": {
        "name": {"type": "string", "description": "folder below runs/ and reports/"},
        "title": {"type": "string"},
        "note": {"type": "string", "description": "printed below the table"},
        "paper": {
            "type": "object",
            "additionalProperties": False,
            "required": ["method", "title", "venue", "year", "sources"],
            "properties": {
                "method": {"type": "string"},
                "title": {"type": "string"},
                "venue": {"type": "string"},
                "year": {"type": "integer"},
                "arxiv": {"type": "string"},
                "sources": {"type": "array", "items": {"type": "string"}},
            },
        },
        "profiles": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["config", "column", "dataset", "is_paper_dataset", "split"],
                "properties": {
                    "config": {"type": "array", "items": {"type": "string"}},
                    "column": {"type": "string", "description": "key below rows[].paper"},
                    "dataset": {"type": "string"},
                    "is_paper_dataset": {"type": "boolean"},
                    "split": {"type": "string"},
                },
            },
        },
        "seeds": {"type": "array", "items": {"type": "integer"}},
        "metrics": {"type": "array", "items": {"type": "string", "enum": list(METRICS)}},
        "baseline": {"type": "string"},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "label", "switches"],
                "properties": {
                    "name": {"type": "string"},
                    "label": {"type": "string"},
                    "switches": {"type": "object", "description": "model.X is short for model.init_args.X"},
                    "paper": {
                        "type": "object",
                        "additionalProperties": {"type": "object", "additionalProperties": {"type": "number"}},
                    },
                },
            },
        },
        "claims": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "text", "holds", "source"],
                "properties": {
                    "name": {"type": "string"},
                    "text": {"type": "string"},
                    "holds": {"type": "string", "description": "miou_expr[row] < miou_expr[row] - 1.5 and ..."},
                    "source": {"type": "string"},
                },
            },
        },
    },
}

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}

Place = tuple[str | int, ...]


class _Lines:
    """Line of every key and item of a YAML file, by its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        try:
            node = yaml.compose(text, Loader=yaml.CSafeLoader)
            self.value = yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{path}:{line}  not readable as YAML: {error.problem}") from None
        self.lines: dict[Place, int] = {(): 1}
        self.repeated: list[tuple[Place, int]] = []
        if node is not None:
            self._walk(node, ())

    def _walk(self, node: yaml.Node, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, key.value)
                if inner in self.lines:
                    self.repeated.append((inner, key.start_mark.line + 1))
                self.lines[inner] = key.start_mark.line + 1
                self._walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self.lines[(*place, number)] = value.start_mark.line + 1
                self._walk(value, (*place, number))

    def at(self, place: Place) -> str:
        while place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines[place]}"


def _against(schema: Mapping[str, Any], value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Mistakes of `value` against the part of JSON Schema that SCHEMA uses."""
    name = ".".join(map(str, place)) or "the table"
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        yield place, f"{name} is {value!r}, expected {kind}"
        return
    value = cast(Any, value)
    if "enum" in schema and value not in schema["enum"]:
        yield place, f"{name} is {value!r}{nearest(str(value), schema['enum'])}; known: {', '.join(schema['enum'])}"
    if kind == "array":
        for number, item in enumerate(value):
            yield from _against(schema["items"], item, (*place, number))
    if kind == "object":
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for key in schema.get("required", ()):
            if key not in value:
                yield place, f"{name} lacks {key!r}"
        for key, item in value.items():
            if key in known:
                yield from _against(known[key], item, (*place, key))
            elif isinstance(rest, dict):
                yield from _against(rest, item, (*place, key))
            elif rest is False:
                yield (*place, key), f"{key!r} is no key of {name}{nearest(str(key), known)}"


def find(name: str, folder: Path = Path("ablations")) -> Path:
    """`cris` -> ablations/cris.yaml; a path stays a path. Raises ConfigError naming the nearest table."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"no table {name!r} in {folder}/{nearest(name, known)}; tables are {', '.join(known) or 'none'}"
        )
    return folder / f"{name}.yaml"


def load(path: Path) -> Table:
    """The table in `path`. Raises ConfigError listing every mistake with file, line and nearest name."""
    lines = _Lines(path)
    raw = lines.value
    mistakes = [(place, f"key {place[-1]!r} is given twice") for place, _ in lines.repeated]
    mistakes += list(_against(SCHEMA, raw, ()))
    if not mistakes:
        mistakes += list(_meaning(raw, path))
    if mistakes:
        text = "\n".join(f"{lines.at(place)}  {message}" for place, message in mistakes)
        raise ConfigError(f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the table\n{text}")
    return _build(raw, path)


def config_path(name: str, table: Path) -> Path:
    """A config file named in a table: as written, below the folder above the table's, or beside the table."""
    given = Path(name)
    for candidate in (given, table.parent.parent / given, table.parent / given):
        if candidate.exists():
            return candidate
    return given


def dotted(key: str) -> str:
    """`model.x` and `data.x` are short for `model.init_args.x` and `data.init_args.x`."""
    head, _, rest = key.partition(".")
    if head in ("model", "data") and not rest.startswith(("init_args.", "class_path")):
        return f"{head}.init_args.{rest}"
    return key


def _meaning(raw: dict[str, Any], path: Path) -> Iterator[tuple[Place, str]]:
    """Mistakes that a schema cannot see."""
    names = [row["name"] for row in raw["rows"]]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield ("rows", number, "name"), f"row {name!r} is there already"
        if not name or any(c in name for c in "/[] ") or "--" in name:
            yield ("rows", number, "name"), f"row {name!r}: a name may not hold blanks, '/', brackets or '--'"
    if raw["baseline"] not in names:
        yield ("baseline",), f"baseline {raw['baseline']!r} is no row{nearest(raw['baseline'], names)}"
    columns = {profile["column"] for profile in raw["profiles"].values()}
    classes: dict[str, str] = {}
    for key, profile in raw["profiles"].items():
        for number, name in enumerate(profile["config"]):
            file = config_path(name, path)
            if not file.exists():
                yield ("profiles", key, "config", number), f"profile {key!r}: no config file {name}"
                continue
            content = yaml.load(file.read_text(), Loader=yaml.CSafeLoader) or {}
            for part in ("model", "data"):
                if isinstance(content.get(part), dict) and "class_path" in content[part]:
                    classes[part] = content[part]["class_path"]
    for number, row in enumerate(raw["rows"]):
        for key, value in row["switches"].items():
            part, _, option = dotted(key).partition(".init_args.")
            place: Place = ("rows", number, "switches", key)
            if part not in ("model", "data") or not option:
                yield place, f"row {row['name']!r}: switch {key!r} must begin with model. or data."
            elif part in classes and "." not in option:
                try:
                    wrong = signature.check(classes[part], option, value)
                except ConfigError as error:
                    wrong = str(error)
                if wrong:
                    yield place, f"row {row['name']!r}: {part}.{wrong}"
        for column, cells in row.get("paper", {}).items():
            if column not in columns:
                yield (
                    ("rows", number, "paper", column),
                    f"row {row['name']!r}: no profile has column {column!r}{nearest(column, columns)}",
                )
            for metric in cells:
                known = METRICS + COUNTED
                if metric not in known:
                    yield (
                        ("rows", number, "paper", column, metric),
                        f"row {row['name']!r}: no metric {metric!r}{nearest(metric, known)}",
                    )
    for number, claim in enumerate(raw.get("claims", [])):
        place = ("claims", number, "holds")
        try:
            comparisons = claims.parse(claim["holds"])
        except ConfigError as error:
            yield place, f"claim {claim['name']!r}: {error}"
            continue
        for term in (t for c in comparisons for t in c.terms):
            if term.row not in names:
                yield place, f"claim {claim['name']!r}: no row {term.row!r}{nearest(term.row, names)}"
            if term.metric not in METRICS:
                yield place, f"claim {claim['name']!r}: no metric {term.metric!r}{nearest(term.metric, METRICS)}"


def _build(raw: dict[str, Any], path: Path) -> Table:
    paper = raw["paper"]
    return Table(
        path=path,
        name=raw["name"],
        title=raw["title"],
        note=raw.get("note", ""),
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
            Claim(c["name"], c["text"], c["holds"], c["source"], claims.parse(c["holds"]))
            for c in raw.get("claims", [])
        ),
    )
