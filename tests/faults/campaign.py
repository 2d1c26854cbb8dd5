"""A table under attack: starts launchers, waits until trials are in the middle of training, and looks at what came of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rislab.ablation.trial import TrialDir
from tests.cluster import Cluster
from tests.worlds import ROOT, descendants, is_alive, wait_until

FURTHER = 3
"""Steps that a trial makes in a start before it is disturbed, so that nothing counts as stalled."""

LEFT = 8
"""Steps that a trial has left when it is disturbed, so that it does not end before the fault arrives."""

EPOCHS = 6
"""Sixty steps, some of them made again after each fault."""

SMALL = {
    "trainer__max_epochs": EPOCHS,
    "trainer__check_val_every_n_epoch": EPOCHS // 2,
    "trial__checkpoint_every_n_steps": 3,
}

ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "-")
"""Prefix of a command: the same machine under another name, whose processes ours do not see."""


@dataclass
class Launcher:
    """One `rislab` command with everything that it started."""

    process: "subprocess.Popen[bytes]"

    @property
    def tree(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)] if self.process.poll() is None else []

    def kill(self) -> None:
        """The command, its fork server and its trials at once, as when a machine loses its power."""
        tree = self.tree
        for number in tree:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        for number in tree:
            died(number)

    def end(self) -> None:
        """As the user does, by Ctrl-C once; the trials write their checkpoints."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(180)


STEP_SECONDS = 0.4
"""Every step of a disturbed trial waits so long first: trials last long enough to be disturbed on any machine, at little cost."""

SLOW_STEP_SECONDS = 10.0
"""The same while the file `slow` lies beside the sitecustomize: for a fault that SLURM takes up to a minute to bring about."""

QUICK = f"""
import importlib.abc, importlib.util, os, sys, time
from rislab.ablation import trial
from rislab.launch import local_pool, slurm_supervisor
trial.LOST_AFTER_SECONDS = 12.0
slurm_supervisor.QUERY_EVERY_SECONDS = 2.0
local_pool.DISK_PAUSES = (0.5, 1.0, 2.0, 4.0)
if os.environ.get("NO_HARD_LINKS"):
    def link(*_, **__):
        raise PermissionError(1, "Operation not permitted")
    os.link = link
if os.environ.get("CLOCK_AHEAD"):
    right = time.time
    time.time = lambda: right() + float(os.environ["CLOCK_AHEAD"])

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "rislab.training.callbacks":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def run(module):
            execute(module)
            begin = module.StepSeed.on_train_batch_start
            def slowly(*given, **named):
                is_slow = os.path.exists(os.path.join(os.path.dirname(__file__), "slow"))
                time.sleep({SLOW_STEP_SECONDS} if is_slow else {STEP_SECONDS})
                return begin(*given, **named)
            module.StepSeed.on_train_batch_start = slowly
        spec.loader.exec_module = run
        return spec

sys.meta_path.insert(0, Slow())
"""
"""sitecustomize of everything that is disturbed: times that are minutes in life are seconds, and trials take their time.

NO_HARD_LINKS: the file system has none. CLOCK_AHEAD: seconds that the clock is ahead; times of files are the file system's.
"""


@dataclass
class Campaign:
    """table: its file; seeds: how many; folder: of logs; runs: where the trials lie, a small file system of its own."""

    table: Path
    seeds: int
    folder: Path
    runs: Path
    cluster: Cluster | None = None
    tally: list[str] = field(default_factory=list)
    finished: dict[Path, int] = field(default_factory=dict)
    """When a result was written, by trial, as seen first."""
    launcher: Launcher | None = None
    """The one that is at work; it goes on from fault to fault, as long as it lives."""

    def __post_init__(self) -> None:
        (self.folder / "quick").mkdir()
        (self.folder / "quick" / "sitecustomize.py").write_text(QUICK)
        # Python goes on after an error in a sitecustomize: the faults would then meet trials at their usual pace.
        started = subprocess.run(
            [sys.executable, "-c", ""], env=self.environment, capture_output=True, text=True, check=True
        )
        assert not started.stderr, started.stderr

    def command(self, *options: str, runs: Path | None = None) -> list[str]:
        where = ["--runs", str(runs or self.runs), "--seeds", str(self.seeds), "--threads", "1"]
        return [sys.executable, "-m", "rislab.cli.main", "ablate", "run", str(self.table), *where, *options]

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join((str(self.folder / "quick"), str(ROOT)))
        return {**os.environ, "PYTHONPATH": paths, **(self.cluster.environment if self.cluster else {})}

    def start(self, *options: str, prefix: Sequence[str] = (), **environment: str) -> Launcher:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                # Whatever runs in the background of a script ignores Ctrl-C otherwise.
                ["env", "--default-signal=INT", *prefix, *self.command(*options)],
                cwd=ROOT,
                env=self.environment | environment,
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return Launcher(process)

    @property
    def log(self) -> Path:
        return self.folder / "launchers.log"

    def _at_work(self, *options: str, **environment: str) -> Launcher:
        """The launcher that is there, or a new one; with an environment of its own, a new one in any case."""
        if self.launcher is not None and environment:
            self.stop()
        if self.launcher is None or self.launcher.process.poll() is not None:
            self.launcher = self.start(*options, **environment)
        return self.launcher

    @contextmanager
    def locally(self, **environment: str) -> Iterator[tuple[Launcher, TrialDir]]:
        """A local pool at work, and one of its trials in the middle of training."""
        launcher = self._at_work("--jobs", "2", **environment)
        yield launcher, self.training(lambda trial: pool_of(trial) == launcher.process.pid)
        self.check()

    @contextmanager
    def on_slurm(self) -> Iterator[tuple[Launcher, TrialDir]]:
        """A launcher watching over the table's jobs, and a trial in one of them, in the middle of training."""
        launcher = self._at_work("--launcher", "slurm")
        yield launcher, self.training(lambda trial: bool(self.job(trial)))
        self.check()

    @contextmanager
    def slower(self) -> Iterator[None]:
        """Trials do not come to their end inside."""
        file = self.folder / "quick" / "slow"
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    def stop(self) -> None:
        """End the launcher that is at work, if there is one."""
        if self.launcher is not None:
            self.launcher.end()
            self.launcher = None

    @property
    def slurm(self) -> Cluster:
        assert self.cluster is not None
        return self.cluster

    def trials(self) -> list[TrialDir]:
        return [TrialDir(path) for path in sorted(self.runs.glob("*/*--s*--*"))]

    def processes(self) -> list[int]:
        """Of all trials that have one."""
        return [number for trial in self.trials() if (number := _process(trial)) is not None]

    def training(self, where: Callable[[TrialDir], bool] = lambda _: True) -> TrialDir:
        """A trial that has a process, a checkpoint, has got further in this start than ever before, and is not near its end."""
        found: list[TrialDir] = []

        def look() -> bool:
            found[:] = [
                trial for trial in self.trials() if _advances(trial) and _steps_left(trial) >= LEFT and where(trial)
            ]
            return bool(found)

        wait_until(lambda: look() or not self.is_open, 240)
        assert found, "the table is too short for so many faults"
        return found[0]

    @property
    def is_open(self) -> bool:
        """Whether there is still something to disturb."""
        trials = self.trials()
        return len(trials) < 2 * self.seeds or any(trial.state() != "done" for trial in trials)

    def check(self) -> None:
        """Whatever has a result keeps it as it is."""
        for trial in self.trials():
            if trial.metrics_file.exists():
                now = trial.metrics_file.stat().st_mtime_ns
                assert self.finished.setdefault(trial.path, now) == now, f"{trial.path} was trained twice"

    def job(self, trial: TrialDir) -> str:
        """The SLURM job that runs the trial; "" when none does."""
        return str((trial.holder() or {}).get("job") or "").rpartition(".")[0]

    def node(self, job: str) -> str:
        """Number of the node that a job runs on."""
        return self.slurm.command("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%N").strip().lstrip("n")

    def hurry(self, job: str) -> None:
        """A requeued job starts before the others, which would all end in the two minutes that SLURM holds it back."""
        self.slurm.hurry(job)

    def cancel_jobs(self) -> None:
        self.slurm.command("scancel", "--user", "root")
        wait_until(lambda: not self.slurm.command("squeue", "--noheader").strip())

    def completes(self) -> None:
        """The same command as ever brings the table to its end."""
        self.stop()
        done = subprocess.run(
            self.command("--jobs", "2"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.check()


def pid(trial: TrialDir) -> int:
    found = _process(trial)
    assert found is not None, f"{trial.path.name} has no process"
    return found


def parent(number: int) -> int:
    """Of a process; 0 when there is none."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def pool_of(trial: TrialDir) -> int:
    """The process of the pool that runs the trial: its parent is the fork server, whose parent is the pool. 0 when none does."""
    return parent(parent(_process(trial) or 0))


def died(number: int, seconds: float = 60.0) -> None:
    wait_until(lambda: not is_alive(number), seconds)


def starts(trial: TrialDir) -> int:
    return len(trial.attempts.all())


def goes_on(trial: TrialDir, before: int) -> None:
    """Another start than the `before` that there were has got further, or to the end."""
    wait_until(lambda: starts(trial) > before and (_advances(trial) or trial.state() == "done"), 480)


def goes_on_undisturbed(trial: TrialDir, before: int, child: int) -> bool:
    """Whether the same process of the same start still runs the trial, or has ended it."""
    return trial.state() == "done" or (starts(trial), pid(trial)) == (before, child)


def handed_in_again(trial: TrialDir, job: str) -> None:
    """The trial has another job than `job`, or is at its end."""
    wait_until(lambda: (trial.job() or {"id": job})["id"] != job or trial.state() == "done", 120)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As when a file server fails over. A mount, since root writes whatever the permissions say."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte is left on the folder's file system."""
    filler = folder / "filler"
    try:
        with filler.open("wb") as file:
            for size in (1 << 22, 1 << 12):
                with suppress(OSError):  # which says that so much is not left
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
        yield
    finally:
        filler.unlink()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def cut(path: Path) -> None:
    """Half of the file is gone, as after a power cut on a file system that promised more than it kept."""
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def cut_last_line(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - 20)])


def _process(trial: TrialDir) -> int | None:
    try:
        holder = json.loads(trial.lock_file.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return int(holder["pid"]) if is_alive(int(holder["pid"])) else None


def _steps_left(trial: TrialDir) -> int:
    status = trial.status()
    return int(status.get("max_steps") or 0) - int(status.get("step") or 0)


def _advances(trial: TrialDir) -> bool:
    attempts = trial.attempts.all()
    if not attempts or attempts[-1].ended or not (trial.checkpoints / "last.ckpt").exists() or _process(trial) is None:
        return False
    status = trial.status()
    return status.get("stage") == "fit" and int(status.get("step") or 0) >= attempts[-1].before + FURTHER
