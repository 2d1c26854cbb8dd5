"""What a number was made with: code, packages, hardware, command, and when.

`provenance.json` is begun when a trial starts and completed when it has a result; every start of the trial is in it. Beside it
lie `packages.txt`, and `code.diff` when the code differed from its commit. Nothing of this goes into `metrics.json`.
"""

import hashlib
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rislab.ablation import plugins
from rislab.files import read_json, write_bytes, write_json, write_text

PACKAGE = Path(__file__).parents[1]
FILE = "provenance.json"
DIFF = "code.diff"
LOCK = "packages.txt"

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
"""Those that the report names; `packages.txt` has them all."""

SOURCES = (".py", ".yaml", ".jinja")
"""Files of the package that git does not know yet count as changes when they are one of these."""

SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST", "SLURM_RESTART_COUNT")


def begin(folder: Path, arguments: Sequence[str]) -> None:
    """Write down what the trial in `folder` is being started with. arguments: of `rislab`."""
    difference = _difference()
    this = {
        "code": code(difference),
        "packages": {name: importlib.metadata.version(name) for name in (*PACKAGES, *plugins.distributions())},
        "python": platform.python_version(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["rislab", *arguments]),
    }
    _keep(folder / DIFF, difference)
    write_text(folder / LOCK, "".join(f"{line}\n" for line in packages()))
    before = _read(folder)
    start = {name: this[name] for name in ("code", "command", "threads")} | _start()
    write_json(folder / FILE, before | this | {"starts": [*before.get("starts", []), start]})


def end(folder: Path, seconds: dict[str, float], **found: Any) -> None:
    """Complete what `begin` wrote; seconds by stage, and the peak of memory, count over all starts of the trial."""
    before = _read(folder)
    whole = dict(before.get("seconds", {}))
    for stage, value in seconds.items():
        whole[stage] = round(whole.get(stage, 0.0) + value, 2)
    starts = [*before.get("starts", [])] or [_start()]
    starts[-1] = starts[-1] | {"ended": round(time.time(), 2), "wandb": _wandb(folder)}
    # Also of threads and GPUs that were not there yet when the trial was begun.
    peaks = {"peak_memory_mb": peak_memory_mb(), "peak_gpu_memory_mb": peak_gpu_memory_mb()}
    peaks = {name: max(filter(None, (value, before.get(name))), default=None) for name, value in peaks.items()}
    write_json(
        folder / FILE,
        before
        | {"hardware": hardware(), "threads": torch.get_num_threads(), "seconds": whole, "starts": starts}
        | peaks
        | found,
    )


def _start() -> dict[str, Any]:
    """When and where a start happened, and as part of what."""
    slurm = {name.removeprefix("SLURM_").lower(): os.environ[name] for name in SLURM if name in os.environ}
    return {
        "started": round(time.time(), 2),
        "ended": None,
        "host": platform.node(),
        "slurm": slurm or None,
        "wandb": os.environ.get("WANDB_RUN_ID"),
    }


def _wandb(folder: Path) -> str | None:
    """Id of the run of wandb that mirrors the trial, or that this process is in."""
    mirrored = read_json(folder / "wandb.json")
    found = mirrored.get("id") if isinstance(mirrored, dict) else None
    return found if isinstance(found, str) else os.environ.get("WANDB_RUN_ID")


def _read(folder: Path) -> dict[str, Any]:
    found = read_json(folder / FILE)
    return found if isinstance(found, dict) else {}


def _keep(path: Path, content: bytes | None) -> None:
    """The file says what the code of the latest start was; what an earlier one said under that name is kept beside it."""
    before = path.read_bytes() if path.exists() else None
    if before is not None and before != content:
        path.rename(path.with_name(f"code-{_short(before)}.diff"))
    if content and before != content:
        write_bytes(path, content)


def _git(*arguments: str, fine: tuple[int, ...] = (0,)) -> bytes | None:
    """Output of a git command in the folder that the package lies in, or None when it fails. fine: exit codes that are not."""
    command = ["git", "-c", "core.quotePath=off", *arguments]
    try:
        run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout if run.returncode in fine else None


def _is_checkout() -> bool:
    """Whether the package is git's here; installed into a folder of some other repository, it is none of its files."""
    return _git("ls-files", "--error-unmatch", f"{PACKAGE.name}/__init__.py") is not None


def code(difference: bytes | None) -> dict[str, Any]:
    """Commit and, when the package differs from it, a hash of the difference."""
    commit = _git("rev-parse", "HEAD") if _is_checkout() else None
    return {
        "commit": commit.decode().strip() if commit else None,
        "dirty": _short(difference) if difference else None,
    }


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _difference() -> bytes | None:
    """What `git apply` needs to make the package's code of its commit, new files included; None when they are the same."""
    if not _is_checkout():
        return None
    options = ("--binary", "--no-ext-diff", "--no-color")
    shown = [_git("diff", *options, "HEAD", "--", PACKAGE.name) or b""]
    new = (_git("ls-files", "--others", "--exclude-standard", "-z", "--", PACKAGE.name) or b"").split(b"\0")
    for name in sorted(os.fsdecode(each) for each in new):
        if name.endswith(SOURCES):
            shown.append(_git("diff", *options, "--no-index", "--", os.devnull, name, fine=(0, 1)) or b"")
    return b"".join(shown) or None


def packages() -> list[str]:
    """Every installed distribution as `name==version`, sorted, as `pip freeze` writes it."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = _named(distribution)
        if name and version:
            found.setdefault(name.lower().replace("_", "-"), f"{name}=={version}")
    return [found[name] for name in sorted(found)]


def _named(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Name and version from the head of its metadata; parsing the whole takes ten times as long."""
    head: dict[str, str] = {}
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if not colon or len(head) == 2:
            break
        if key in ("Name", "Version"):
            head[key] = value.strip()
    return head.get("Name", ""), head.get("Version", "")


def hardware() -> dict[str, Any]:
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mb": _memory_mb(),
        "gpus": [card.name for card in cards],
        "gpu_memory_mb": [round(card.total_memory / 2**20) for card in cards],
        "gpu_driver": _driver() if cards else None,
        "system": platform.platform(),
    }


@cache
def _driver() -> str | None:
    """Version of NVIDIA's driver, or None where it does not say."""
    try:
        line = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
        return next((word for word in line.split() if word[:1].isdigit() and "." in word), None)
    except (OSError, IndexError):
        pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


def _memory_mb() -> int | None:
    """Of the machine, in MiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (OSError, ValueError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB (Linux counts in KiB, macOS in bytes)."""
    unit = 1024 if sys.platform == "darwin" else 1
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024, 1)


def peak_gpu_memory_mb() -> float | None:
    """Most memory that this process has held of any one of its GPUs, in MiB; None without a GPU."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(max(torch.cuda.max_memory_reserved(i) for i in range(torch.cuda.device_count())) / 2**20, 1)
