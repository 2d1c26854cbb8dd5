"""What papers report: one file a method in ablations/papers/, with the row of a table that is the whole method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rislab.ablation import lookup
from rislab.ablation.schema import METRICS, against
from rislab.ablation.yaml_lines import Mistake, YamlFile
from rislab.errors import ConfigError, nearest

FOLDER = Path("ablations/papers")
PROTOCOLS = "protocols.yaml"

_TEXT = {"type": "string"}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["method", "title", "paper", "results"],
    "properties": {
        "method": _TEXT,
        "title": _TEXT,
        "paper": _TEXT,
        "recipe": _TEXT,
        "full": {
            "type": "object",
            "additionalProperties": False,
            "required": ["table", "row", "profile", "measured"],
            "properties": {
                "table": _TEXT,
                "row": _TEXT,
                "profile": _TEXT,
                "stage": _TEXT,
                "measured": {"type": "object", "additionalProperties": _TEXT},
            },
        },
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "protocol", "source", "values"],
                "properties": {
                    "name": _TEXT,
                    "protocol": _TEXT,
                    "source": _TEXT,
                    "values": {
                        "type": "object",
                        "additionalProperties": {"type": "object", "additionalProperties": {"type": "number"}},
                    },
                },
            },
        },
    },
}
_PROTOCOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["title", "text"],
        "properties": {
            "title": _TEXT,
            "text": _TEXT,
            "ours": _TEXT,
            "ours_on": {"type": "object", "additionalProperties": _TEXT},
        },
    },
}


@dataclass(frozen=True)
class PublishedProtocol:
    """A way of scoring under which papers report.

    Attributes:
        ours: the protocol of rislab that follows it; "" where there is none, or where that depends on the benchmark.
        ours_on: the one that follows it on a benchmark, where it shows pictures of each in its own way.
    """

    name: str
    title: str
    text: str
    ours: str
    ours_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether rislab can score by it."""
        return bool(self.ours or self.ours_on)

    def is_followed(self, protocol: str, benchmark: str) -> bool:
        """Whether a score by a protocol of rislab on a benchmark was made by it."""
        return bool(protocol) and protocol == self.ours_on.get(benchmark, self.ours)


@dataclass(frozen=True)
class FullRow:
    """The row of a table that is the whole method.

    Attributes:
        table: name of a file in ablations/.
        row: of that table.
        profile: in which the row is trained when nothing else is said.
        stage: whose checkpoint is the method's; "" for the last one.
        measured: benchmark of each profile on a paper's data whose finished trials count, by profile.
    """

    table: str
    row: str
    profile: str
    stage: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Numbers of one model in a paper, all under one protocol.

    Attributes:
        values: percent, by `benchmark/split` and metric.
    """

    name: str
    protocol: str
    source: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class PaperFile:
    """One method: what its papers report, and what is its whole method here.

    Attributes:
        full: None for one without a table.
        recipe: config of the paper's size, of one without a table; "" where there is none.
    """

    method: str
    title: str
    paper: str
    full: FullRow | None
    results: tuple[Result, ...]
    recipe: str = ""


@dataclass(frozen=True)
class Published:
    """All of a folder: protocols in the order of their file, methods in the order of theirs."""

    protocols: Mapping[str, PublishedProtocol]
    methods: tuple[PaperFile, ...]

    def of(self, method: str) -> PaperFile:
        """The file of a method. Raises ConfigError with the nearest name."""
        known = {each.method: each for each in self.methods}
        if method not in known:
            raise ConfigError(f"no method {method!r}{nearest(method, known)}; there are {', '.join(known)}")
        return known[method]


def load(folder: Path | None = None) -> Published:
    """All files of a folder. Raises ConfigError listing every mistake with file, line and nearest name.

    Args:
        folder: None: the first `ablations/papers` that a lookup finds, whole: its files name the protocols of one of them.
    """
    folder = folder or lookup.find(FOLDER / PROTOCOLS).parent
    if not (folder / PROTOCOLS).is_file():
        raise ConfigError(f"{folder / PROTOCOLS}: no such file; what papers report stands in {FOLDER}")
    file = YamlFile(folder / PROTOCOLS)
    said = _mistakes(file, _PROTOCOL_SCHEMA)
    protocols = {} if said else {name: _protocol(name, each) for name, each in file.value.items()}
    methods = []
    for path in sorted(folder.glob("*.yaml")):
        if path.name == PROTOCOLS:
            continue
        file = YamlFile(path)
        wrong = _mistakes(file, _SCHEMA) or file.blame(_meaning(path.stem, file.value, protocols))
        said += wrong
        if not wrong:
            methods.append(_method(file.value))
    if said:
        raise ConfigError(f"{len(said)} mistake{'s' if len(said) > 1 else ''} in {folder}\n" + "\n".join(said))
    return Published(protocols, tuple(methods))


def _mistakes(file: YamlFile, schema: Mapping[str, Any]) -> list[str]:
    mistakes = list(file.repeated)
    structural = list(against(schema, file.value, (), mistakes))
    return file.blame(mistakes + structural)


def _meaning(stem: str, raw: Mapping[str, Any], protocols: Mapping[str, PublishedProtocol]) -> Iterator[Mistake]:
    """Mistakes that a schema cannot see."""
    if raw["method"] != stem:
        yield ("method",), f"method {raw['method']!r} in a file named {stem}.yaml"
    for number, result in enumerate(raw["results"]):
        if result["protocol"] not in protocols:
            known = ", ".join(protocols)
            hint = nearest(result["protocol"], protocols)
            yield ("results", number, "protocol"), f"no protocol {result['protocol']!r}{hint}; known: {known}"
        for where, values in result["values"].items():
            if where.count("/") != 1:
                yield ("results", number, "values", where), f"{where!r}, expected BENCHMARK/SPLIT"
            for metric, value in values.items():
                if metric not in METRICS:
                    hint = nearest(metric, METRICS)
                    yield ("results", number, "values", where, metric), f"no metric {metric!r}{hint}"
                if not 0 <= value <= 100:
                    yield ("results", number, "values", where, metric), f"{metric} is {value}, expected percent"


def _protocol(name: str, raw: Mapping[str, Any]) -> PublishedProtocol:
    return PublishedProtocol(name, raw["title"], raw["text"], raw.get("ours", ""), raw.get("ours_on", {}))


def _method(raw: Mapping[str, Any]) -> PaperFile:
    full = raw.get("full")
    return PaperFile(
        raw["method"],
        raw["title"],
        raw["paper"],
        None
        if full is None
        else FullRow(full["table"], full["row"], full["profile"], full.get("stage", ""), full["measured"]),
        tuple(Result(r["name"], r["protocol"], r["source"], r["values"]) for r in raw["results"]),
        raw.get("recipe", ""),
    )
