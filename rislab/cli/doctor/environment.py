"""This installation, as an issue needs it: what is installed, what it runs on, where things lie. No keys, no names of users."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rislab import __version__
from rislab.files import cache_dir

PACKAGES = (
    "torch", "torchvision", "lightning", "open_clip_torch", "timm", "transformers", "numpy", "pyarrow", "opencv-python-headless",
    "albumentations", "pycocotools", "safetensors", "tokenizers", "jsonargparse", "torchmetrics", "textblob", "wandb", "submitit",
    "lmdb",
)  # fmt: skip
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RISLAB_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME",
    "WANDB_MODE", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME",
)  # fmt: skip
SECONDS = 10
"""That a program of the machine may take to answer."""

Section = dict[str, str]


def page(data: Path | None) -> dict[str, Section]:
    """What is known of this installation, by section.

    Args:
        data: where data sets lie; None for `data`.
    """
    return {
        "rislab": _rislab(),
        "packages": dict(_packages()),
        "machine": _machine(),
        "caches": dict(_caches()),
        "data": _data(data or Path("data")),
        "environment": {name: tidy(os.environ[name]) for name in VARIABLES if name in os.environ},
        "slurm": _slurm(),
        "wandb": _wandb(),
    }


def page_text(found: dict[str, Section]) -> str:
    """The page as plain text, a line an entry."""
    lines = []
    for title, section in found.items():
        lines.append(f"{title}:{'' if section else ' -'}")
        width = max(map(len, section), default=0)
        lines += [f"  {name:{width}}  {value}" for name, value in section.items()]
    return "\n".join(lines)


def tidy(text: object) -> str:
    """A path without the user's name."""
    home = str(Path.home())
    return str(text).replace(home, "~") if len(home) > 1 else str(text)


def _rislab() -> Section:
    from rislab.training.provenance import code

    found = code(None)
    return {
        "version": __version__,
        "commit": str(found.get("commit") or "none: not a checkout"),
        "folder": tidy(Path(__file__).parents[2]),
        "python": f"{platform.python_version()}, {tidy(sys.executable)}",
    }


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def _machine() -> Section:
    import torch

    from rislab.training.provenance import hardware

    found = hardware()
    gpus = [f"{name}, {memory} MiB" for name, memory in zip(found["gpus"], found["gpu_memory_mb"], strict=True)] or [
        "none"
    ]
    section = {
        "system": str(found["system"]),
        "processor": f"{found['processor']}, {found['cores']} cores, {_usable()} usable, {torch.get_num_threads()} threads",
        "memory": f"{found['memory_mb']} MiB",
        "GPUs": "; ".join(gpus),
        "CUDA": f"built for {torch.version.cuda or 'none'}, driver {found['gpu_driver'] or 'none'}",
    }
    if torch.backends.mps.is_available():
        section["MPS"] = "available"
    return section


def _usable() -> int:
    """Cores that this process may use: a job or a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caches() -> Iterator[tuple[str, str]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for name, folder in (("rislab", cache_dir()), ("Hugging Face", Path(HF_HUB_CACHE)), ("runs", Path("runs"))):
        yield name, _folder(folder)


def _folder(path: Path) -> str:
    """`~/.cache/rislab: 3 entries, 12 GiB free`."""
    shown = tidy(path)
    there = (
        path if path.exists() else next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    )
    try:
        free = f"{shutil.disk_usage(there).free / 2**30:.1f} GiB free"
        if not path.exists():
            return f"{shown}: not there yet, {free}"
        count = sum(1 for _ in path.iterdir())
    except OSError as error:
        return f"{shown}: {error.strerror}"
    writable = "" if os.access(path, os.W_OK) else ", read-only"
    return f"{shown}: {count} entries, {free}{writable}"


def _data(root: Path) -> Section:
    """Which data sets lie below a root; whether they are whole is what `rislab data check` says."""
    from rislab.data import benchmark_trees
    from rislab.errors import DataError

    if not root.is_dir():
        return {tidy(root): "no such folder"}
    benchmarks = []
    for name in benchmark_trees.known():
        of = benchmark_trees.benchmark(name)
        for split in of.listed_splits:
            try:
                if benchmark_trees.Tree(root, of).items(split):
                    benchmarks.append(name)
                    break
            except DataError:
                continue
    referring = sorted(path.parent.name for path in root.glob("*/instances.json"))
    return {
        "root": tidy(root),
        "benchmarks": ", ".join(benchmarks) or "none",
        "referring": ", ".join(referring) or "none",
        "whole?": f"rislab data check {tidy(root)}",
    }


def _slurm() -> Section:
    if shutil.which("sbatch") is None:
        found = {"sbatch": "not found"}
    else:
        found = {
            "sbatch": _output_of("sbatch", "--version"),
            "partitions": _output_of("sinfo", "-h", "-o", "%P %a %l %D"),
        }
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None:
        found["job"] = (
            f"{job}, {os.environ.get('SLURM_NTASKS', '?')} tasks, {os.environ.get('SLURM_JOB_NUM_NODES', '?')} nodes"
        )
    return found


def _output_of(*command: str) -> str:
    """What a program prints, in one line; or why it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no answer: {type(error).__name__}"
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return "; ".join(lines[:6]) or f"exit code {done.returncode}"


def _wandb() -> Section:
    """Whether it is there and told who we are; what the key is, is not read."""
    has_key = "WANDB_API_KEY" in os.environ
    return {
        "mode": os.environ.get("WANDB_MODE", "online"),
        "server": "another than wandb.ai" if "WANDB_BASE_URL" in os.environ else "wandb.ai",
        "key": "in WANDB_API_KEY" if has_key else "not in the environment; `wandb login` may have kept one",
    }
