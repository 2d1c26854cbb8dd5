"""Checkpoints of the methods' small versions, as a trial writes them."""

import dataclasses
import inspect
from enum import Enum
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from rislab.methods.base import TextSegmenter
from rislab.testing import Factory
from rislab.training.checkpoints import WholeCheckpointIO


def write(factory: Factory, path: Path) -> TextSegmenter:
    """Build a method, and write it whole, with the options that it was built with."""
    given: dict[str, Any] = {}
    torch.manual_seed(0)
    kind = type(factory())
    original = kind.__init__

    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        given.update(inspect.signature(original).bind(self, *args, **kwargs).arguments)
        original(self, *args, **kwargs)

    torch.manual_seed(0)
    with mock.patch.object(kind, "__init__", recording):
        method = factory()
    options = {name: plain(value) for name, value in given.items() if name != "self"}
    recipe = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": options}
    WholeCheckpointIO(recipe).save_checkpoint({"state_dict": method.state_dict()}, path)
    return method.eval()


def plain(value: Any) -> Any:
    """A constructor's argument as a checkpoint holds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
