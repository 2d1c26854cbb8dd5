"""Where a trial may run on this machine: cores as slots, GPUs as memory that small trials share."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rislab.errors import ConfigError

FILL = 0.9
"""Share of a device's memory that is given out: what a trial took is measured, what the next one takes is not."""


@dataclass(frozen=True)
class Device:
    """A GPU by the name that CUDA_VISIBLE_DEVICES takes, with its memory in MiB; None where the driver does not say it."""

    name: str
    memory_mb: float | None


@dataclass(frozen=True)
class Requirement:
    """What a trial takes. gpus: 0 on the CPU. memory_mb: of each GPU, as measured; None when it was never measured."""

    gpus: int = 0
    memory_mb: float | None = None


@dataclass(frozen=True)
class Allocation:
    """What a running trial has. devices: names of its GPUs; memory_mb: of each, None for the whole."""

    devices: tuple[str, ...] = ()
    memory_mb: float | None = None


@dataclass
class ResourcePool:
    """slots: trials at once, wherever they run. devices: GPUs that may be used."""

    slots: int
    devices: Sequence[Device] = ()
    taken: list[Allocation] = field(default_factory=list)

    def take(self, need: Requirement) -> Allocation | None:
        """A place for a trial, or None while there is none.

        A trial that was measured shares a GPU with others that were, as long as all of them fit; of those with free memory the
        fullest is taken, so that empty ones stay empty for large trials. One that was never measured, or needs several, gets its
        GPUs alone; so does a trial on a GPU of unknown memory.
        """
        if len(self.taken) >= self.slots:
            return None
        allocation = Allocation() if need.gpus == 0 else self._on_gpus(need)
        if allocation is not None:
            self.taken.append(allocation)
        return allocation

    def can_ever_take(self, need: Requirement) -> bool:
        """Whether there are enough GPUs at all, were all of them free."""
        return need.gpus <= len(self.devices)

    def _on_gpus(self, need: Requirement) -> Allocation | None:
        taken = {
            device.name: [allocation for allocation in self.taken if device.name in allocation.devices]
            for device in self.devices
        }
        if need.gpus == 1 and need.memory_mb is not None:
            used = {
                name: sum(allocation.memory_mb or 0.0 for allocation in allocations)
                for name, allocations in taken.items()
            }
            fitting = [
                device.name
                for device in self.devices
                if device.memory_mb is not None
                and all(allocation.memory_mb is not None for allocation in taken[device.name])
                and used[device.name] + need.memory_mb <= FILL * device.memory_mb
            ]
            if fitting:
                return Allocation((max(fitting, key=lambda name: used[name]),), need.memory_mb)
        # Whole GPUs also for a trial that was measured and is larger than the share that is given out.
        empty = [device.name for device in self.devices if not taken[device.name]]
        return Allocation(tuple(empty[: need.gpus])) if len(empty) >= need.gpus else None

    def give_back(self, allocation: Allocation) -> None:
        self.taken.remove(allocation)


@dataclass(frozen=True)
class _Gpu:
    """As nvidia-smi lists it."""

    index: str
    uuid: str
    memory_mb: float | None


def gpus(environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES where it is set, else all that the driver lists.

    The user's or the scheduler's own names are kept (an index, GPU-uuid, MIG-uuid): what is given out is what was allowed.
    None where there is no driver and nothing was named, and where CUDA_VISIBLE_DEVICES is empty or -1.
    """
    there = _listed()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [Device(gpu.index, gpu.memory_mb) for gpu in there]
    return [Device(name, _memory(name, there, environment)) for name in _allowed(visible, there)]


def _allowed(visible: str, there: Sequence[_Gpu]) -> list[str]:
    """The names in CUDA_VISIBLE_DEVICES, as CUDA reads it: up to the first that names nothing; repeated ones once."""
    allowed: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        is_index = name.isascii() and name.isdecimal()
        if is_index and there and name not in {gpu.index for gpu in there}:
            break
        if not is_index and not name.startswith(("GPU-", "MIG-")):
            break
        if name not in allowed:
            allowed.append(name)
    return allowed


def _memory(name: str, there: Sequence[_Gpu], environment: Mapping[str, str]) -> float | None:
    """Of a device in CUDA_VISIBLE_DEVICES, where nvidia-smi's list tells which one it is.

    CUDA may count the GPUs in another order than nvidia-smi (CUDA_DEVICE_ORDER=FASTEST_FIRST): then an index says how much
    memory there is only when all have the same.
    """
    if name.isdecimal():
        same = environment.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID") == "PCI_BUS_ID"
        found = [gpu.memory_mb for gpu in there if not same or gpu.index == name]
        return found[0] if len(set(found)) == 1 else None
    found = [gpu.memory_mb for gpu in there if gpu.uuid and gpu.uuid.startswith(name)]  # CUDA takes abbreviations
    return found[0] if len(found) == 1 else None


def _listed() -> list[_Gpu]:
    """What nvidia-smi lists; nothing where there is none, or where it fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) > 1 and parts[0].isascii() and parts[0].isdecimal():
            found.append(_Gpu(parts[0], parts[1] if len(parts) > 2 else "", _mebibytes(parts[-1])))
    return found


def _mebibytes(text: str) -> float | None:
    """None for `[N/A]`, `[Insufficient Permissions]` and whatever else is no positive number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def chosen(text: str | None, there: Sequence[Device]) -> list[Device]:
    """GPUs that `--devices` asks for: all, so many (`2`), or these (`0,3`, `GPU-1f2e`). Raises ConfigError."""
    if text is None:
        return list(there)
    names = [device.name for device in there]
    known = f"there are {', '.join(names) or 'none'}"
    if text.isascii() and text.isdecimal():
        if not 0 < int(text[:9]) <= len(there):
            raise ConfigError(f"--devices {text!r}: expected how many GPUs (2) or which (0,3); {known}")
        return list(there[: int(text)])
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise ConfigError(
            f"--devices {text!r}: no GPU {missing[0] if missing else text!r}; expected how many (2) or which (0,3); {known}"
        )
    return [device for device in there if device.name in wanted]
