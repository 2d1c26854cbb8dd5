"""Resident memory of this process, and its peak from a moment on."""

import resource
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start_of_peak() -> float:
    """Resident MiB now; where the system can, the peak counts from here on, so that building a model is not in it."""
    try:
        CLEAR.write_text("5")
        return _status("VmRSS")
    except (OSError, ValueError):
        return _since_the_beginning()


def peak() -> float:
    """Largest resident MiB since `start_of_peak`, or since the process began where the system cannot count anew."""
    try:
        return _status("VmHWM")
    except (OSError, ValueError):
        return _since_the_beginning()


def _since_the_beginning() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _status(field: str) -> float:
    line = next((line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")), "")
    return int(line.split()[1]) / 2**10 if line else _missing(field)


def _missing(field: str) -> float:
    raise ValueError(f"{STATUS} has no {field}")
