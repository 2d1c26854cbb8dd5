"""The bench page: each piece of work is measured into a file of its own, and the page is made of the files that are there."""

import importlib
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from rislab.ablation import identity
from rislab.ablation.yaml_lines import read_yaml
from rislab.bench.works import Work
from rislab.files import read_json, write_json
from rislab.printable import printable

MEASURES = ("cpu_seconds", "grown_mb")


def file_of(work: Work, folder: Path) -> Path:
    return folder / f"{work.name}.json"


def recipe_of(work: Work, vocabulary: Path | None) -> dict[str, Any]:
    """Class and options of the method; `vocabulary` is BERT's."""
    from rislab.ablation import lookup

    recipe: dict[str, Any] = read_yaml(lookup.find(work.config))["model"]
    bert = recipe.get("init_args", {}).get("bert")
    if bert is not None and vocabulary is not None:
        recipe["init_args"]["bert"] = bert | {"vocabulary": str(vocabulary)}
    return recipe


def digest(work: Work, recipe: dict[str, Any]) -> str:
    """Of what is measured: a file of another one does not count."""
    options = {way: {**work.options, **own} for way, own in (("rislab", work.ours), ("plain", work.plain))}
    at = identity.resolve(recipe)
    at["init_args"].get("bert", {}).pop("vocabulary", None)  # where it lies changes nothing
    return identity.digest({"model": at, "module": work.module, "options": options})


def is_measured(work: Work, folder: Path, vocabulary: Path | None) -> bool:
    found = read_json(file_of(work, folder))
    return (
        isinstance(found, dict)
        and found.get("digest") == digest(work, recipe_of(work, vocabulary))
        and "fault" not in found
    )


def measure(work: Work, folder: Path, vocabulary: Path | None, threads: int = 1) -> dict[str, Any]:
    """Both ways, each in a process of its own where the module does not run both; what is found is written to the work's file.

    Raises:
        RislabError, RuntimeError: It cannot be measured.
    """
    from rislab.bench.training_step import in_a_process_of_its_own

    recipe = recipe_of(work, vocabulary)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)  # of the processes that are started
    found: dict[str, Any]
    if not work.ours and not work.plain:
        found = dict(in_a_process_of_its_own(work.module, recipe=recipe, **work.options))
    else:
        found = {}
        with tempfile.TemporaryDirectory() as kept:
            files = {way: Path(kept) / way for way in ("rislab", "plain")}
            for way, own in (("rislab", work.ours), ("plain", work.plain)):
                own = own | ({work.keeps: str(files[way])} if work.keeps else {})
                found[way] = in_a_process_of_its_own(work.module, recipe=recipe, counts=True, **work.options, **own)
            if work.compare:
                number = getattr(importlib.import_module(work.module), work.compare)(*files.values())
                kind = "difference" if "difference" in work.compare else "same_label_percent"
                found[kind] = number
        ours, plain = found["rislab"], found["plain"]
        found["matrix_rate"] = max(ours.pop("matrix_rate"), plain.pop("matrix_rate"))
        found["ratio"] = {name: plain[name] / max(ours[name], 1e-9) for name in MEASURES if name in ours}
        found["bound"] = plain["gflop"] / ours["gflop"]
        found["share_of_rate"] = ours["gflop"] / ours["cpu_seconds"] / found["matrix_rate"]
    found |= {"work": work.name, "digest": digest(work, recipe), "machine": machine(threads), "measured": time.time()}
    write_json(file_of(work, folder), found)
    return found


def machine(threads: int) -> str:
    """Processor and threads."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return printable(f"{name}, {threads} {'thread' if threads == 1 else 'threads'}")
