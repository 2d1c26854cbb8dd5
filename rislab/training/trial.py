"""Runs one trial directory from whatever state it is in to its result. What launchers call."""

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from rislab.ablation.attempts import DISK_EXIT_CODE, Kind
from rislab.ablation.trial import State, TrialDir
from rislab.errors import DISK_ERRORS, ConfigError, DataError, DiskError, DivergedError, RislabError
from rislab.training.cli import RislabCLI, quiet
from rislab.training.stopping import Asked, StoppedError

HEARTBEAT_SECONDS = 2.0
TRACEBACK_CHARACTERS = 4000


def run_trial(directory: str, threads: int) -> None:
    """Train, resume or skip the trial in `directory`, and leave its state in `status.json`.

    A fault of the trial is written there and ends the process with a code other than 0, so that the
    trial's neighbours go on.

    threads: of torch in this process. Results are bit-equal for equal numbers of threads.
    """
    # Absolute, because jsonargparse changes the working directory while it reads a config, and the heartbeat looks on.
    trial = TrialDir(Path(directory).absolute())
    asked = Asked()
    with trial.locked():
        if trial.state() in ("done", "cancelled"):
            return
        (trial.path / "log").mkdir(parents=True, exist_ok=True)
        _redirect_output(trial.path / "log" / "stdout.txt")
        # Ctrl-C reaches the whole group; the launcher passes on what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asked.listen()
        torch.set_num_threads(threads)
        quiet()
        trial.clear()
        parts = trial.attempts.parts
        trial.attempts.begin(trial.step, parts)
        trial.update_status(
            state="running", stage="prepare", started=time.time(), error=None, kind=None, traceback=None
        )
        stop = threading.Event()
        threading.Thread(target=_beat, args=(trial, asked, stop), daemon=True).start()
        arguments = ["fit", "--config", str(trial.config), "--trainer.enable_progress_bar=false"]
        split = [f"--trial.parts={parts}"] if parts > 1 else []
        sys.argv += split  # Lightning starts the processes of further GPUs with the arguments of this one
        try:
            RislabCLI([*arguments, *split], asked=asked)
        except BaseException as error:
            stop.set()
            _leave(trial, StoppedError(asked.kind, asked.number) if isinstance(error, SIGTERMException) else error)
        stop.set()
        shrink(trial.checkpoints)
        trial.attempts.end("", trial.step)
        trial.update_status(state="done", stage="test", ended=time.time())


def run_sister(directory: str, threads: int) -> None:
    """A further rank of the trial in `directory`, where a scheduler has started all ranks; its books are the first one's."""
    trial = TrialDir(Path(directory).absolute())
    asked = Asked()
    asked.listen()
    torch.set_num_threads(threads)
    quiet()
    arguments = ["fit", "--config", str(trial.config), "--trainer.enable_progress_bar=false"]
    try:
        RislabCLI([*arguments, f"--trial.parts={trial.attempts.parts}"], asked=asked)
    except SIGTERMException:
        raise StoppedError(asked.kind, asked.number) from None


def _leave(trial: TrialDir, error: BaseException) -> None:
    """Write down what ended the trial, as far as that can be written, and end this process."""
    with suppress(OSError):  # the log may lie on the full disk, too
        traceback.print_exc()
        sys.stderr.flush()
    state, kind = _classify(error)
    with suppress(OSError):
        trial.attempts.end(kind, trial.step)
    with suppress(OSError):
        trial.update_status(
            state=state,
            kind=kind,
            ended=time.time(),
            error=_one_line(error),
            traceback=None if isinstance(error, RislabError) else traceback.format_exc()[-TRACEBACK_CHARACTERS:],
        )
    if isinstance(error, StoppedError):
        raise error
    if kind == "disk":
        sys.exit(DISK_EXIT_CODE)  # nothing of the above may have been written
    sys.exit(error.exit_code if isinstance(error, RislabError) else 1)


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


def _beat(trial: TrialDir, asked: Asked, stop: threading.Event) -> None:
    """Says every two seconds that the trial lives, and looks whether it still should."""
    while not stop.wait(HEARTBEAT_SECONDS):
        if not trial.is_ours():
            # Somebody took us for dead, because our file system was gone for a minute, and has the trial now.
            print("the trial's lock names another process: ending", file=sys.stderr, flush=True)
            os._exit(1)
        with suppress(OSError):
            trial.update_status()
        if not asked.cancelled and trial.is_cancelled():
            asked.cancelled = True
            os.kill(os.getpid(), signal.SIGTERM)


def _classify(error: BaseException) -> tuple[State, Kind]:
    """(state, kind) of an exception; kinds as in docs/architecture.md."""
    match error:
        case StoppedError():
            return "interrupted", error.kind
        case DivergedError():
            return "diverged", "nan"
        case SystemExit() | KeyboardInterrupt():
            return "interrupted", "lost"
        case MemoryError() | torch.OutOfMemoryError():
            return "failed", "oom"
        case RuntimeError() if "allocate memory" in str(error):  # the CPU's allocator
            return "failed", "oom"
        case DiskError():
            return "failed", "disk"
        case OSError() if error.errno in DISK_ERRORS:
            return "failed", "disk"
        case DataError():
            return "failed", "data"
        case ConfigError() | yaml.YAMLError():
            return "failed", "config"
    return "failed", "bug"


def _one_line(error: BaseException) -> str:
    if isinstance(error, StoppedError):
        return "asked to stop"
    text = " ".join(str(error).split())
    return text if isinstance(error, RislabError) else f"{type(error).__name__}: {text}"
