"""What one picture costs a method: parameters, work, time and memory, each in a process of its own, written to a file."""

import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rislab.ablation import identity, lookup, plan, table
from rislab.ablation.published import PaperFile
from rislab.ablation.yaml_lines import read_yaml
from rislab.bench.operations import counted
from rislab.bench.random_weights import with_random_weights
from rislab.bench.resident_memory import peak, start_of_peak
from rislab.bench.training_step import in_a_process_of_its_own
from rislab.data.vocabularies import BACKGROUND
from rislab.errors import ConfigError, RislabError
from rislab.files import read_json, write_json
from rislab.nn.matrix_products import fast_products

TEXT = "the small red circle on the left"
"""What a method for sentences is given."""
TIMES = 5


@dataclass(frozen=True)
class Subject:
    """A method at one scale.

    Attributes:
        scale: `toy`, or `paper`: the recipe of the paper, with random weights.
        config: where the recipe comes from, as reports print it.
        recipe: class and options.
    """

    method: str
    scale: str
    config: str
    recipe: dict[str, Any]

    def file(self, folder: Path) -> Path:
        return folder / f"{self.method}-{self.scale}.json"

    @property
    def digest(self) -> str:
        return identity.digest(identity.resolve(self.recipe))


def subjects(paper: PaperFile) -> Iterator[Subject]:
    """A method at the scale of the toy world and, where there is such a recipe, at its paper's. Raises ConfigError."""
    if paper.full is None:
        given = {"toy": lookup.find(f"experiments/{paper.method}/toy.yaml")}
        given |= {"paper": lookup.find(paper.recipe)} if paper.recipe else {}
        for scale, path in given.items():
            yield Subject(paper.method, scale, str(path), read_yaml(path)["model"])
        return
    loaded = table.load(table.find(paper.full.table))
    theirs = next((name for name, profile in loaded.profiles.items() if profile.is_paper_dataset), None)
    for scale, name in (("toy", paper.full.profile), ("paper", theirs)):
        if name is None:
            continue
        cells = plan.plan(loaded, loaded.profile(name), [0], Path("runs"), [paper.full.row])
        cell = next(c for c in cells if (c.stage == paper.full.stage if paper.full.stage else c.is_last))
        yield Subject(paper.method, scale, f"{paper.full.row} of {paper.full.table}, {name}", cell.config["model"])


def is_measured(subject: Subject, folder: Path) -> bool:
    """Whether there is a file of this very recipe, with numbers."""
    found = read_json(subject.file(folder))
    return isinstance(found, dict) and found.get("model") == subject.digest and "error" not in found


def save(subject: Subject, folder: Path) -> str:
    """Measure, and write `METHOD-SCALE.json`; what cannot be measured is written down with its reason.

    Returns:
        The reason; "" where there are numbers.
    """
    about = {"method": subject.method, "scale": subject.scale, "config": subject.config, "model": subject.digest}
    try:
        found: dict[str, Any] = dict(in_a_process_of_its_own("rislab.bench.cost", recipe=subject.recipe))
    except (RislabError, RuntimeError) as error:
        found = {"error": " ".join(str(error).split())[:300]}
    write_json(subject.file(folder), about | found)
    return str(found.get("error", ""))


@torch.inference_mode()
def measure(recipe: dict[str, Any]) -> dict[str, Any]:
    """In this process, on the GPU if there is one: one picture of noise, with one sentence or a closed vocabulary's names."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    before = start_of_peak()
    model = with_random_weights(recipe).eval().to(device)
    height, width = model.geometry.size
    images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, device=device)
    index = torch.zeros(1, dtype=torch.int64, device=device)

    def answer() -> None:
        with fast_products(model):
            if model.vocabulary is None:
                model.segment(images, [TEXT], index)
            else:
                # Background is what no name is, and no query.
                model.segment_vocabulary(images, [name for name in model.vocabulary if name != BACKGROUND])
        if device.type == "cuda":
            torch.cuda.synchronize()

    answer()
    gflops = counted(answer)
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - began)
    memory = max(0.0, peak() - before)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if not parameters:
        raise ConfigError("it has no parameters to count")
    return {
        "picture": [height, width],
        "parameters_m": parameters / 1e6,
        "gflops": gflops,
        "seconds": statistics.median(seconds),
        "memory_mb": memory,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }
