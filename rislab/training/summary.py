"""What `fit` and `test` print when they have ended: the scores of every split, and where they lie."""

from collections.abc import Mapping
from typing import Any

from rislab.ablation.trial import TrialDir
from rislab.evaluation.arithmetic import protocol_of
from rislab.files import read_json
from rislab.metrics.definitions import METRICS


def summary(trial: TrialDir) -> str:
    """Splits by metrics, in percent with two digits, then the folder; the folder alone where nothing was scored."""
    found = read_json(trial.metrics_file)
    splits = found.get("splits", {}) if isinstance(found, dict) else {}
    where = f"{trial.path}"
    if not splits:
        return where
    splits = {name: splits[name] for name in sorted(splits, key=lambda name: (not name.startswith("val"), name))}
    names = [name for name in METRICS if any(name in scores for scores in splits.values())]
    rows = [
        ["percent", *names],
        *([split, *(_cell(scores, name) for name in names)] for split, scores in splits.items()),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([f"{found['benchmark']}, protocol {protocol_of(found)}", *map(str.rstrip, lines), where])


def _cell(scores: Mapping[str, Any], name: str) -> str:
    value = scores.get(name)
    return f"{value:.2f}" if isinstance(value, (int, float)) else ""
