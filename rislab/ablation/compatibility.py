"""Whether a data module gives the batches that a method trains on, read from their sources."""

from collections.abc import Mapping
from typing import Any

from rislab.ablation import signature
from rislab.errors import ConfigError


def check_batches(config: Mapping[str, Any]) -> None:
    """Compare what a config's method trains on with what its data gives.

    Args:
        config: of a training run, with `model` and `data` as class path and options.

    Raises:
        ConfigError: They differ; it names both, and what would fit.
    """
    model, data = config["model"]["class_path"], config["data"]["class_path"]
    if not (signature.is_described(model) and signature.is_described(data)):
        return
    if (
        signature.read(model).produces
        or signature.trains_nothing(model, config["model"].get("init_args") or {})
        or not _trains(config)
    ):
        return
    wanted, given = signature.read(model).trains_on, signature.read(data).gives
    if not wanted or given in wanted:
        return
    fitting = sorted(name for name, path in signature.data_modules().items() if signature.read(path).gives in wanted)
    others = sorted(
        name for name, path in signature.methods().items() if given and given in signature.read(path).trains_on
    )
    named = " or ".join(wanted)
    gives = f"gives {given}" if given else "gives no training batches"
    raise ConfigError(
        f"{_short(model)} trains on {named}, {_short(data)} {gives}; data that give {named}: {', '.join(fitting) or 'none'}"
        + (f"; methods that train on {given}: {', '.join(others) or 'none'}" if given else "")
    )


def _trains(config: Mapping[str, Any]) -> bool:
    """False for a run that scores what an earlier one trained."""
    return bool((config.get("trial") or {}).get("train", True))


def _short(class_path: str) -> str:
    return class_path.rpartition(".")[2]
