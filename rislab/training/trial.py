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
from rislab.ablation.trial import CLOSED, State, TrialDir
from rislab.errors import DISK_ERRORS, ConfigError, DataError, DiskError, DivergedError, RislabError
from rislab.messages import warn
from rislab.printable import printable
from rislab.training import rank_failures
from rislab.training.cli import RislabCLI, quiet
from rislab.training.graceful_stop import StoppedError, StopRequest, exit_code
from rislab.training.rank_failures import Failure, LostRankError, PeerFailedError, kill_descendants
from rislab.training.summary import summary

HEARTBEAT_SECONDS = 2.0
TRACEBACK_CHARACTERS = 4000
FIT = ("fit", "--trainer.enable_progress_bar=false", "--config")


def run_trial(directory: str, threads: int) -> None:
    """Train, resume or skip the trial in `directory`, and leave its state in `status.json`.

    A fault of the trial is written there and ends the process with a code other than 0, so that the
    trial's neighbours go on.

    Args:
        threads: of torch in this process. Results are bit-equal for equal numbers of threads.
    """
    # Absolute, because jsonargparse changes the working directory while it reads a config, and the heartbeat looks on.
    trial = TrialDir(Path(directory).absolute())
    request = StopRequest()
    with trial.locked():
        if trial.state() in CLOSED:
            return
        (trial.path / "log").mkdir(parents=True, exist_ok=True)
        _redirect_output(trial.path / "log" / "stdout.txt")
        # Ctrl-C reaches the whole group; the launcher passes on what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with request.listening(lambda error: _write_and_release(request, trial, error, in_attempts=True)):
            torch.set_num_threads(threads)
            quiet()
            parts = trial.attempts.parts
            trial.attempts.begin(trial.step, parts)
            trial.update_status(
                state="running", stage="prepare", started=time.time(), error=None, kind=None, traceback=None
            )
            stop = threading.Event()
            threading.Thread(target=_beat, args=(trial, request, stop), daemon=True).start()
            split = [f"--trial.parts={parts}"] if parts > 1 else []
            sys.argv += split  # Lightning starts the processes of further GPUs with the arguments of this one
            try:
                RislabCLI([*FIT, str(trial.config), *split], request=request)
            except BaseException as error:
                stop.set()
                cause = _cause(request, error)
                request.claim()
                _print(cause)
                _write(request, trial, cause, in_attempts=True)
                _leave(request, cause)
                if isinstance(cause, StoppedError):
                    raise cause from None
                # Of a full disk the exit code tells: nothing of the above may have been written.
                sys.exit(DISK_EXIT_CODE if _classify(cause)[1] == "disk" else exit_code(cause))
            stop.set()
            request.claim()
            rank_failures.left()
            shrink(trial.checkpoints)
            trial.attempts.end("", trial.step)
            trial.update_status(state="done", stage="test", ended=time.time())


def run_secondary_rank(directory: str, threads: int) -> None:
    """A further rank of the trial in `directory`, where a scheduler has started all ranks; its books are the first one's."""
    trial = TrialDir(Path(directory).absolute())
    torch.set_num_threads(threads)
    _run([*FIT, str(trial.config), f"--trial.parts={trial.attempts.parts}"])


def run_command(arguments: list[str]) -> int:
    """`rislab fit|validate|test|predict`, typed by hand or started by Lightning as a further rank of such a run."""
    cli = _run(arguments)
    if cli.subcommand in ("fit", "test") and cli.trainer.is_global_zero:
        print(printable(summary(cli.trial)), flush=True)
    return 0


def _run(arguments: list[str]) -> RislabCLI:
    """Run a command; what ends it is told to the other ranks, and by the first one of `fit` written into its directory."""
    quiet()
    request = StopRequest()
    is_child = request.peers is not None
    with request.listening(lambda error: _write_and_release(request, request.trial, error, in_attempts=False)):
        try:
            cli = RislabCLI(arguments, request=request)
        except BaseException as error:
            cause = _cause(request, error)
            request.claim()
            told = _write(request, request.trial, cause)
            _leave(request, cause)
            if is_child:
                # Rank 0 has been told. At another code than 0 Lightning would kill it before it could write that down.
                if not isinstance(cause, (RislabError, StoppedError)):
                    _print(cause)
                sys.exit(0 if told else exit_code(cause))
            if cause is error:
                raise
            raise cause from None
        request.claim()
        rank_failures.left()
    return cli


def _cause(request: StopRequest, error: BaseException) -> BaseException:
    """What really ended this process: a stop request, or the failure of another rank."""
    if isinstance(error, SIGTERMException):
        return StoppedError(request.kind, request.number, is_agreed=True)
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        return error.__context__  # Lightning's way of ending
    if request.peers is None or isinstance(error, (RislabError, StoppedError)):
        return error
    failed = request.peers.wait_for_others(rank_failures.PEER_WAIT_SECONDS if rank_failures.is_fallout(error) else 0.0)
    if failed is not None:
        return PeerFailedError(failed)
    if rank_failures.is_fallout(error):
        text = " ".join(str(error).split())
        return LostRankError(f"another rank is gone without a word: {text}")
    return error


def _write(request: StopRequest, trial: TrialDir | None, error: BaseException, in_attempts: bool = False) -> bool:
    """Tell the other ranks what ends this one, and write it down where that is this rank's to do.

    Returns:
        Whether all ranks know.
    """
    state, kind = _classify(error)
    told = traceback.format_exception(error)
    tail = None if isinstance(error, (RislabError, StoppedError)) else "".join(told)[-TRACEBACK_CHARACTERS:]
    is_agreed = isinstance(error, StoppedError) and error.is_agreed
    known = is_agreed or isinstance(error, PeerFailedError)
    if request.peers is not None and not known:
        failure = Failure(request.peers.rank, state, kind, _one_line(error), tail, exit_code(error), time.time())
        known = request.peers.report(failure)
    is_first = request.peers is None or request.peers.rank == 0
    if trial is None or not is_first or not (trial.is_ours() or trial.holder() is None):
        return known
    if isinstance(error, PeerFailedError):
        tail = error.failure.traceback
    if in_attempts:
        with suppress(OSError):
            trial.attempts.end(kind, trial.step)
    with suppress(OSError):
        trial.update_status(state=state, kind=kind, ended=time.time(), error=_one_line(error), traceback=tail)
    return known


def _write_and_release(request: StopRequest, trial: TrialDir | None, error: BaseException, in_attempts: bool) -> None:
    """The same from another thread, while the main thread, which holds the trial, hangs."""
    _write(request, trial, error, in_attempts)
    warn(_one_line(error))
    if trial is not None and trial.is_ours():
        trial.lock_file.unlink(missing_ok=True)


def _leave(request: StopRequest, error: BaseException) -> None:
    """End the ranks that this process has started: those that wait for it in a collective would do so for minutes."""
    if request.peers is None or request.peers.rank > 0:
        return
    if not (isinstance(error, StoppedError) and error.is_agreed):
        kill_descendants()
    rank_failures.left()


def _print(error: BaseException) -> None:
    with suppress(OSError):  # the log may lie on the full disk, too
        traceback.print_exception(error)
        sys.stderr.flush()


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


def _beat(trial: TrialDir, request: StopRequest, stop: threading.Event) -> None:
    """Says every two seconds that the trial lives, and looks whether it still should."""
    while not stop.wait(HEARTBEAT_SECONDS):
        if not trial.is_ours():
            # Another process took us for dead, because our file system was gone for a minute, and has the trial now.
            print("the trial's lock names another process: ending", file=sys.stderr, flush=True)
            kill_descendants()
            os._exit(1)
        with suppress(OSError):
            trial.update_status()
        if not request.cancelled and trial.is_cancelled():
            request.cancelled = True
            os.kill(os.getpid(), signal.SIGTERM)


def _classify(error: BaseException) -> tuple[State, Kind]:
    """(state, kind) of an exception; kinds as in docs/architecture.md."""
    match error:
        case StoppedError():
            return "interrupted", error.kind
        case PeerFailedError():
            return error.failure.state, error.failure.kind
        case LostRankError():
            return "interrupted", "lost"
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
        return error.reason
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by the keyboard"
    text = " ".join(str(error).split())
    return text if isinstance(error, RislabError) else f"{type(error).__name__}: {text}"
