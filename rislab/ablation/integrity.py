"""Whether a directory holds the trial that it is taken for, and whether its result is what the trial wrote.

The last file but one of a trial is `manifest.json`: the hash of the trial, and the sha256 of every file that a report reads. The
last one is `metrics.json`, whose own digest is in the manifest, too. What was finished by an earlier release has no manifest.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from rislab.ablation import identity, records
from rislab.ablation.records import DamagedError
from rislab.ablation.yaml_lines import Loader
from rislab.errors import ConfigError
from rislab.files import json_bytes, write_bytes

FILE, METRICS, IDENTITY, CONFIG = "manifest.json", "metrics.json", "identity.json", "config.yaml"
CURVES = "log/metrics.csv"
DECIDING = (CONFIG, IDENTITY, "scores.parquet")
"""Files without which a result is no result."""
PREDICTIONS, EXPORT = "predictions", "masks.json"
ANSWERS = "answers.parquet"
BLOCK = 1 << 20
ALIASES = 8
"""In a config; a few kilobytes of aliases of aliases stand for more than any memory holds."""

Suspect = Literal["foreign", "damaged", "unreadable"]
SUSPECT: tuple[Suspect, ...] = ("foreign", "damaged", "unreadable")
"""States of a directory that cannot be believed. It shows no number and is never started; the user has to look at it."""


@dataclass(frozen=True)
class Finding:
    """What a look into a directory found.

    Attributes:
        suspect: the state of one that cannot be believed, with the reason; "" for any other.
        is_done: it holds a result.
        has_digests: the result came with a manifest.
        result: metrics.json.
        recorded: identity.json.
        changed: files that no number comes from and that are not what the trial wrote, pictures and curves: they are not shown,
            and the result stands. Known after a thorough look only.
    """

    suspect: Suspect | Literal[""] = ""
    reason: str = ""
    is_done: bool = False
    has_digests: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


class ForeignError(Exception):
    """Whose directory it is instead."""


def seal(folder: Path, result: dict[str, Any]) -> None:
    """Write `manifest.json`, and then `metrics.json`, by which a trial is done."""
    data = json_bytes(result)
    recorded = records.load(folder / IDENTITY, records.IDENTITY)
    files = {name: {"sha256": sha256(path), "size": path.stat().st_size} for name, path in _evidence(folder)}
    files[METRICS] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    write_bytes(folder / FILE, json_bytes({"hash": recorded["hash"] if recorded else None, "files": files}))
    write_bytes(folder / METRICS, data)


def _evidence(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in (*DECIDING, CURVES, ANSWERS):
        if (folder / name).is_file():
            yield name, folder / name
    kept = folder / PREDICTIONS
    for path in sorted(kept.iterdir()) if kept.is_dir() else ():
        if path.is_file() and not path.name.startswith(".") and path.name != EXPORT:
            yield f"{PREDICTIONS}/{path.name}", path


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def inspect(folder: Path, wanted: str | None = None, thorough: bool = False) -> Finding:
    """Look into a trial's directory.

    Args:
        folder: The directory; it need not be there.
        wanted: Hash of the trial that it should be; None where it is not known.
        thorough: Compute the digest of every file. Otherwise only of small ones, and of those whose size is another or that were
            changed after the manifest was written, which takes a tenth of a millisecond.

    Returns:
        What was found; whatever is wrong with the files, this ends in a finding.
    """
    try:
        return _inspect(folder, wanted, thorough)
    except ForeignError as error:
        return Finding("foreign", str(error))
    except DamagedError as error:
        return Finding("damaged", str(error))
    except OSError as error:
        return Finding("unreadable", unreadable(error, folder))


def unreadable(error: OSError, folder: Path) -> str:
    """`metrics.json: Permission denied`."""
    path = Path(error.filename) if isinstance(error.filename, str) else folder
    return f"{path.name}: {error.strerror or error}"


def _inspect(folder: Path, wanted: str | None, thorough: bool) -> Finding:
    data = records.content(folder / METRICS)
    recorded = records.load(folder / IDENTITY, records.IDENTITY if thorough else records.IDENTIFIED)
    if wanted is not None:
        if recorded is None and (data is not None or (folder / "checkpoints" / "last.ckpt").exists()):
            raise ForeignError(f"{IDENTITY} is gone, so it is not known which trial this is")
        if recorded is not None and recorded["hash"] != wanted:
            # Sixteen digits, since a directory's name has the first eight.
            whose, planned = recorded["hash"][:16], wanted[:16]
            raise ForeignError(f"belongs to a trial with hash {whose}, and the table's has {planned}")
    if data is None:
        return Finding()
    result = records.parsed(data, METRICS, records.RESULT)
    manifest = records.load(folder / FILE, records.MANIFEST)
    if manifest is None:
        if thorough and recorded is not None:
            if "config" in recorded and identity.digest(recorded["config"]) != recorded["hash"]:
                raise DamagedError(f"{IDENTITY}: its config is not the one of its hash")
            _check_config(folder, recorded)
        return Finding(is_done=True, result=result, recorded=recorded or {})
    mine = recorded["hash"] if recorded else None
    if manifest["hash"] != mine:
        whose = manifest["hash"][:8] if manifest["hash"] else "a run by hand"
        raise ForeignError(f"{FILE} is that of {whose}, and {IDENTITY} that of {mine[:8] if mine else 'none'}")
    files: dict[str, dict[str, Any]] = manifest["files"]
    if hashlib.sha256(data).hexdigest() != files.get(METRICS, {}).get("sha256"):
        raise DamagedError(f"{METRICS} is not what the trial wrote")
    written = (folder / FILE).stat().st_mtime_ns
    for name in DECIDING:
        is_there = (folder / name).exists()
        if name in files and not is_there:
            raise DamagedError(f"{name} is gone")
        if is_there and (name not in files or not _is_same(folder / name, files[name], written, thorough)):
            if name != CONFIG or recorded is None:
                raise DamagedError(f"{name} is not what the trial wrote")
            _check_config(folder, recorded)  # it may say that data lie elsewhere today, and nothing else
    others = (name for name in files if name not in (*DECIDING, METRICS)) if thorough else ()
    changed = tuple(name for name in others if _is_changed(folder, name, files[name]))
    return Finding(is_done=True, has_digests=True, result=result, recorded=recorded or {}, changed=changed)


def _is_same(path: Path, entry: dict[str, Any], written: int, thorough: bool) -> bool:
    """written: when the manifest was, in nanoseconds; what is no younger is taken for the same unless the look is thorough."""
    found = path.stat()
    if found.st_size != entry["size"]:
        return False
    return sha256(path) == entry["sha256"] if thorough or found.st_mtime_ns > written else True


def _is_changed(folder: Path, name: str, entry: dict[str, Any]) -> bool:
    if not records.is_inside(name):
        return True
    try:
        return not _is_same(folder / name, entry, 0, thorough=True)
    except OSError:
        return True


def _check_config(folder: Path, recorded: dict[str, Any]) -> None:
    """Raises DamagedError unless `config.yaml` gives the recorded hash."""
    data = records.content(folder / CONFIG)
    if data is None:
        return
    try:
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader)) > ALIASES:
            raise DamagedError(f"{CONFIG} repeats parts of itself more often than any config")
        config = yaml.load(data, Loader)  # a safe loader
        hashed = recorded.get("config", {})
        takes_outputs = hashed.get(identity.TAKES) == "outputs"
        found = identity.digest(identity.identity(config, hashed.get("parent"), takes_outputs))
    except (yaml.YAMLError, ConfigError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{CONFIG} cannot be read as this trial's config: {str(error).splitlines()[0]}") from None
    if found != recorded["hash"]:
        raise DamagedError(f"{CONFIG} is the config of another trial")
