"""What it changes to score a trained network in bfloat16: each score of a trial's test splits, and the time."""

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from rislab.ablation.trial import TrialDir
from rislab.errors import ConfigError
from rislab.evaluation.base import Evaluation, Precision
from rislab.files import read_json, write_json
from rislab.methods.base import TextSegmenter
from rislab.metrics.definitions import METRICS

LARGEST_CHANGE = 0.05
"""Points by which scores of a referring set may change for bfloat16 to be offered there."""


def measure(trial: str, precision: Precision, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The scores of a trial's best checkpoint in one precision, in this process, without a change of the trial.

    Args:
        trial: Directory of a finished trial.
        precision: Of the network.
        data: Section `data` of a config, scored in place of the trial's own.

    Returns:
        `scores`: by split and metric, in percent; `cpu_seconds` of all threads, the start of the data included.

    Raises:
        ConfigError: No trial there.
    """
    from rislab.training.cli import RislabCLI

    at = TrialDir(Path(trial))
    if not at.config.is_file():
        raise ConfigError(f"{trial} is no trial: it has no {at.config.name}")
    given: property = vars(TextSegmenter)["evaluation"]

    def evaluation(self: TextSegmenter) -> Evaluation:
        found: Evaluation = given.__get__(self)
        found.precision = precision
        return found

    best = at.path / "checkpoints" / "best.ckpt"
    checkpoint = ["--ckpt_path", str(best)] if best.is_file() else []
    with tempfile.TemporaryDirectory() as folder, patch.object(TextSegmenter, "evaluation", property(evaluation)):
        kept = [f"--trainer.default_root_dir={folder}", "--trial.answers_mb=0", "--trial.predictions=0"]
        config = at.config
        if data is not None:
            config = Path(folder) / "scored.yaml"
            content = yaml.safe_load(at.config.read_text())
            config.write_text(yaml.safe_dump(content | {"data": data}))
        began = time.process_time()
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            RislabCLI(["test", "--config", str(config), *checkpoint, *kept])
        seconds = time.process_time() - began
        result = read_json(TrialDir(Path(folder)).metrics_file)
    scores = {
        split: {name: value for name, value in found.items() if name in METRICS and value is not None}
        for split, found in result["splits"].items()
    }
    return {
        "scores": scores,
        "cpu_seconds": seconds,
        "benchmark": result.get("benchmark"),
        "protocol": result.get("protocol"),
    }


def compared(trial: Path, results: Path, data: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
    """Both precisions, each in a process of its own; what is found is written to `RESULTS/precision-TABLE-TRIAL[-NAME].json`.

    Args:
        trial: Directory of a finished trial.
        results: Of the files.
        data: Section `data` of a config, scored in place of the trial's own.
        name: Of these data.
    """
    from rislab.bench.training_step import in_a_process_of_its_own

    if not isinstance(read_json(TrialDir(trial).metrics_file), dict):
        raise ConfigError(f"{trial} is no finished trial, expected a directory with metrics.json")
    found: dict[str, Any] = {
        precision: in_a_process_of_its_own("rislab.bench.precision", trial=str(trial), precision=precision, data=data)
        for precision in ("float32", "bfloat16")
    }
    full, half = found["float32"]["scores"], found["bfloat16"]["scores"]
    found["change"] = {
        split: {name: half[split][name] - value for name, value in scores.items()} for split, scores in full.items()
    }
    scored = {key: found["float32"][key] for key in ("benchmark", "protocol")}
    found |= {"trial": "/".join(trial.parts[-2:]), **scored}
    suffix = f"-{name}" if name else ""
    write_json(results / f"precision-{trial.parts[-2]}-{trial.name}{suffix}.json", found)
    return found


def largest(found: dict[str, Any]) -> float:
    """The largest change of a score, in points."""
    return max((abs(value) for scores in found["change"].values() for value in scores.values()), default=0.0)
