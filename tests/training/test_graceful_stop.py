"""A run that does not follow a signal, and signals that are one: `run_trial` in processes of its own, training stood in for."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rislab.ablation.trial import TrialDir
from tests.forks import forking
from tests.worlds import descendants, is_alive, wait_until


def trial_process(directory: str, grace: float, work: Callable[[Any, Path], None]) -> None:
    """A trial whose training is `work`."""
    from rislab.training import trial

    def train(_arguments: list[str], request: Any) -> None:
        request.grace, request.patient = grace, True
        work(request, Path(directory) / "started")

    trial.RislabCLI = train  # type: ignore[assignment,misc]
    trial.run_trial(directory, 1)


def hang(_request: Any, started: Path) -> None:
    """Blocked in C, with a child, as loader processes are."""
    import ctypes

    child = os.fork()
    while child == 0:
        time.sleep(60)
    started.touch()
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def step(request: Any, started: Path) -> None:
    """A step of a second and a half with a forked process, then a boundary."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    child = os.fork()
    while child == 0:
        time.sleep(60)
    started.write_text(str(child))
    time.sleep(3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if request.number is not None:
        request.reached_boundary()
        raise SIGTERMException


class Running:
    def __init__(self, folder: Path, grace: float, work: Callable[[Any, Path], None]) -> None:
        self.trial = TrialDir(folder / "trial")
        self.process = forking().Process(target=trial_process, args=(str(self.trial.path), grace, work))
        self.process.start()
        wait_until((self.trial.path / "started").exists)
        assert self.process.pid is not None
        self.pid = self.process.pid
        self.children = descendants(self.pid)
        assert self.children

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, code: int, kind: str, error: str) -> None:
        self.process.join(30)
        assert self.process.exitcode == code, self.trial.stdout.read_text()
        status = self.trial.status()
        assert (self.trial.state(), status["kind"], status["error"]) == ("interrupted", kind, error)
        assert [attempt.kind for attempt in self.trial.attempts.all()] == [kind]
        assert not self.trial.lock_file.exists()
        wait_until(lambda: not any(map(is_alive, self.children)), 10)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[float, Callable[[Any, Path], None]], Running]]:
    started: list[Running] = []

    def start(grace: float, work: Callable[[Any, Path], None]) -> Running:
        started.append(Running(tmp_path, grace, work))
        return started[-1]

    yield start
    for each in started:
        for pid in (*each.children, each.pid):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_hang_ends_after_the_grace_period(run: Any) -> None:
    running = run(0.5, hang)
    running.send(signal.SIGTERM)
    running.end(143, "preempted", "stop requested; no step boundary was reached within 0.5 seconds")


def test_a_second_signal_ends_it_at_once(run: Any) -> None:
    running = run(3600.0, hang)
    running.send(signal.SIGUSR2)
    time.sleep(1.3)
    running.send(signal.SIGTERM)
    running.end(143, "preempted", "stop requested twice; no step boundary was reached")


def test_a_signal_to_all_processes_of_a_job_and_the_one_that_a_launcher_passes_on_are_one(run: Any) -> None:
    """A forked process has the descriptor through which signals are seen; what it gets, we did not get."""
    running = run(3600.0, step)
    running.send(signal.SIGUSR2)
    running.send(signal.SIGTERM)
    time.sleep(1.3)
    for child in running.children:
        os.kill(child, signal.SIGUSR2)
    running.end(143, "preempted", "stop requested")


def test_cancelling_reaches_a_trial_that_hangs(run: Any) -> None:
    running = run(0.5, hang)
    running.trial.cancel()
    running.process.join(30)
    assert running.process.exitcode == 143
    assert running.trial.state() == "cancelled"
    assert json.loads(running.trial.status_file.read_text())["kind"] == "cancelled"
