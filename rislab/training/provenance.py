"""What a number was made with: code, packages, hardware, command, time."""

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "open_clip_torch",
    "torchmetrics",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
)


def _git(*arguments: str) -> str | None:
    """Output of a git command about rislab's own checkout, or None where there is none (an installed package)."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout


def code() -> dict[str, Any]:
    """Commit and, when the tree differs from it, a hash of the difference."""
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD", "--", "*.py") if commit else None
    return {
        "commit": commit.strip() if commit else None,
        "dirty": hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None,
    }


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def collect() -> dict[str, Any]:
    return {
        "code": code(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "command": " ".join(sys.argv),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB (Linux counts in KiB, macOS in bytes)."""
    unit = 1024 if sys.platform == "darwin" else 1
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024, 1)
