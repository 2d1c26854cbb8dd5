"""docs/add-a-method.md, followed to the letter in a fresh clone: new files only, its tests pass, its table runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds import ROOT

BLOCK = re.compile(r"^`(?P<file>[\w./-]+)`\n\n```\w+\n(?P<text>.*?)```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """What the page writes, by path."""
    return {found["file"]: found["text"] for found in BLOCK.finditer((ROOT / "docs" / "add-a-method.md").read_text())}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of this tree as they are, as a repository of their own, and the page's files in it."""
    folder = tmp_path_factory.mktemp("clone") / "rislab"
    folder.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    tar = subprocess.Popen(["tar", "c", "--null", "-T", "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert tar.stdin is not None
    tar.stdin.write(tracked)
    tar.stdin.close()
    subprocess.run(["tar", "x", "-C", str(folder)], stdin=tar.stdout, check=True)
    assert tar.wait() == 0
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "Start"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    if (
        ROOT / ".mypy_cache"
    ).is_dir():  # what `make check` has left: the clone's types are checked in a second instead of thirty
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(folder: Path, *command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_new_files_only_and_keeps_the_contract(clone: Path) -> None:
    run(clone, "pytest", "-q", "-n", "0", "tests/test_surface.py", UPDATE_SURFACE="1")
    suites = ("test_surface", "test_layers", "test_glossary", "methods/test_contract", "methods/test_ranks")
    tests = [f"tests/{name}.py" for name in suites]
    run(clone, "pytest", "-q", "-n", "0", *tests, "-k", "probe or not test_contract")
    run(clone, "ruff", "check", "rislab/methods/probe", "tests/methods/test_probe.py")
    run(clone, "ruff", "format", "--check", "rislab/methods/probe", "tests/methods/test_probe.py")
    run(clone, "mypy", "rislab/methods/probe")
    changed = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("??") for line in changed.splitlines()), changed
    lines = sum(len(text.splitlines()) for text in files().values())
    assert f"{lines} lines in six files" in (ROOT / "docs" / "add-a-method.md").read_text()
    assert len(files()) == 6


def test_its_table_runs(clone: Path) -> None:
    """By the page's command, on fewer and smaller pictures and with a random trunk: nothing else is changed."""
    config = clone / "experiments" / "probe" / "toy.yaml"
    text = config.read_text().replace("toy-vocabulary", str(clone / "small")).replace("max_epochs: 6", "max_epochs: 1")
    text = text.replace("scenes: 400, pairs: 3000, size: 96", "scenes: 40, pairs: 2, size: 64")
    config.write_text(text.replace("pretrained: toy", "pretrained: null"))
    # This environment is used as it is: `-o` keeps make from setting one up.
    command = ["make", "-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}", "ablation-probe"]
    env = os.environ | {"PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 trials done" in (clone / "reports" / "probe" / "report.md").read_text()
