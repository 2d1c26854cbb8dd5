"""Runs one trial directory from whatever state it is in to its result. What launchers call."""

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import torch
import yaml

from rislab.ablation.trial import TrialDir
from rislab.errors import ConfigError, DataError, DivergedError, RislabError
from rislab.training.cli import RislabCLI, quiet

HEARTBEAT_SECONDS = 2.0
TRACEBACK_CHARACTERS = 4000


def run_trial(directory: str, threads: int) -> None:
    """Train, resume or skip the trial in `directory`, and leave its state in `status.json`.

    A fault of the trial is written there and ends the process with a code other than 0, so that the
    trial's neighbours go on.

    threads: of torch in this process. Results are bit-equal for equal numbers of threads.
    """
    trial = TrialDir(Path(directory))
    with trial.locked():
        if trial.state() == "done":
            return
        (trial.path / "log").mkdir(parents=True, exist_ok=True)
        _redirect_output(trial.path / "log" / "stdout.txt")
        # Ctrl-C reaches the whole group; the launcher passes on what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(threads)
        quiet()
        trial.update_status(
            state="running", stage="prepare", started=time.time(), error=None, kind=None, traceback=None
        )
        stop = threading.Event()
        threading.Thread(target=_beat, args=(trial, stop), daemon=True).start()
        try:
            RislabCLI(["fit", "--config", str(trial.config), "--trainer.enable_progress_bar=false"])
        except BaseException as error:
            stop.set()
            state, kind = _classify(error)
            trial.update_status(
                state=state,
                kind=kind,
                ended=time.time(),
                error=_one_line(error),
                traceback=None if isinstance(error, RislabError) else traceback.format_exc()[-TRACEBACK_CHARACTERS:],
            )
            traceback.print_exc()
            sys.stderr.flush()
            sys.exit(error.exit_code if isinstance(error, RislabError) else 1)
        stop.set()
        shrink(trial.checkpoints)
        trial.update_status(state="done", stage="test", ended=time.time())


def prepare(config: str, threads: int) -> None:
    """Make what a config's first start would make: its generated data and the pretrained weights of its trunk."""
    torch.set_num_threads(threads)
    quiet()
    cli = RislabCLI(["--config", config, "--trainer.enable_progress_bar=false"], run=False)
    cli.datamodule.prepare_data()


def shrink(checkpoints: Path) -> None:
    """A finished trial needs no optimiser state: keep the best weights, drop what a resume would have needed."""
    if (checkpoints / "best.ckpt").exists():
        for name in ("last.ckpt", "previous.ckpt"):
            (checkpoints / name).unlink(missing_ok=True)


def _redirect_output(path: Path) -> None:
    """From here on this process prints into the trial's own log, subprocesses and C++ included."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _beat(trial: TrialDir, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        trial.update_status()


def _classify(error: BaseException) -> tuple[str, str]:
    """(state, kind) of an exception; kinds as in docs/architecture.md."""
    if isinstance(error, DivergedError):
        return "diverged", "nan"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "interrupted", "lost"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "failed", "oom"
    if isinstance(error, DataError):
        return "failed", "data"
    if isinstance(error, ConfigError | yaml.YAMLError):
        return "failed", "config"
    return "failed", "bug"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RislabError) else f"{type(error).__name__}: {text}"
