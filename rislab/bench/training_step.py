"""What a training step of a recipe takes, with its trunk frozen as it is and with all of it trained: time, memory, work."""

import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rislab.bench.random_weights import with_random_weights
from rislab.data.batch import MaskQueries, members
from rislab.data.synthetic import batch_of
from rislab.errors import ConfigError, DataError, DiskError


@dataclass(frozen=True)
class StepCost:
    """Mean seconds of a step after warm-up; memory_mb: peak of the process (CPU) or of the device; teraflops: of one step."""

    trained_millions: float
    seconds: float
    samples_a_second: float
    memory_mb: float
    teraflops: float

    @property
    def teraflops_a_second(self) -> float:
        return self.teraflops / self.seconds

    def as_json(self) -> dict[str, float]:
        return asdict(self) | {"teraflops_a_second": self.teraflops_a_second}


def measure(
    recipe: dict[str, Any], images: int, queries: int, steps: int, all_trained: bool, precision: str, compiled: bool
) -> StepCost:
    """In this process, on the GPU if there is one. precision: `float32` or `bfloat16` (autocast)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    method = with_random_weights(recipe).train().to(device)
    if all_trained:
        for parameter in method.parameters():
            parameter.requires_grad_(True)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-6)
    kind, *_ = (*members(method.trains_on), MaskQueries)
    batch = batch_of(kind, method.geometry, images, queries, vocabulary=method.vocabulary).to(device)
    losses = torch.compile(method.losses) if compiled else method.losses

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            total = torch.stack(list(losses(batch).values())).sum()
        total.backward()
        optimiser.step()
        optimiser.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return StepCost(
        sum(parameter.numel() for parameter in trained) / 1e6,
        seconds,
        images * queries / seconds,
        peak,
        counter.get_total_flops() / 1e12,
    )


def in_a_process_of_its_own(module: str, **options: Any) -> dict[str, float]:
    """`measure` of a module in a fresh process, as its fields, so that one run's peak memory is not another's."""
    import json

    code = (
        "import importlib, json, sys; from rislab.training.cli import quiet; quiet(); "
        "found = importlib.import_module(sys.argv[1]).measure(**json.loads(sys.argv[2])); "
        "print(json.dumps(found if isinstance(found, dict) else vars(found)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module, json.dumps(options)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        died = "the measurement ended without a message"
        if done.returncode < 0:
            why = ", as the system does where memory is short" if done.returncode == -signal.SIGKILL else ""
            died = f"the measurement was ended by signal {-done.returncode}{why}"
        last = died if done.returncode < 0 or not done.stderr.strip() else done.stderr.strip().splitlines()[-1]
        for kind in (ConfigError, DataError, DiskError):
            name = f"{kind.__module__}.{kind.__name__}: "
            if last.startswith(name):
                raise kind(last.removeprefix(name))
        raise RuntimeError(last)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
