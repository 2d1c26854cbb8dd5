"""The Python blocks of the README run as they stand; models, masks and tables that a reader would have are put in their place."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rislab
from tests.api.checkpoints import write
from tests.documents import blocks
from tests.methods.every import factories
from tests.worlds import ROOT


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        Image.fromarray(pixels).save(name)
    write(factories()["cris"], tmp_path / "best.ckpt")
    model, load = rislab.load("best.ckpt"), rislab.load
    calls: list[str] = []

    def loaded(*given: Any, **named: Any) -> rislab.Model:
        inspect.signature(load).bind(*given, **named)
        calls.append("load")
        return model

    class Stand:
        """For scores and tables, which need data: the names that the block uses must exist."""

        def __init__(self, real: Any, kind: type) -> None:
            self.real, self.kind = real, kind

        def __call__(self, *given: Any, **named: Any) -> Any:
            inspect.signature(self.real).bind(*given, **named)
            calls.append(self.real.__name__)
            return self

        def __getattr__(self, name: str) -> Any:
            assert name in self.kind.__annotations__ or hasattr(self.kind, name), name
            return {}

    monkeypatch.setattr(rislab, "load", loaded, raising=False)
    monkeypatch.setattr(rislab, "score", Stand(rislab.score, rislab.Scored), raising=False)
    monkeypatch.setattr(rislab, "results", Stand(rislab.results, rislab.TableResults), raising=False)
    scope: dict[str, Any] = {"rislab": rislab, "array": pixels}
    found = [block.text for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert len(found) >= 2
    for block in found:
        exec(compile(block, "README.md", "exec"), scope)
    assert Path("photo-masks.jpg").exists()
    assert {"load", "score", "results"} <= set(calls)
