"""Where a trial may run on this machine: cores as slots, GPUs as memory that small trials share."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from rislab.errors import ConfigError

FILL = 0.9
"""Share of a device's memory that is given out: what a trial took is measured, what the next one takes is not."""


@dataclass(frozen=True)
class Device:
    """A GPU by the name that CUDA_VISIBLE_DEVICES takes, with its memory in MiB."""

    name: str
    memory_mb: float


@dataclass(frozen=True)
class Need:
    """What a trial takes. gpus: 0 on the CPU. memory_mb: of each GPU, as measured; None when nobody has measured it."""

    gpus: int = 0
    memory_mb: float | None = None


@dataclass(frozen=True)
class Place:
    """What a running trial has. devices: names of its GPUs; memory_mb: of each, None for the whole."""

    devices: tuple[str, ...] = ()
    memory_mb: float | None = None


@dataclass
class Places:
    """slots: trials at once, wherever they run. devices: GPUs that may be used."""

    slots: int
    devices: Sequence[Device] = ()
    taken: list[Place] = field(default_factory=list)

    def take(self, need: Need) -> Place | None:
        """A place for a trial, or None while there is none.

        A trial that was measured shares a GPU with others that were, as long as all of them fit; of those that have room the
        fullest is taken, so that empty ones stay empty for large trials. One that was never measured, or needs several, gets its
        GPUs alone.
        """
        if len(self.taken) >= self.slots:
            return None
        place = Place() if need.gpus == 0 else self._on_gpus(need)
        if place is not None:
            self.taken.append(place)
        return place

    def _on_gpus(self, need: Need) -> Place | None:
        used = {device.name: self._used(device) for device in self.devices}
        if need.gpus == 1 and need.memory_mb is not None:
            room = [d for d in self.devices if used[d.name] + need.memory_mb <= FILL * d.memory_mb]
            if room:
                fullest = max(room, key=lambda d: used[d.name])
                return Place((fullest.name,), need.memory_mb)
        # Whole GPUs also for a trial that was measured and is larger than the share that is given out.
        empty = [device.name for device in self.devices if used[device.name] == 0]
        return Place(tuple(empty[: need.gpus])) if len(empty) >= need.gpus else None

    def _used(self, device: Device) -> float:
        mine = [place for place in self.taken if device.name in place.devices]
        return sum(device.memory_mb if place.memory_mb is None else place.memory_mb for place in mine)

    def give_back(self, place: Place) -> None:
        self.taken.remove(place)


def gpus() -> list[Device]:
    """The machine's GPUs as its driver lists them; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    parts = [line.split(",") for line in lines if line.count(",") == 1]
    return [Device(index.strip(), float(memory)) for index, memory in parts]


def chosen(text: str | None, there: Sequence[Device]) -> list[Device]:
    """GPUs that `--devices` asks for: all, so many (`2`), or these (`0,3`). Raises ConfigError."""
    if text is None:
        return list(there)
    names = [device.name for device in there]
    known = f"there are {', '.join(names) or 'none'}"
    if "," not in text:
        if not text.isdigit() or not 0 < int(text) <= len(there):
            raise ConfigError(f"--devices {text!r}: expected how many GPUs (2) or which (0,3); {known}")
        return list(there[: int(text)])
    wanted = [name for name in text.split(",") if name]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise ConfigError(f"--devices {text!r}: no GPU {missing[0] if missing else text!r}; {known}")
    return [device for device in there if device.name in wanted]
