"""What below `runs` no table needs any more, and how it is removed without ever leaving half a trial.

Looked at are the folders of tables that are known, and nothing else. What is removed is first renamed into `runs/.trash`,
under the trial's lock: a reader sees the whole trial or none, and what a kill leaves in there the next call removes.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rislab.ablation import sharing
from rislab.ablation.plan import plan
from rislab.ablation.table import Table
from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.ablation.yaml_lines import read_yaml
from rislab.data.required_files import IMPORT
from rislab.errors import ConfigError
from rislab.files import read_json

TRASH = ".trash"
OLD_SECONDS = 3600.0
"""Younger temporary files may belong to a process that is writing them."""

CHANGED = "it has been started, or changed, since it was found"
RESUMES = ("last.ckpt", "previous.ckpt")
_TRIAL = re.compile(r".+--s(?P<seed>\d+)--(?P<short>[0-9a-f]{8})$")
_TEMPORARY = re.compile(
    r"\..+\.\d+-\d+\.tmp$|\.lock-.+$|\.now-.+$|\..+-[0-9a-f]{32}\.new$|\.[0-9a-f]{8}\.[0-9a-f]{32}\.tmp$"
)


@dataclass(frozen=True)
class Garbage:
    """Something to remove. what: "trial", "optimiser state", "temporary file", "claim" or "trash".

    Attributes:
        trial: the directory whose lock is taken meanwhile.
        modified: of a trial, when it was last changed, as far as was seen.
    """

    path: Path
    what: str
    why: str
    bytes: int
    trial: Path | None = None
    hash: str = ""
    modified: float = 0.0


@dataclass(frozen=True)
class Needed:
    """Hashes of every trial that a known table needs, under any profile, with any seed that there are trials of."""

    hashes: frozenset[str]
    short: frozenset[str]
    folders: tuple[str, ...]


def needed(tables: Sequence[Table], runs: Path) -> Needed:
    """What the tables need. Raises ConfigError when one of them cannot be planned: then it is not known."""
    folders = tuple(sorted({table.name for table in tables}))
    seeds = {
        int(found["seed"])
        for folder in folders
        for name in sharing.listed(runs / folder)
        if (found := _TRIAL.match(name))
    }
    hashes = {
        cell.hash
        for table in tables
        for profile in table.profiles.values()
        for cell in plan(table, profile, sorted(seeds | set(table.seeds)), runs)
    }
    # What another folder's trials start from stays as well, though it is not known here whose they are.
    for folder in sharing.listed(runs):
        if folder not in folders and not folder.startswith("."):
            for name in sharing.listed(runs / folder):
                hashes |= _parents(runs / folder / name)
    return Needed(frozenset(hashes), frozenset(each[:8] for each in hashes), folders)


def _parents(trial: Path) -> set[str]:
    recorded = read_json(trial / "identity.json")
    config = recorded.get("config") if isinstance(recorded, dict) else None
    parent = config.get("parent") if isinstance(config, dict) else None
    return {parent} if isinstance(parent, str) else set()


def find(need: Needed, runs: Path, only: str | None = None, orphans: bool = True) -> list[Garbage]:
    """What may go, in the order of paths. only: one table's folder. orphans: whole trials that no table needs, too."""
    found: list[Garbage] = []
    for folder in need.folders if only is None else (only,):
        if (runs / folder).is_symlink():
            continue
        for name in sorted(sharing.listed(runs / folder)):
            path, match = runs / folder / name, _TRIAL.match(name)
            if match is not None and path.is_dir() and not path.is_symlink():
                with suppress(FileNotFoundError):  # another gc is at it
                    found += _of_trial(path, match["short"], need, orphans)
    for path in sorted(_entries(runs / TRASH)):
        found.append(Garbage(path, "trash", "an earlier gc was ended while it removed this", size(path)))
    if only is None:
        found += _claims(need, runs)
    return found


def _of_trial(path: Path, short: str, need: Needed, orphans: bool) -> list[Garbage]:
    trial = TrialDir(path)
    if trial.holder() is not None:
        return []
    digest = _hash(path)
    is_needed = short in need.short if digest is None else digest in need.hashes
    imported = None if is_needed else _imported(path)
    if not is_needed and imported is not True:
        if not orphans:
            return []
        row, state = path.name.split("--")[0], str(trial.state())
        if state == "queued":  # its job would start without its directory
            return []
        why = f"no table needs it: row {row!r} is gone, or another trial now ({state})"
        if imported is False:
            why = f"its pictures were imported anew since: no table can need it ({state})"
        return [Garbage(path, "trial", why, size(path), path, digest or "", _modified(path))]
    found = []
    checkpoints = trial.checkpoints
    if not checkpoints.is_symlink() and (checkpoints / "best.ckpt").exists() and trial.state() == "done":
        for name in RESUMES:
            file = checkpoints / name
            if file.is_file() and not file.is_symlink():
                found.append(
                    Garbage(file, "optimiser state", "the trial is done and keeps best.ckpt", size(file), path)
                )
    for file in _temporary((path, checkpoints, path / "log", path / "predictions")):
        found.append(Garbage(file, "temporary file", "left by a process that was killed", size(file), path))
    return found


def _imported(path: Path) -> bool | None:
    """Whether a trial's imported set is still of the trial's version; None for a trial of other data.

    Tables name no imported set, `--data` does: what such a trial is needed for cannot be known here. A set that is out of reach
    counts as the one that it was.
    """
    try:
        config = read_yaml(path / "config.yaml")
    except ConfigError:
        return None
    data = config.get("data") if isinstance(config, dict) else None
    options = data.get("init_args") if isinstance(data, dict) else None
    version = options.get("version") if isinstance(options, dict) else None
    if options is None or not isinstance(version, str):
        return None
    said = read_json(Path(str(options.get("root"))) / str(options.get("dataset")) / IMPORT)
    return not isinstance(said, dict) or said.get("version") == version


def _temporary(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(_entries(folder)):
            if _TEMPORARY.match(path.name) and path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):  # its writer is done with it
                    if time.time() - path.stat().st_mtime > OLD_SECONDS:
                        yield path


def _claims(need: Needed, runs: Path) -> Iterator[Garbage]:
    """Claims on directories that are not there, of trials that no table needs."""
    for path in sorted(_entries(runs / sharing.CLAIMS)):
        if path.is_symlink() or not path.is_file():
            continue
        named = sharing.claimed(runs, path.name)
        is_known = named is not None and named.parent.name in need.folders
        if is_known and named is not None and not named.exists() and path.name not in need.hashes:
            yield Garbage(path, "claim", f"names {named}, which is not there", size(path), None, path.name)
    for file in _temporary((runs / sharing.CLAIMS,)):
        yield Garbage(file, "temporary file", "left by a process that was killed", size(file))


def remove(one: Garbage, runs: Path) -> str:
    """Take it away, unless it has changed since it was found. Returns why it was left, or "". Raises OSError."""
    try:
        if one.what == "trash":
            shutil.rmtree(one.path, ignore_errors=True) if one.path.is_dir() else one.path.unlink(missing_ok=True)
            return ""
        if one.trial is None:
            one.path.unlink(missing_ok=True)
            return ""
        if not one.trial.is_dir():
            return "it is gone already"
        return _remove_trial(one, runs) if one.what == "trial" else _remove_file(one)
    except TrialBusyError:
        return "a process holds the trial"
    except FileNotFoundError:
        return "it is gone already"


def _remove_trial(one: Garbage, runs: Path) -> str:
    if _modified(one.path) != one.modified:
        return CHANGED
    away = runs / TRASH / f"{uuid.uuid4().hex}--{one.path.name}"
    try:
        return _take_away(one, runs, away)
    finally:
        with suppress(OSError):  # an empty folder, made for the lock after another gc had taken the trial away
            one.path.rmdir()


def _take_away(one: Garbage, runs: Path, away: Path) -> str:
    with TrialDir(one.path).locked():
        # No process changes it from here on. Taking the lock made a file, so the time of the folder itself says nothing now.
        if (_hash(one.path) or "") != one.hash or _modified(one.path, with_folder=False) > one.modified:
            return CHANGED
        if away.parent.is_symlink():
            return f"{away.parent} is a link to elsewhere"
        away.parent.mkdir(exist_ok=True)
        if one.hash:
            sharing.release(runs, one.hash, one.path)
        one.path.rename(away)  # the lock goes with it
    shutil.rmtree(away, ignore_errors=True)
    return f"{away} could not be removed entirely" if away.exists() else ""


def _remove_file(one: Garbage) -> str:
    assert one.trial is not None
    trial = TrialDir(one.trial)
    with trial.locked():
        if one.what == "optimiser state" and not (
            trial.state() == "done" and (trial.checkpoints / "best.ckpt").exists()
        ):
            return "the trial is no longer done"
        one.path.unlink(missing_ok=True)
    return ""


def _hash(path: Path) -> str | None:
    recorded = read_json(path / "identity.json")
    found = recorded.get("hash") if isinstance(recorded, dict) else None
    return found if isinstance(found, str) else None


def _modified(path: Path, with_folder: bool = True) -> float:
    """When a trial's folder, or a file right in it, was last changed; locks apart."""
    times = [path.stat().st_mtime] if with_folder else [0.0]
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name != "lock" and not entry.name.startswith(".lock-"):
                times.append(entry.stat(follow_symlinks=False).st_mtime)
    return max(times)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing in one that is a link, since that lies elsewhere."""
    return [] if folder.is_symlink() else [folder / name for name in sharing.listed(folder)]


def size(path: Path) -> int:
    """Bytes of a file, or of everything below a folder; links count as nothing."""
    if path.is_symlink():
        return 0
    if not path.is_dir():
        with suppress(FileNotFoundError):  # another gc is at it
            return path.stat().st_size
        return 0
    return sum(size(each) for each in _entries(path))
