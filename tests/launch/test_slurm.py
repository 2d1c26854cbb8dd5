"""What is requested of a cluster, without one."""

from pathlib import Path

import pytest

from rislab.errors import ConfigError
from rislab.launch.local_pool import Job
from rislab.launch.slurm import Cluster, Shape, cluster, minutes, packed, script, shape
from tests.worlds import rislab, tiny_table


@pytest.mark.parametrize(
    ("text", "wanted"), [("90", 90), ("12:00:00", 720), ("1-06:00:00", 1800), ("0:30", 1), ("2-0", 2880), ("90:30", 91)]
)
def test_times_are_read_as_sbatch_reads_them(text: str, wanted: int) -> None:
    assert minutes(text) == wanted


@pytest.mark.parametrize("text", ["", "soon", "0", "1:2:3:4", "-5"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="time"):
        minutes(text)


def test_the_command_line_stands_over_the_block() -> None:
    made = cluster({"partition": "a", "time": "2:00:00", "setup": ["x"]}, {"partition": "b", "time": None})
    assert (made.partition, made.minutes, made.setup) == ("b", 120, ("x",))
    with pytest.raises(ConfigError, match=r"cluster\.at_once is 0"):
        cluster({}, {"at_once": 0})


def test_gpus_are_those_of_the_recipe() -> None:
    eight = {"accelerator": "gpu", "devices": 8}
    assert shape(eight, Cluster()) == Shape(1, 8)
    assert shape({"accelerator": "cpu", "devices": 1}, Cluster()) == Shape(1, 0)
    with pytest.raises(ConfigError, match=r"--gpus-per-trial 4, but trainer\.devices is 8"):
        shape(eight, Cluster(gpus_per_trial=4))
    with pytest.raises(ConfigError, match="cannot be packed"):
        shape({**eight, "num_nodes": 2}, Cluster(trials_per_job=2))


def test_the_script_says_what_was_requested(tmp_path: Path) -> None:
    cluster = Cluster(
        partition="p", time="12:00:00", cpus_per_trial=8, array_parallelism=4, trials_per_job=6, at_once=2,
        setup=("module load cuda",), sbatch={"nice": 10},
    )  # fmt: skip
    lines = script(tmp_path, "cris", cluster, Shape(1, 1), 5).splitlines()
    for line in (
        "#SBATCH --array=0-4%4",
        "#SBATCH --partition=p",
        "#SBATCH --time=720",
        "#SBATCH --cpus-per-task=16",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --nice=10",
        "module load cuda",
    ):
        assert line in lines, line
    ranks = script(tmp_path, "cris", Cluster(cpus_per_trial=64), Shape(2, 8), 1).splitlines()
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --cpus-per-task=8"} <= set(ranks)


def test_the_longest_trials_go_to_different_jobs() -> None:
    jobs = [Job(str(n), "x:y", "") for n in range(7)]
    assert [[job.name for job in group] for group in packed(jobs, Cluster(trials_per_job=3))] == [
        ["0", "3", "6"],
        ["1", "4"],
        ["2", "5"],
    ]


def test_plan_shows_the_batch_script_and_its_cost(tmp_path: Path) -> None:
    table = tiny_table(tmp_path)
    text = table.read_text().replace(
        "    split: val\n", "    split: val\n    cluster: {partition: gpu, time: '3:00:00'}\n"
    )
    table.write_text(text)
    done = rislab("ablate", "plan", str(table), "--launcher", "slurm", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=gpu" in done.stdout
    assert "#SBATCH --time=180" in done.stdout
    assert "GPU hours" in done.stdout
    assert not (tmp_path / "runs").exists()
    table.write_text(text.replace("partition", "partitoin"))
    done = rislab("ablate", "plan", str(table), "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "partitoin is no option of Cluster (did you mean 'partition'?)" in done.stderr


EVIL = "gpu\ntouch elsewhere #"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b", "\x00", "\x85", "\u2028"])
@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "mem"])
def test_control_characters_are_refused_wherever_they_come_from(name: str, control: str) -> None:
    for block, given in (({name: f"a{control}b"}, {}), ({}, {name: f"a{control}b"})):
        with pytest.raises(ConfigError, match=rf"cluster\.{name} is .*control characters"):
            cluster(block, given)


@pytest.mark.parametrize(
    "sbatch", [{"comment": EVIL}, {"a\nb": 1}, {"nice 1": 2}, {"": 1}, {"-x": 1}, {"gres": ["a"]}, {"x": {"y": 1}}]
)
def test_options_for_sbatch_have_names_and_one_value(sbatch: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.sbatch"):
        cluster({"sbatch": sbatch}, {})


def test_nothing_but_setup_becomes_a_line_of_the_script(tmp_path: Path) -> None:
    """The last look is where the script is written, whatever came before it."""
    with pytest.raises(ConfigError, match="job_name"):
        script(tmp_path, EVIL, Cluster(), Shape(1, 0), 1)
    with pytest.raises(ConfigError, match="folder"):
        script(tmp_path / EVIL, "a", Cluster(), Shape(1, 0), 1)
    with pytest.raises(ConfigError, match="partition"):
        script(tmp_path, "a", Cluster(partition=EVIL), Shape(1, 0), 1)
    made = cluster({"setup": ["module load cuda\nexport A=1\n"], "partition": "a b; touch c"}, {})
    lines = script(tmp_path, "a", made, Shape(1, 0), 1).splitlines()
    assert {"module load cuda", "export A=1", "#SBATCH --partition='a b; touch c'"} <= set(lines)
    with pytest.raises(ConfigError, match=r"cluster\.setup"):
        cluster({"setup": ["a\x1bb"]}, {})


@pytest.mark.parametrize(
    ("name", "value"), [("signal_seconds", -1), ("signal_seconds", 70000), ("gpus_per_trial", -1), ("at_once", 10**9)]
)
def test_counts_of_the_cluster_have_bounds(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.{name} is {value}, expected "):
        cluster({name: value}, {})
    with pytest.raises(ConfigError, match="time"):
        minutes("9" * 5000)
