"""wandb's real agents work through a table."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation.trial import TrialDir
from tests import wandbfile
from tests.agents import agent, environment, export, server, wants_agents, work_through
from tests.worlds import ROOT, ROWS, descendants, results, rislab, rislab_here, tiny_chain, tiny_table, wait_until

pytestmark = wants_agents


def logged(*folders: Path) -> list[wandbfile.Run]:
    found = [wandbfile.read(path) for folder in folders for path in folder.glob("wandb/offline-run-*")]
    return sorted(found, key=lambda run: run.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """(table, results) of `ablate run` without wandb."""
    folder = tmp_path_factory.mktemp("undisturbed")
    table = tiny_table(folder, ROWS)
    done = rislab_here("ablate", "run", str(table), "--runs", str(folder / "runs"), "--jobs", "2", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return table, results(folder / "runs")


@pytest.fixture(scope="module")
def campaign(undisturbed: tuple[Path, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two agents at once have worked through the table."""
    folder = tmp_path_factory.mktemp("agents")
    sweep = export(undisturbed[0], folder)
    work_through(sweep, [folder / "a", folder / "b"])
    return folder


def test_two_agents_give_what_ablate_run_gives(undisturbed: tuple[Path, dict[str, bytes]], campaign: Path) -> None:
    """The same directories, hashes in their names, and the same bytes in them."""
    found = results(campaign / "runs")
    assert sorted(found) == sorted(undisturbed[1])
    assert [name for name in found if found[name] != undisturbed[1][name]] == []


def test_the_runs_say_what_the_directories_say(campaign: Path) -> None:
    runs = logged(campaign / "a", campaign / "b")
    assert [run.name for run in runs] == ["base s0", "full s0"]
    for run, term, row in zip(runs, ("train/mask", "train/text_to_pixel"), ("base", "full"), strict=True):
        (trial,) = (campaign / "runs" / "tiny").glob(f"{row}--s0--*")
        result = yaml.safe_load((trial / "metrics.json").read_text())
        assert (run.id[:3], run.sweep, run.group, run.exit_code) == ("run", "stub01", "tiny", 0)
        assert run.tags == ["tiny", row, "seed 0", "toy"]
        assert (run.config["row"], run.config["seed"]) == (row, 0)
        assert run.config["model"]["init_args"]["text_to_pixel"] is (row == "full")
        assert [line["_step"] for line in run.history if term in line] == list(range(20))
        assert [line["_step"] for line in run.history if "val/miou_expr" in line] == [9, 19]
        val = result["splits"]["val"]
        assert run.summary["miou_expr"] == run.summary["test/val/miou_expr"] == val["miou_expr"]
        assert run.history[-1]["miou_expr"] == val["miou_expr"]
        assert run.summary["predictions.count"] == 3
        assert run.summary["state"] == "done"


def test_finished_trials_are_logged_without_training(campaign: Path, tmp_path: Path) -> None:
    """A second round, in another project: the stand-in gives equal names to its runs, and those have been told all."""
    files = [p for p in (campaign / "runs").rglob("*") if p.is_file() and p.name not in ("wandb.json", ".wandb.lock")]
    before = {path: path.stat().st_mtime_ns for path in files}
    work_through(campaign / "sweep.yaml", [tmp_path / "c"], WANDB_PROJECT="again")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    first, second = logged(campaign / "a", campaign / "b"), logged(tmp_path / "c")
    for old, new in zip(first, second, strict=True):
        assert (new.name, new.summary["miou_expr"]) == (old.name, old.summary["miou_expr"])
        assert [line["_step"] for line in new.history] == [line["_step"] for line in old.history]
        # From wandb's start to its end; what the process needs beside is Python and the table.
        assert new.summary["_runtime"] < 5


def test_a_finished_table_is_told_afterwards_and_once(
    campaign: Path, undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """As after jobs that were not watched."""
    run = ["ablate", "run", str(undisturbed[0]), "--runs", str(campaign / "runs"), "--wandb", "offline"]
    for _ in range(2):
        done = rislab(*run, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [each.name for each in logged(tmp_path)] == ["base s0", "full s0"]
    alone = rislab(*run, "--launcher", "slurm", "--detach", cwd=tmp_path)
    assert alone.returncode == 2
    assert "--detach leaves no process to mirror the trials" in alone.stderr


def test_one_trial_by_hand(campaign: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, bytes]]) -> None:
    table, runs = str(undisturbed[0]), str(campaign / "runs")
    began = time.monotonic()
    done = rislab("ablate", "trial", table, "row=full", "seed=0", "--runs", runs, "--wandb", "disabled", cwd=tmp_path)
    assert time.monotonic() - began < 4  # 1 s on an idle machine; tests share theirs
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full s0: done  ")
    assert list(tmp_path.iterdir()) == []


def test_a_running_trial_is_waited_for_and_logged(
    campaign: Path, undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Another process, this test, holds the trial, and then has its result."""
    (finished,) = (campaign / "runs" / "tiny").glob("base--*")
    trial = TrialDir(tmp_path / "runs" / "tiny" / finished.name)
    arguments = ["row=base", "--runs", str(tmp_path / "runs"), "--wandb", "offline"]
    with trial.locked():
        trial.update_status(state="running")
        process = subprocess.Popen(
            [sys.executable, "-m", "rislab.cli.main", "ablate", "trial", str(undisturbed[0]), *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"base s0: being run by process {os.getpid()} on ")
        wait_until(lambda: bool(list(tmp_path.glob("wandb/offline-run-*"))))
        shutil.copytree(
            finished, trial.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("wandb.json", "status.json")
        )
    assert process.wait(60) == 0
    assert not trial.stdout.exists() or trial.stdout.read_bytes() == (finished / "log" / "stdout.txt").read_bytes()
    (run,) = logged(tmp_path)
    assert run.summary["state"] == "done"
    assert [line["_step"] for line in run.history] == list(range(21))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["row=bas"], "did you mean 'base'?"),
        (["row=base", "model.base_lrr=1"], "did you mean 'base_lr'?"),
        (["row=base", "model.ust=None"], "null cannot come through a sweep's argument"),
        (["row=base", "--threads", "0"], "--threads 0: expected at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_exit_with_2(undisturbed: tuple[Path, Any], arguments: list[str], said: str, tmp_path: Path) -> None:
    done = rislab("ablate", "trial", str(undisturbed[0]), *arguments, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_over_arguments(undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    sweep = yaml.safe_load(export(undisturbed[0], tmp_path).read_text())
    sweep |= {
        "method": "random",
        "run_cap": 2,
        "parameters": {
            "row": {"value": "base"},
            "model.base_lr": {"distribution": "log_uniform_values", "min": 1e-06, "max": 1e-05},
            "model.freeze_token_embedding": {"values": [True, False]},
        },
    }
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(sweep))
    work_through(tmp_path / "search.yaml", [tmp_path / "a"])
    trials = sorted((tmp_path / "runs" / "tiny-search").iterdir())
    assert len(trials) == 2
    assert not (tmp_path / "runs" / "tiny").exists()
    rates = {yaml.safe_load((p / "config.yaml").read_text())["model"]["init_args"]["base_lr"] for p in trials}
    runs = logged(tmp_path / "a")
    assert {run.config["model.base_lr"] for run in runs} == rates
    assert {run.config["model"]["init_args"]["base_lr"] for run in runs} == rates
    assert all(1e-06 <= rate <= 1e-05 for rate in rates)
    assert all(run.group == "tiny-search" and run.summary["state"] == "done" for run in runs)


@pytest.mark.slow
def test_a_chain_is_one_run_and_shared_stages_are_trained_once(tmp_path: Path) -> None:
    table = tiny_chain(tmp_path, "full: {ske_layers: 1}\nlevels: {ske_layers: 1, decoder_levels: [2, 3, 4]}")
    expected = tmp_path / "expected"
    assert rislab_here("ablate", "run", str(table), "--runs", str(expected), "--threads", "1").returncode == 0
    work_through(export(table, tmp_path), [tmp_path / "a", tmp_path / "b"])
    assert results(tmp_path / "runs") == results(expected)
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 3
    for run in logged(tmp_path / "a", tmp_path / "b"):
        assert run.summary["state"] == "done"
        assert {"patch/miou_expr", "miou_expr"} <= run.summary.keys()


@pytest.mark.slow
@pytest.mark.parametrize("successor", ["agent", "ablate run"])
def test_a_killed_agent_is_taken_over(
    undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path, successor: str
) -> None:
    """Agent, launcher and trial are killed at once, as with a node that dies; the next one resumes the trial."""
    sweep = export(undisturbed[0], tmp_path)
    runs = tmp_path / "runs"
    with server(sweep) as given:
        process = agent(tmp_path / "a", given)
        wait_until(lambda: any(runs.glob("*/*/checkpoints/last.ckpt")))
        for pid in [*descendants(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert not list(runs.glob("*/*/metrics.json")), "it was not done yet"
    if successor == "agent":
        work_through(sweep, [tmp_path / "b"])
        assert {run.summary["state"] for run in logged(tmp_path / "b")} == {"done"}
    else:
        done = rislab_here("ablate", "run", str(undisturbed[0]), "--runs", str(runs), "--jobs", "2", "--threads", "1")
        assert done.returncode == 0, done.stdout + done.stderr
    assert results(runs) == undisturbed[1]


@pytest.mark.slow
def test_a_trial_that_is_stopped_can_go_on(undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """SIGTERM is what an agent sends for a run that is stopped in the browser."""
    runs = tmp_path / "runs"
    arguments = ["ablate", "trial", str(undisturbed[0]), "row=full", "seed=0", "--runs", str(runs), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rislab.cli.main", *arguments], cwd=tmp_path, env=environment(WANDB_MODE="offline")
    )
    wait_until(lambda: any(runs.glob("*/*/checkpoints/last.ckpt")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    (run,) = logged(tmp_path)
    assert run.summary["state"] == "interrupted"
    done = rislab(*arguments, "--wandb", "offline", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    one, two = sorted(logged(tmp_path), key=lambda run: run.history[0]["_step"])
    assert one.id == two.id
    steps = [line["_step"] for run in (one, two) for line in run.history]
    assert steps == list(range(21)), "each step once, whole, over both parts"
    assert results(runs) == {name: data for name, data in undisturbed[1].items() if name.startswith("full")}


@pytest.mark.slow
def test_agents_and_ablate_run_at_once_train_each_trial_once(
    undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    sweep = export(undisturbed[0], tmp_path)
    with server(sweep) as given:
        agents = [agent(tmp_path / name, given) for name in "ab"]
        options = ["--runs", str(tmp_path / "runs"), "--jobs", "2", "--threads", "1"]
        done = rislab_here("ablate", "run", str(undisturbed[0]), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [process.wait(240) for process in agents] == [0, 0]
    assert results(tmp_path / "runs") == undisturbed[1]
    assert [run.name for run in logged(tmp_path / "a", tmp_path / "b")] == ["base s0", "full s0"]


@pytest.mark.slow
def test_a_server_that_answers_nonsense_costs_no_trial(
    undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Online against the stand-in, which knows nothing of runs."""
    with server(export(undisturbed[0], tmp_path)) as given:
        arguments = ["row=base", "seed=0", "--runs", str(tmp_path / "runs"), "--threads", "1", "--wandb", "online"]
        done = subprocess.run(
            [sys.executable, "-m", "rislab.cli.main", "ablate", "trial", str(undisturbed[0]), *arguments],
            cwd=tmp_path,
            env=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("rislab: wandb: ") == 1
    assert results(tmp_path / "runs") == {k: v for k, v in undisturbed[1].items() if k.startswith("base")}
