"""The trial directory: the only thing that launchers, collectors and people share. docs/architecture.md lists its files."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from rislab.errors import RislabError
from rislab.files import read_json, write_json

State = Literal["pending", "running", "lost", "done", "failed", "diverged", "interrupted"]

LOST_AFTER_SECONDS = 60.0
"""A heartbeat older than this, from a host that cannot be asked, means that the process is gone."""


class TrialBusyError(RislabError):
    """Another live process holds the trial."""


class TrialDir:
    """Paths and state of one trial. Nothing is cached: every question is answered from the files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.identity = path / "identity.json"
        self.status_file = path / "status.json"
        self.metrics_file = path / "metrics.json"
        self.provenance_file = path / "provenance.json"
        self.scores_file = path / "scores.parquet"
        self.checkpoints = path / "checkpoints"
        self.curves = path / "log" / "metrics.csv"
        self.stdout = path / "log" / "stdout.txt"
        self.lock_file = path / "lock"

    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty when it is missing or damaged."""
        found = read_json(self.status_file)
        return found if isinstance(found, dict) else {}

    def update_status(self, **changes: Any) -> None:
        """Merge `changes` into `status.json`, with this process and the time as heartbeat."""
        status = self.status() | changes
        status |= {"host": platform.node(), "pid": os.getpid(), "boot_id": _boot_id(), "heartbeat": time.time()}
        write_json(self.status_file, status)

    def state(self) -> State:
        """pending, running, lost (its process is gone), done, failed, diverged or interrupted.

        Done is what has a whole metrics.json, written last: a trial killed between its result and its status is done.
        """
        if read_json(self.metrics_file) is not None:
            return "done"
        status = self.status()
        state: State = status.get("state", "pending")
        if state == "done":
            return "lost"  # it said so, but its result is gone: run it again
        if state == "running" and not self._alive():
            return "lost"
        return state

    def _alive(self) -> bool:
        holder = read_json(self.lock_file)
        return isinstance(holder, dict) and _holder_lives(holder, self.status().get("heartbeat", 0.0))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the trial alone. A lock whose process is gone is taken over. Raises TrialBusyError.

        The lock is a file created exclusively: whoever creates it has it, on any file system.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        me = {
            "host": platform.node(),
            "pid": os.getpid(),
            "boot_id": _boot_id(),
            "process_started": _started(os.getpid()),
        }
        while not self._create_lock(me):
            holder = read_json(self.lock_file)
            if holder is None:
                if not self.lock_file.exists():
                    continue  # released this moment
                if time.time() - self.lock_file.stat().st_mtime < 5:
                    time.sleep(0.05)  # created, not yet written
                    continue
            elif _holder_lives(holder, self.status().get("heartbeat", 0.0)):
                raise TrialBusyError(f"{self.path} is being run by process {holder['pid']} on {holder['host']}")
            self._break_lock(holder)
        try:
            yield
        finally:
            self.lock_file.unlink(missing_ok=True)

    def _create_lock(self, holder: dict[str, Any]) -> bool:
        """Write the lock whole under a name of our own, then link it: the link fails if there is one already."""
        own = self.path / f".lock.{os.getpid()}"
        write_json(own, holder)
        try:
            os.link(own, self.lock_file)
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def _break_lock(self, holder: dict[str, Any] | None) -> None:
        """Remove a dead holder's lock. Two may try at once: only the one that renames it away removes it."""
        aside = self.path / f".lock.broken.{os.getpid()}"
        try:
            self.lock_file.rename(aside)
        except FileNotFoundError:
            return
        if read_json(aside) != holder:
            # Between reading and renaming somebody else took over: give their lock back.
            with suppress(FileExistsError):
                os.link(aside, self.lock_file)
        aside.unlink(missing_ok=True)


def _holder_lives(holder: dict[str, Any], heartbeat: float) -> bool:
    """Whether a lock's process is alive: asked of the system here, judged by its heartbeat elsewhere."""
    if holder.get("host") == platform.node() and holder.get("boot_id") == _boot_id():
        return _started(int(holder.get("pid", -1))) == holder.get("process_started")
    return time.time() - heartbeat < LOST_AFTER_SECONDS


def _boot_id() -> str | None:
    """Changes when the machine restarts, so that a process number of an earlier life is not believed; None off Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process began (clock ticks since boot), or None when there is none; 0 where /proc is not to be had.

    With the number alone, a process that happened to get it again would keep a lock alive.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return 0 if _signalled(pid) else None
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
