"""`rislab fit` on two gloo processes: equal digits, one end for all ranks, and a resume that changes no byte."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rislab import api
from rislab.ablation.trial import TrialDir
from rislab.errors import RislabError
from rislab.evaluation.kept_answers import read
from tests.data.small import SmallSet
from tests.e2e.faulty import VARIABLE
from tests.forks import forking
from tests.worlds import RESULTS, ROOT, descendants, is_alive, rislab, rislab_here, tiny_config, tiny_table, wait_until

PATIENCE = 400.0
"""Seconds for a run of a few steps, on a machine with other work; one that hangs would take for ever."""

pytestmark = pytest.mark.timeout(1800)


def command(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """The command line as `python -m rislab.cli.main`, in a process that has paid the imports."""
    os.environ.update(environment)
    os.chdir(ROOT)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import rislab.cli.main as main

    sys.modules["__main__"] = main  # what Lightning starts again for the second rank
    sys.argv = ["rislab", *arguments]
    sys.exit(main.main(arguments))


class Runs:
    """Runs of one config in directories below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        data = SmallSet({"train": 12, "val": 9, "testA": 10, "testB": 11, "test": 1}).write(folder / "data")
        config = tiny_config(trainer__devices=2, trainer__strategy="ddp", trainer__enable_progress_bar=False)
        config["model"]["class_path"] = "tests.e2e.faulty.FaultyCRIS"
        config["model"]["init_args"] |= {"image_size": 32, "fpn_out": [8, 32, 8], "dim_ffn": 16, "decoder_layers": 1}
        # A rate at which so few steps do not end in empty masks, which would score 0 whatever happened.
        config["model"]["init_args"] |= {"dropout": 0.1, "base_lr": 3.0e-4}
        del config["data"]["init_args"]["generate"]
        config["data"]["init_args"] |= {"root": str(data), "batch_size": 3, "references_per_image": 1}
        config["data"]["init_args"] |= {"eval_images": 1, "limit_val_images": None}
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(config))

    def fit(self, run: Path, fault: str = "none:-1:-1") -> int:
        """Exit code; both processes are gone."""
        arguments = ["fit", "--config", str(self.config), "--trainer.default_root_dir", str(run)]
        process = forking().Process(target=command, args=(arguments, self.log, {VARIABLE: fault}))
        process.start()
        assert process.pid is not None
        try:
            wait_until(lambda: bool(descendants(process.pid)) or process.exitcode is not None, PATIENCE)
            ranks = descendants(process.pid) if process.exitcode is None else []
            process.join(PATIENCE)
            assert process.exitcode is not None, f"it hangs: {self.log.read_text()[-2000:]}"
            wait_until(lambda: not any(map(is_alive, ranks)), 30)
            return process.exitcode
        finally:
            process.kill()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Path:
    run = runs.folder / "undisturbed"
    assert runs.fit(run) == 0, runs.log.read_text()
    return run


def splits(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())["splits"]
    return found


def test_unequal_numbers_of_batches_give_the_digits_of_one_process(runs: Runs, undisturbed: Path) -> None:
    """9, 10, 11 pictures and one, one a batch: neither DDP's broadcasts nor looks at signals may count batches of one rank."""
    alone = runs.folder / "alone"
    done = rislab_here(
        *("test", "--config", str(runs.config), "--trainer.default_root_dir", str(alone)),
        *("--trainer.devices=1", "--trainer.strategy=auto"),
        *("--ckpt_path", str(undisturbed / "checkpoints" / "best.ckpt")),
    )
    assert done.returncode == 0, done.stderr
    assert {split: row["images"] for split, row in splits(undisturbed).items()} == {
        "val": 9,
        "testA": 10,
        "testB": 11,
        "test": 1,
    }
    assert splits(undisturbed) == splits(alone)
    for name in ("scores.parquet", "answers.parquet"):
        assert (undisturbed / name).read_bytes() == (alone / name).read_bytes(), name
    kept = read(undisturbed / "answers.parquet").splits
    assert {split: len(answers) for split, answers in kept.items()} == {
        split: row["expressions"] for split, row in splits(alone).items()
    }
    assert any(len(answers) % 2 for answers in kept.values())
    curves = [line.split(",") for line in (undisturbed / "log" / "metrics.csv").read_text().splitlines()]
    best = max(float(value) for _, _, name, value in curves if name == "val/miou_expr")
    assert best == pytest.approx(splits(alone)["val"]["miou_expr"], rel=1e-6)
    assert best > 0
    assert TrialDir(undisturbed).state() == "done"


def test_ranks_end_together_and_a_resume_in_mid_epoch_changes_no_byte(runs: Runs, undisturbed: Path) -> None:
    """A signal to rank 1, then a loss of rank 1 that is not finite; then nothing is in the way."""
    trial = TrialDir(runs.folder / "disturbed")
    assert runs.fit(trial.path, "stop:1:2") == 128 + signal.SIGTERM
    status = trial.status()
    assert (trial.state(), status["kind"], status["error"]) == ("interrupted", "preempted", "stop requested")
    step = torch.load(trial.checkpoints / "last.ckpt", weights_only=True)["global_step"]
    assert step % 4, "in the middle of an epoch of four steps"
    assert runs.fit(trial.path, "nan:1:6") == 3
    status = trial.status()
    assert (trial.state(), status["kind"]) == ("diverged", "nan")
    assert status["error"] == "rank 1: loss term text_to_pixel is not finite at step 6"
    assert runs.fit(trial.path) == 0, runs.log.read_text()
    for name in RESULTS:
        assert (trial.path / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not (trial.path / ".ranks").exists()
    assert not trial.lock_file.exists()


def test_a_table_over_own_data_on_two_processes_keeps_the_answers_of_one(tmp_path: Path) -> None:
    """Imported photos, a table's trial on two processes, and one process on its checkpoint; then what reads the answers."""
    done = rislab_here(
        "data", "import", str(ROOT / "docs" / "own-data" / "photos.csv"), "--out", "DATA/mine", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    config = tiny_config(trainer__devices=2, trainer__strategy="ddp", trainer__max_epochs=1)
    data = yaml.safe_load((ROOT / "experiments" / "cris" / "own.yaml").read_text())["data"]["init_args"]
    config["data"]["init_args"] = data | {"eval_images": 1, "batch_size": 3}
    config["model"]["init_args"] |= {"image_size": 32, "base_lr": 1.0e-3}
    table = tiny_table(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    table.write_text(table.read_text().replace("  toy:\n", "  own:\n").replace("split: val", "split: test"))
    options = (str(table), "--profile", "own", "--data", "DATA/mine")
    # A new interpreter: Lightning starts the second rank by the program that runs.
    done = rislab("ablate", "run", *options, cwd=tmp_path, fresh=True, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = (tmp_path / "runs" / "tiny").glob("base--s0--*")
    done = rislab_here(
        *("test", "--config", str(trial / "config.yaml"), "--trainer.default_root_dir", "alone"),
        *("--trainer.devices=1", "--trainer.strategy=auto", "--ckpt_path", str(trial / "checkpoints" / "best.ckpt")),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for name in ("scores.parquet", "answers.parquet"):
        assert (trial / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    kept = read(trial / "answers.parquet").splits["test"]
    assert len(kept) == 9
    done = rislab_here("ablate", "browse", *options, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notes"] == []
    index = (tmp_path / "reports" / "tiny" / "browse" / "data" / "index.js").read_text()
    assert json.loads(index[len("rislabBrowse.index(") : -len(");\n")])["units"]["number"] == sorted(kept)
    with contextlib.chdir(tmp_path):
        found = api.results(str(table), profile="own", data="DATA/mine")
    assert found.expressions("base")["sent_id"].tolist() == sorted(kept)
    model = api.load(f"{table}:base", profile="own", data=tmp_path / "DATA" / "mine", runs=tmp_path / "runs")
    assert len(model.segment(next((tmp_path / "DATA" / "images" / "mine").iterdir()), ["left star"])) == 1
    assert found.rows()[0]["miou_expr"] == pytest.approx(splits(trial)["test"]["miou_expr"])
    (trial / "scores.parquet").unlink()
    with pytest.raises(RislabError, match=r"scores\.parquet: no such file"):
        found.expressions("base")
