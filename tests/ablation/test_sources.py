"""Code counts where a trial can reach it, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rislab.ablation import sources
from tests.worlds import ROOT

CRIS = yaml.safe_load((ROOT / "experiments" / "cris" / "toy.yaml").read_text())
TCL = yaml.safe_load((ROOT / "experiments" / "tcl" / "toy.yaml").read_text())


def test_what_a_trial_runs_through_is_in_and_what_it_does_not_is_out() -> None:
    cris, tcl = sources.sources(CRIS), sources.sources(TCL)
    for name in (
        "methods/cris/model",
        "datamodules/referring",
        "data/toy/world",
        "data/sets/refcoco",
        "training/trial",
    ):
        assert f"rislab/{name}.py" in cris, name
    assert "rislab/encoders/clip/configs/rislab-tiny-RN.json" in cris
    for name in ("bench/loading", "cli/main", "report/write", "launch/local_pool", "methods/tcl/model", "data/shards"):
        assert f"rislab/{name}.py" not in cris, name
    assert {
        "rislab/ranks.py",
        "rislab/data/shards.py",
        "rislab/methods/tcl/model.py",
        "rislab/data/names/voc.yaml",
    } <= tcl.keys()


@pytest.mark.parametrize("config", [CRIS, TCL], ids=["cris", "tcl"])
def test_everything_that_python_imports_of_us_is_found(config: dict[str, object]) -> None:
    """The interpreter's own answer: which modules are there once the classes and the entry point are imported."""
    modules = [*sources.ENTRY, *(path.rpartition(".")[0] for path in sources._class_paths(config))]
    code = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]: importlib.import_module(module)\n"
        "print(*(m.__file__ for name, m in sys.modules.items() if name.split('.')[0] == 'rislab'))"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {Path(file).relative_to(ROOT).as_posix() for file in done.stdout.split()}
    assert imported <= sources.sources(config).keys()
