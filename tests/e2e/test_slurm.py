"""A table on a real SLURM, equal to the local pool's to the byte."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rislab.ablation.trial import TrialDir
from tests.cluster import Cluster, loopback, wants_slurm
from tests.worlds import RESULTS, ROWS, results, rislab, rislab_here, tiny_table, wait_until

pytestmark = wants_slurm

FULL = ROWS.splitlines()[1].replace("full", "base")
"""The row that draws random numbers, alone in its table."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with loopback() as made:
        yield made


def test_slurm_gives_what_the_pool_gives_also_when_preempted(tmp_path: Path, cluster: Cluster) -> None:
    table = tiny_table(tmp_path, ROWS, trainer__max_epochs=6)
    assert rislab_here("ablate", "run", str(table), "--runs", str(tmp_path / "local"), "--threads", "1").returncode == 0
    runs = tmp_path / "runs"
    options = [str(table), "--runs", str(runs), "--launcher", "slurm", "--threads", "1"]
    left = rislab("ablate", "run", *options, "--detach", **cluster.environment)
    assert left.returncode == 0, left.stderr
    assert "2 jobs submitted" in left.stderr
    again = rislab("ablate", "run", *options, "--detach", **cluster.environment)  # they have jobs, or run, already
    assert "0 jobs submitted" in again.stderr or "2 done" in again.stdout, again.stdout + again.stderr
    (full,) = runs.glob("tiny/full--*")
    trial = TrialDir(full)
    wait_until(lambda: bool(trial.status().get("step")))
    job = trial.job()
    assert job is not None
    cluster.preempt(job["id"])  # a preemption
    cluster.hurry(job["id"])
    done = rislab("ablate", "run", *options, **cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    starts = trial.attempts.all()
    assert [start.kind for start in starts] == ["preempted", ""], starts
    assert starts[1].before > 0
    assert results(runs) == results(tmp_path / "local")


@pytest.mark.slow
def test_a_trial_over_two_nodes_is_stopped_goes_on_and_gives_what_two_processes_give(
    tmp_path: Path, cluster: Cluster
) -> None:
    two = {"trainer__strategy": "ddp", "trainer__max_epochs": 6, "data__init_args__generate__init_args__scenes": 80}
    (tmp_path / "one").mkdir()
    one_node = tiny_table(tmp_path / "one", FULL, trainer__devices=2, **two)
    done = rislab("ablate", "run", str(one_node), "--runs", str(tmp_path / "local"), "--threads", "1", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "two").mkdir()
    table = tiny_table(tmp_path / "two", FULL, trainer__devices=1, trainer__num_nodes=2, **two)
    runs = tmp_path / "runs"
    here = ["--setup", "export MASTER_ADDR=127.0.0.1"]  # both nodes are this machine
    options = [str(table), "--runs", str(runs), "--launcher", "slurm", "--threads", "1", *here]
    left = rislab("ablate", "run", *options, "--detach", **cluster.environment)
    assert left.returncode == 0, left.stderr
    (folder,) = runs.glob("tiny/base--*")
    trial = TrialDir(folder)
    wait_until(lambda: bool(trial.status().get("step")))
    job = trial.job()
    assert job is not None
    cluster.preempt(job["id"])
    done = rislab("ablate", "run", *options, **cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    starts = trial.attempts.all()
    assert [start.kind for start in starts] == ["preempted", ""], starts
    assert starts[1].before > 0
    (alone,) = (tmp_path / "local").glob("tiny/base--*")
    for name in RESULTS:
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
