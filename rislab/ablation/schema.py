"""What a table file may hold: a JSON Schema, and the part of a validator that it needs.

The same schema lies in ablations/schema.json for editors; a test keeps the two in step.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from rislab.ablation.stages import TAKES
from rislab.ablation.yaml_lines import Mistake, YamlPath
from rislab.errors import nearest
from rislab.metrics import definitions

METRICS = tuple(definitions.METRICS)
"""Per-expression metrics that a table may show and a claim may compare."""

COUNTED = ("params_m",)
"""Cells that are counted, not measured over expressions: parameters in millions."""

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
        "watch": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "logged quantities that the report plots over training: `train/mask_area: what it is`",
        },
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
                    "stages": {
                        "type": "array",
                        "description": "a row's stages in order, each a trial; without it, those that the method declares",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["name"],
                            "properties": {
                                "name": {"type": "string"},
                                "config": {
                                    "type": "array",
                                    "items": {"type": "string"},
                                    "description": "config files over the profile's; another class is fine",
                                },
                                "from": {"type": "string", "description": "an earlier stage that it starts from"},
                                "takes": {
                                    "type": "string",
                                    "enum": list(TAKES),
                                    "description": "what of that stage: the weights (default) or the files that it made",
                                },
                                "split": {
                                    "type": "string",
                                    "description": "where it is measured, if not on the profile's",
                                },
                            },
                        },
                    },
                    "folds": {
                        "type": "object",
                        "additionalProperties": {"type": "object"},
                        "description": "a row is one training a fold, each with these switches over the row's; cells show the "
                        "mean over folds",
                    },
                    "switches": {
                        "type": "object",
                        "additionalProperties": {"type": "object"},
                        "description": "by row: switches that take the place of the row's in this profile",
                    },
                    "cluster": {
                        "type": "object",
                        "description": "what trials ask of a SLURM cluster: partition, time ... (docs/clusters.md)",
                    },
                },
            },
        },
        "seeds": {"type": "array", "items": {"type": "integer"}},
        "metrics": {
            "type": "array",
            "items": {"type": "string"},
            "description": f"{', '.join(METRICS)}; STAGE:METRIC for one of an earlier stage",
        },
        "margin_of_interest": {
            "type": "number",
            "description": "the smallest difference that matters, in percent points (default 1.0): a difference that is surely "
            "smaller is negligible",
        },
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
                    "switches": {
                        "type": "object",
                        "description": "model.X is short for model.init_args.X; STAGE:model.X is for one stage, model.X for "
                        "every stage whose class has X",
                    },
                    "without": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "stages that the row leaves out",
                    },
                    "paper": {
                        "type": "object",
                        "additionalProperties": {"type": "object", "additionalProperties": {"type": "number"}},
                        "description": "by column and metric; FOLD:METRIC for one fold of a profile with folds",
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
                    "judged": {
                        "type": "boolean",
                        "description": "false: recalled, not read; shown apart, without a verdict",
                    },
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


def against(schema: Mapping[str, Any], value: Any, position: YamlPath, unknown: list[Mistake]) -> Iterator[Mistake]:
    """Mistakes of `value` against the part of JSON Schema that SCHEMA uses.

    Args:
        unknown: keys that should not be there go here, since the rest can be understood without them.
    """
    name = ".".join(map(str, position)) or "the table"
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        hint = " of {name, config, from, takes, split}" if position[-1:] == ("stages",) else ""
        yield position, f"{name} is {value!r}, expected {kind}{hint}"
        return
    value = cast(Any, value)
    if "enum" in schema and value not in schema["enum"]:
        yield position, f"{name} is {value!r}{nearest(str(value), schema['enum'])}; known: {', '.join(schema['enum'])}"
    if kind == "array":
        for number, item in enumerate(value):
            yield from against(schema["items"], item, (*position, number), unknown)
    if kind == "object":
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for key in schema.get("required", ()):
            if key not in value:
                yield position, f"{name} lacks {key!r}"
        for key, item in value.items():
            if key in known:
                yield from against(known[key], item, (*position, key), unknown)
            elif isinstance(rest, dict):
                yield from against(rest, item, (*position, key), unknown)
            elif rest is False:
                unknown.append(((*position, key), f"{key!r} is no key of {name}{nearest(str(key), known)}"))
