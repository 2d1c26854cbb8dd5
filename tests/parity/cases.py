"""Official numbers on disk: a case is a folder with case.json and safetensors of weights, inputs and outputs."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

REQUIRED = "RISLAB_PARITY_REQUIRED"
ROOT = Path(os.environ.get("RISLAB_PARITY") or Path(__file__).parents[3] / "shared" / "parity")


@dataclass(eq=False)
class Case:
    path: Path

    def __post_init__(self) -> None:
        self.about: dict[str, Any] = json.loads((self.path / "case.json").read_text())
        # Some cases store what was float16 before the run in float16; the run itself was float32.
        weights = self.path / "weights.safetensors"  # absent where there is nothing to learn
        stored = load_file(weights) if weights.exists() else {}
        self.weights = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
        self.inputs = load_file(self.path / "inputs.safetensors")
        self.outputs = load_file(self.path / "outputs.safetensors")

    def __getitem__(self, name: str) -> Tensor:
        return self.inputs[name] if name in self.inputs else self.outputs[name]

    def names(self, prefix: str) -> list[str]:
        """Names of stored tensors below a prefix, without it."""
        return sorted(name.removeprefix(prefix) for name in self.outputs if name.startswith(prefix))

    @property
    def tolerance(self) -> dict[str, Any]:
        return dict(self.about["tolerances"])


def cases(method: str) -> list[Case]:
    """The cases of a method. Where RISLAB_PARITY_REQUIRED is 1, each that expected.txt names must be there."""
    found = [path for path in sorted((ROOT / method).glob("*")) if (path / "case.json").exists()]
    if os.environ.get(REQUIRED, "0") not in ("", "0"):
        missing = expected(method) - {path.name for path in found}
        assert not missing, f"{REQUIRED} is set, and {ROOT / method} lacks {', '.join(sorted(missing))}"
    return [Case(path) for path in found]


def expected(method: str) -> set[str]:
    """Names of the cases that there have been."""
    names = Path(__file__).with_name("expected.txt").read_text().split()
    return {case for of, case in (name.split("/") for name in names) if of == method}


def close(ours: Tensor | np.ndarray, official: Tensor, name: str, atol: float, rtol: float = 0.0) -> None:
    """Assert |ours - official| <= atol + rtol |official| everywhere, naming the tensor and the largest difference."""
    mine = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, np.float64)
    theirs = official.double().numpy()
    assert mine.shape == theirs.shape, f"{name}: shape {mine.shape}, official {theirs.shape}"
    excess = np.abs(mine - theirs) - rtol * np.abs(theirs)
    assert excess.max() <= atol, (
        f"{name}: off by {np.abs(mine - theirs).max():.3g}, allowed {atol:g} + {rtol:g} relative"
    )
