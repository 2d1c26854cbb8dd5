"""The smallest real thing: CRIS on a world of a few scenes, for tests that go through the real command line."""

import contextlib
import copy
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rislab.cli.main import main
from tests.forks import forking

ROOT = Path(__file__).parents[1]
TOOLS = Path(os.environ.get("RISLAB_TOOLS") or ROOT.parent / "shared" / "tools")
"""Stand-ins for what a test machine lacks: a cluster, a sweep server. No part of this repository."""

ROWS = "base: {text_to_pixel: false, decoder_layers: 0}\nfull: {text_to_pixel: true, decoder_layers: 1, dropout: 0.1}"
"""Two rows for `tiny_table`; the second draws random numbers in every step."""

RESULTS = ("metrics.json", "scores.parquet", "answers.parquet", "log/metrics.csv", "predictions/predictions.json")
"""What must be equal to the byte, however a trial came to its end."""


def tiny_config(**changes: Any) -> dict[str, Any]:
    """experiments/cris/toy.yaml, shrunk: a random trunk, 24 scenes, two epochs. Nothing is mocked but size.

    changes: dotted keys with `__` for the dots, e.g. ``model__init_args__decoder_layers=0``.
    """
    config = copy.deepcopy(yaml.safe_load((ROOT / "experiments" / "cris" / "toy.yaml").read_text()))
    config["trainer"] |= {"max_epochs": 2, "check_val_every_n_epoch": 1, "log_every_n_steps": 1}
    config["model"]["init_args"] |= {"clip": {"name": "rislab-tiny-RN", "pretrained": None}, "warmup_steps": 1}
    data = config["data"]["init_args"]
    data |= {"batch_size": 6, "references_per_image": 2, "sentences_per_reference": 1, "eval_images": 4, "root": "tiny"}
    data |= {"dataset": "refcoco", "test_splits": None}
    data["generate"]["init_args"] |= {"scenes": 40, "size": 64, "test_scenes": 0}
    config["trial"] = {"checkpoint_every_n_steps": 2, "predictions": 3}
    _put(config, changes)
    return config


def rislab(
    *arguments: str, cwd: Path = ROOT, patience: float = 240, fresh: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own, which must end within `patience` seconds.

    The process is forked from a server that has paid the imports, which are most of the seconds of a short command; with `fresh`
    it is a new interpreter, for what is decided while modules are imported. `environment` is added to this process's.
    """
    if not fresh:
        return _forked(arguments, cwd, patience, os.environ | environment)
    return subprocess.run(
        [sys.executable, "-m", "rislab.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=patience,
    )


def _forked(
    arguments: Sequence[str], cwd: Path, patience: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = forking().Process(target=_command, args=(arguments, cwd, dict(environment), out, err))
        process.start()
        process.join(patience)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, patience, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(arguments, process.exitcode or 0, out.read_text(), err.read_text())


def _command(arguments: Sequence[str], cwd: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    sys.argv = ["rislab", *arguments]
    code = main(list(arguments))
    sys.stdout.flush()
    sys.exit(code)


def rislab_here(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The same in this process: for what ends in an error or is over at once, and for tables, whose trials have processes of
    their own anyway; their pool then forks from this process's server, which has paid the imports."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd):
        try:
            code = main(list(arguments))
        except SystemExit as stop:  # argparse's and jsonargparse's way
            code = int(stop.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def untrained(folder: Path, experiment: str) -> str:
    """A copy of a toy experiment without pretrained weights, for commands to which weights make no difference; its path."""
    path = folder / f"{experiment.replace('/', '-')}.yaml"
    text = (ROOT / "experiments" / f"{experiment}.yaml").read_text()
    path.write_text(text.replace("pretrained: toy", "pretrained: null"))
    return str(path)


def tiny_table(folder: Path, rows: str = "base: {text_to_pixel: false, decoder_layers: 0}", **changes: Any) -> Path:
    """A table of ours over `tiny_config`, written into `folder`; `rows` is `name: {switches}` a line."""
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(**changes)))
    table = {
        "name": "tiny",
        "title": "A table for tests",
        "paper": {"method": "cris", "title": "CRIS", "venue": "CVPR", "year": 2022, "sources": ["tests"]},
        "profiles": {
            "toy": {
                "config": [str(config)],
                "column": "refcoco",
                "dataset": "a world of a few scenes",
                "is_paper_dataset": False,
                "split": "val",
            }
        },
        "seeds": [0],
        "metrics": ["miou_expr", "oiou", "pr@50"],
        "baseline": "base",
        "rows": [
            {
                "name": name,
                "label": name,
                "switches": {f"model.{key}": value for key, value in switches.items()},
                "paper": {},
            }
            for name, switches in yaml.safe_load(rows).items()
        ],
        "claims": [],
    }
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def tiny_chain(folder: Path, rows: str, **changes: Any) -> Path:
    """A table of RISCLIP's two stages over a random trunk and a world of a few scenes; `rows` as in `tiny_table`."""
    config = yaml.safe_load((ROOT / "experiments" / "risclip" / "toy.yaml").read_text())
    cris = tiny_config()
    config["data"], config["trial"] = cris["data"], cris["trial"]
    config["data"]["init_args"]["protocol"] = "native"
    config["trainer"] |= {"max_epochs": 2, "log_every_n_steps": 1}
    # Random, and the same again in the second stage, because it is the first thing that the seed decides.
    config["model"]["init_args"] |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": None}, "image_size": 64}
    _put(config, changes)
    (folder / "chain.yaml").write_text(yaml.safe_dump(config))
    (folder / "pixel.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}}))
    path = tiny_table(folder, rows)
    table = yaml.safe_load(path.read_text())
    table["paper"]["method"] = "risclip"
    table["profiles"]["toy"] |= {
        "config": [str(folder / "chain.yaml")],
        "stages": [{"name": "patch"}, {"name": "pixel", "config": [str(folder / "pixel.yaml")], "from": "patch"}],
    }
    table["metrics"] = ["patch:miou_expr", "miou_expr", "oiou"]
    table["baseline"] = table["rows"][0]["name"]
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def results(runs: Path) -> dict[str, bytes]:
    """The results of all trials below `runs`, by `trial/file`."""
    trials = sorted(path for path in runs.glob("*/*--s*--*") if path.is_dir())
    return {f"{trial.name}/{name}": (trial / name).read_bytes() for trial in trials for name in RESULTS}


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs. A process may end while this looks."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _put(config: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        *path, last = key.split("__")
        place = config
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
