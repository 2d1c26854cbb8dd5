"""The trial directory: the only thing that launchers, collectors and people share. docs/architecture.md lists its files."""

import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from rislab.ablation import integrity, records
from rislab.ablation.attempts import Attempts, slurm_job
from rislab.ablation.integrity import SUSPECT, Finding
from rislab.data.stage_outputs import Outputs
from rislab.errors import RislabError
from rislab.files import being_created, create, leftovers, read_json, write_bytes, write_json

State = Literal[
    "pending",
    "queued",
    "running",
    "lost",
    "done",
    "failed",
    "diverged",
    "interrupted",
    "cancelled",
    "foreign",
    "damaged",
    "unreadable",
]

CLOSED: tuple[State, ...] = ("done", "cancelled", *SUSPECT)
"""States of trials that are not started."""

LOST_AFTER_SECONDS = 60.0
"""A heartbeat older than this, from another host, means that the process is gone."""

CLOCK_SECONDS = 60.0
"""For so long a file system's clock is reckoned from our monotonic one; then it is read again."""

_CLOCKS: dict[int, tuple[float, float]] = {}
"""What a file system said the time was, and when by our monotonic clock, by device."""

_FUTURE: dict[Path, tuple[float, float]] = {}
"""Locks whose sign of life lies in the future, by path: the sign, and when it was first seen by our monotonic clock."""

_WRITING = threading.Lock()
"""One writer of a status at a time in a process: a heartbeat must not write back what the trial has just changed."""


class TrialBusyError(RislabError):
    """Another live process holds the trial; trying again later is right. The code is EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


class TrialDir:
    """Paths and state of one trial. Nothing is cached: every question is answered from the files.

    Args:
        wanted: hash of the trial that the directory should hold; None where that is not known, and the directory is taken as it
            is.
    """

    def __init__(self, path: Path, wanted: str | None = None) -> None:
        self.path, self.wanted = path, wanted
        self.config = path / "config.yaml"
        self.identity = path / "identity.json"
        self.status_file = path / "status.json"
        self.metrics_file = path / "metrics.json"
        self.provenance_file = path / "provenance.json"
        self.scores_file = path / "scores.parquet"
        self.answers_file = path / integrity.ANSWERS
        self.checkpoints = path / "checkpoints"
        self.outputs = Outputs(path / "outputs")
        self.curves = path / "log" / "metrics.csv"
        self.stdout = path / "log" / "stdout.txt"
        self.lock_file = path / "lock"
        self.mirror_file = path / "wandb.json"
        self.job_file = path / "job.json"
        self.cancel_file = path / "cancelled.json"
        self.attempts = Attempts(path / "attempts.jsonl")

    def status(self) -> dict[str, Any]:
        """What `status.json` says, as far as it can be used; empty when it is missing or damaged."""
        return records.status(self.status_file)

    @property
    def step(self) -> int:
        """Steps done, as far as they were written down."""
        step: Any = self.status().get("step")
        is_count = isinstance(step, (int, float)) and not isinstance(step, bool) and 0 <= step < 2**63
        return int(step) if is_count else 0  # damaged: NaN, a word

    def update_status(self, **changes: Any) -> None:
        """Merge `changes` into `status.json`, with this process and the time as heartbeat.

        For the process that holds the trial: between processes nothing keeps two updates apart.
        """
        me = {"host": platform.node(), "pid": os.getpid(), "boot_id": _boot_id(), "heartbeat": time.time()}
        with _WRITING:
            write_json(self.status_file, self.status() | changes | me)

    def state(self) -> State:
        """pending, queued (at a scheduler), running, lost (its process is gone), done, failed, diverged, interrupted, cancelled;
        foreign (another trial's), damaged or unreadable, with the reason in `look`.

        Done is what has a sound metrics.json, written last: a trial killed between its result and its status is done. What a
        scheduler thinks is not looked up: a job counts as queued from when it was submitted until the trial is started.
        """
        return self.inspect()[0]

    def inspect(self, thorough: bool = False) -> tuple[State, Finding]:
        """The state, and what was found in the directory. thorough: with the digests of all files; see `integrity.look`."""
        found = integrity.inspect(self.path, self.wanted, thorough)
        if found.suspect:
            return found.suspect, found
        try:
            return ("done" if found.is_done else self._open_state()), found
        except OSError as error:
            return "unreadable", Finding("unreadable", integrity.unreadable(error, self.path))

    def _open_state(self) -> State:
        """Of a trial without a result."""
        status = self.status()
        state: State = status.get("state", "pending")
        if state == "done" or state in SUSPECT:
            state = "lost"  # it said so, but there is no result: run it again
        if state == "running":
            if self.holder() is not None:
                return "running"
            state = "lost"
        if self.cancel_file.exists():
            return "cancelled"
        return "queued" if state != "failed" and state != "diverged" and self._is_queued() else state

    def _is_queued(self) -> bool:
        job = self.job()
        return job is not None and job.get("attempts") == len(self.attempts.all())

    def job(self) -> dict[str, Any] | None:
        """What was handed to a scheduler last: {"launcher", "id", "submitted", "attempts": starts before it}."""
        try:
            found: dict[str, Any] | None = records.load(self.job_file, records.JOB)
        except records.DamagedError:
            return None
        return found

    def set_job(self, launcher: str, job_id: str) -> None:
        write_json(
            self.job_file,
            {"launcher": launcher, "id": job_id, "submitted": time.time(), "attempts": len(self.attempts.all())},
        )

    def cancel(self) -> None:
        """The process that runs it writes a checkpoint and ends; it is not started until `clear_cancel`."""
        write_json(self.cancel_file, {"at": time.time(), "host": platform.node()})

    def is_cancelled(self) -> bool:
        return self.cancel_file.exists()

    def holder(self) -> dict[str, Any] | None:
        """The live process that holds the trial: {"host", "pid", "boot_id", "process_started", "job"}."""
        try:
            return self._alive(self.lock_file)
        except FileNotFoundError:
            return None  # released this moment

    def _alive(self, file: Path) -> dict[str, Any] | None:
        """The live process that has, or this moment takes, the lock file `file`; None when there is none.

        Where there are no hard links a lock may be cut short. Then the file beside it says who was writing it: a process that
        lives will finish it, one that is dead has left it behind. A lock that no process is writing and that says nothing was
        damaged, and blocks no start. Raises FileNotFoundError when there is no such file.
        """
        file.stat()
        content = read_json(file)
        if _is_holder(content):
            return content if self._lives(content, file) else None
        for beside in being_created(file):
            writer = read_json(beside)
            if _is_holder(writer):
                with suppress(FileNotFoundError):
                    if self._lives(writer, beside):
                        return dict(writer)
        return None

    def held_by(self) -> str:
        """Who holds the trial, for a person: `process 12 on node3 since 14:03:05`; "" when no process does."""
        holder = self.holder()
        return self._named(holder) if holder is not None else ""

    def _named(self, holder: dict[str, Any]) -> str:
        since = _modified(self.lock_file)
        when = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since)) if since else ""
        return f"process {holder['pid']} on {holder['host']}{when}"

    def is_ours(self) -> bool:
        """Whether this process has the trial, as far as can be seen: what cannot be read now still is."""
        try:
            holder = json.loads(self.lock_file.read_text())
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True
        return bool(_is_holder(holder) and holder.get("pid") == os.getpid() and holder.get("boot_id") == _boot_id())

    def reset(self) -> None:
        """Start from nothing next time. Raises TrialBusyError."""
        with self.locked():
            results = (
                self.metrics_file,
                self.path / integrity.FILE,
                self.scores_file,
                self.answers_file,
                self.provenance_file,
                self.status_file,
                self.identity,
                self.mirror_file,
                self.curves,
                self.cancel_file,
                self.job_file,
            )
            for path in (*self.checkpoints.glob("*.ckpt"), *results):
                path.unlink(missing_ok=True)
            self.outputs.remove()
            self.attempts.reset_counts()

    def clear_cancel(self) -> None:
        """Back from failed, diverged or cancelled to pending; it will go on from its last checkpoint. Raises TrialBusyError."""
        with self.locked():
            for path in (self.status_file, self.cancel_file, self.job_file):
                path.unlink(missing_ok=True)
            self.attempts.reset_counts()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the trial alone. A lock whose process is gone is taken over. Raises TrialBusyError."""
        self.path.mkdir(parents=True, exist_ok=True)
        me = {
            "host": platform.node(),
            "pid": os.getpid(),
            "boot_id": _boot_id(),
            "process_started": _started(os.getpid()),
            "job": slurm_job(),
        }
        self._take(self.lock_file, me)
        try:
            yield
        finally:
            # Not if a process on another machine took us for dead and has the trial now.
            if read_json(self.lock_file) == me:
                self.lock_file.unlink(missing_ok=True)

    def _take(self, file: Path, me: dict[str, Any]) -> None:
        """Make `file` a file that names us: created exclusively, or put in the place of a dead process's file.

        Who may replace a dead process's file is decided by a second exclusive file, named after its content. Its owner
        alone may replace that very content, so looking and replacing need not be one step; should the owner die in
        between, its own file is replaced in the same way.
        """
        while not create(file, _encode(me)):
            try:
                content = file.read_bytes()
                holder = self._alive(file)
            except FileNotFoundError:
                continue  # released this moment
            if holder is not None:
                raise TrialBusyError(f"{self.path} is being run by {self._named(holder)}")
            claim = self.path / f".lock-after-{hashlib.sha256(content).hexdigest()[:16]}"
            self._take(claim, me)
            try:
                if file.exists() and file.read_bytes() == content:
                    write_bytes(file, _encode(me))
                    return
            finally:
                claim.unlink()

    def clear(self) -> None:
        """Remove the temporary checkpoints of processes that were killed while they saved; each is as large as a checkpoint.

        The process that holds the trial removes all but its own. A run without a lock leaves what may still be written: by a live
        process of this machine, or in the last minute.
        """
        alone = self.is_ours()
        for path, pid in leftovers(self.checkpoints).items():
            age = self._now() - _modified(path)
            if pid != os.getpid() and (alone or (_started(pid) is None and age > LOST_AFTER_SECONDS)):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _lives(self, holder: dict[str, Any], file: Path) -> bool:
        """Whether a lock's process is alive: by the system here, judged by its latest sign of life elsewhere."""
        if holder.get("host") == platform.node() and holder.get("boot_id") == _boot_id():
            started = _started(holder["pid"])
            return started is not None and started == holder.get("process_started")
        job, restarts = _parted(holder.get("job")), _parted(slurm_job())
        if job is not None and restarts is not None and job[0] == restarts[0] and job[1] != restarts[1]:
            return False  # an earlier life of this very job, before it was requeued
        # Times of files, all given by the one file system, and not what clocks of machines say, which may lie apart.
        sign = max(_modified(self.status_file), file.stat().st_mtime)
        age = self._now() - sign
        if age > -CLOCK_SECONDS:
            return age < LOST_AFTER_SECONDS
        # From the future (a clock set back, a copy that kept its times): it says nothing about now. It counts as a sign of
        # life at first sight, and again when it changes.
        seen = _FUTURE.get(file)
        if seen is None or seen[0] != sign:
            seen = _FUTURE[file] = sign, time.monotonic()
        return time.monotonic() - seen[1] < LOST_AFTER_SECONDS

    def _now(self) -> float:
        """The time by the clock of the file system that the trial lies on; by our own where we cannot write.

        Read now and then only, since a look at thousands of trials should not write into each.
        """
        device = self.path.stat().st_dev
        reading = _CLOCKS.get(device)
        if reading is None or time.monotonic() - reading[1] > CLOCK_SECONDS:
            reading = _CLOCKS[device] = self._read_time(), time.monotonic()
        return reading[0] + time.monotonic() - reading[1]

    def _read_time(self) -> float:
        probe = self.path / f".now-{uuid.uuid4().hex}"
        try:
            probe.touch(exist_ok=False)
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_holder(value: Any) -> bool:
    """Whether it is what a lock holds."""
    return isinstance(value, dict) and isinstance(value.get("host"), str) and type(value.get("pid")) is int


def _parted(job: Any) -> tuple[str, str] | None:
    """(job, restarts) of what `slurm_job` gives."""
    return (job.rpartition(".")[0], job.rpartition(".")[2]) if isinstance(job, str) and job else None


def _encode(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder, sort_keys=True).encode()


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
