"""What a trial writes down about how it was made."""

import importlib.metadata
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rislab.files import read_json
from rislab.training import provenance
from tests.worlds import rislab, tiny_config


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package in it, which takes the place of ours."""
    root = tmp_path / "checkout"
    package = root / "rislab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("depth = 1\n")
    (package / "crlf.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (root / "notes.txt").write_text("not of the package\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return root


def started(folder: Path) -> dict[str, Any]:
    provenance.begin(folder, ["fit", "--config", "a b.yaml"])
    found = read_json(folder / "provenance.json")
    assert isinstance(found, dict)
    return found


def test_clean_code_leaves_no_diff(checkout: Path, tmp_path: Path) -> None:
    (checkout / "notes.txt").write_text("changed\n")
    (checkout / "rislab" / "notes.txt").write_text("no source\n")
    found = started(tmp_path / "trial")
    assert len(found["code"]["commit"]) == 40
    assert found["code"]["dirty"] is None
    assert not (tmp_path / "trial" / "code.diff").exists()


def test_the_diff_makes_the_code_again(checkout: Path, tmp_path: Path) -> None:
    package = checkout / "rislab"
    (package / "model.py").write_text("depth = 2\n")
    (package / "crlf.py").write_bytes(b"a = 1\r\nb = 3\r\n")
    (package / "sub").mkdir()
    (package / "sub" / "näu.py").write_bytes("text = 'ä \udcff'\n".encode(errors="surrogateescape"))
    (package / "options.yaml").write_text("a: 1\n")
    (package / "weights.bin").write_bytes(b"\0\1")
    found = started(tmp_path / "trial")
    assert len(found["code"]["dirty"]) == 12
    subprocess.run(["git", "clone", "--quiet", str(checkout), str(tmp_path / "again")], check=True)
    git(tmp_path / "again", "apply", str(tmp_path / "trial" / "code.diff"))
    for name in ("model.py", "crlf.py", "sub/näu.py", "options.yaml"):
        assert (tmp_path / "again" / "rislab" / name).read_bytes() == (package / name).read_bytes(), name
    assert not (tmp_path / "again" / "rislab" / "weights.bin").exists()


def test_every_start_says_what_code_it_was_made_with(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "trial"
    (checkout / "rislab" / "model.py").write_text("depth = 2\n")
    first = started(trial)
    provenance.end(trial, {"fit": 10.0}, steps_per_second=2.0)
    (checkout / "rislab" / "model.py").write_text("depth = 3\n")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    started(trial)
    (trial / "wandb.json").write_text('{"id": "abc"}')
    provenance.end(trial, {"fit": 5.0, "test": 1.0}, steps_per_second=3.0)
    found = read_json(trial / "provenance.json")
    assert found["seconds"] == {"fit": 15.0, "test": 1.0}
    assert found["steps_per_second"] == 3.0
    before, after = found["starts"]
    assert before["code"] == first["code"] != after["code"] == found["code"]
    assert (before["slurm"], before["wandb"]) == (None, None)
    assert after["slurm"] == {"job_id": "17", "job_nodelist": "node[1-2]"}
    assert after["wandb"] == "abc"
    assert before["started"] <= before["ended"] <= after["started"] <= after["ended"]
    kept = trial / f"code-{before['code']['dirty']}.diff"
    assert "+depth = 2" in kept.read_text()
    assert "+depth = 3" in (trial / "code.diff").read_text()
    git(checkout, "checkout", "--quiet", ".")
    assert started(trial)["code"]["dirty"] is None
    assert not (trial / "code.diff").exists(), "it would say that the code of the last start was another"


def test_an_installed_package_has_no_commit(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in an environment inside of some other repository."""
    package = checkout / ".venv" / "rislab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert started(tmp_path / "trial")["code"] == {"commit": None, "dirty": None}
    monkeypatch.setenv("PATH", "")
    assert started(tmp_path / "trial")["code"] == {"commit": None, "dirty": None}


def test_packages_are_what_pip_says_and_quickly(tmp_path: Path) -> None:
    began = time.process_time()
    found = provenance.packages()
    assert time.process_time() - began < 1  # about 0.02 s
    assert found == sorted(found, key=lambda line: line.partition("==")[0].lower().replace("_", "-"))
    for name in ("torch", "numpy", "PyYAML"):
        assert f"{name}=={importlib.metadata.version(name)}" in found
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    pinned = {line for line in listed if "==" in line and not line.startswith("#")}
    assert pinned <= set(found)
    started(tmp_path)
    assert (tmp_path / "packages.txt").read_text().splitlines() == found


def test_hardware_and_command(tmp_path: Path) -> None:
    found = started(tmp_path)
    assert shlex.split(found["command"]) == ["rislab", "fit", "--config", "a b.yaml"]
    assert found["hardware"]["memory_mb"] > 100
    assert len(found["hardware"]["gpus"]) == len(found["hardware"]["gpu_memory_mb"])
    provenance.end(tmp_path, {})
    found = read_json(tmp_path / "provenance.json")
    assert found["peak_memory_mb"] > 10
    assert "peak_gpu_memory_mb" in found


def test_nothing_of_it_reaches_the_result(tmp_path: Path) -> None:
    """Two runs that differ in place, time and command are byte-equal in what they found."""
    (tmp_path / "config.yaml").write_text(json.dumps(tiny_config(trainer__max_epochs=1)))
    folders = [tmp_path / "one", tmp_path / "two words"]
    for folder in folders:
        done = rislab("fit", "--config", str(tmp_path / "config.yaml"), "--trainer.default_root_dir", str(folder))
        assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "scores.parquet"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    one, two = (read_json(folder / "provenance.json") for folder in folders)
    assert shlex.split(two["command"])[-1] == str(folders[1])
    assert one["starts"][0]["started"] < one["starts"][0]["ended"] <= two["starts"][0]["started"]
    assert two["code"] == one["code"]
    assert (folders[0] / "packages.txt").read_bytes() == (folders[1] / "packages.txt").read_bytes()
    assert (folders[0] / "code.diff").exists() == (one["code"]["dirty"] is not None)
