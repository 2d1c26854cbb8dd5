"""`run`, `plan`, `cancel` and `retry` beside trials that are damaged, read-only or another's; counts without bounds."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rislab.ablation import plan, table
from rislab.ablation.attempts import Attempts
from rislab.ablation.plan import Planned
from rislab.ablation.trial import TrialDir
from rislab.files import read_json, write_json
from rislab.launch import local_pool
from rislab.launch.local_pool import LocalPool
from tests.faults.campaign import read_only
from tests.launch.test_disk import may_mount
from tests.launch.test_local_pool import JOBS, job, nothing
from tests.worlds import rislab_here, tiny_table

TWO = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"


@pytest.fixture
def campaign(tmp_path: Path) -> dict[str, Planned]:
    """Two trials with directories, `full` done."""
    path = tiny_table(tmp_path, TWO)
    loaded = table.load(path)
    cells = {cell.row.name: cell for cell in plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")}
    for cell in cells.values():
        cell.write()
    write_json(cells["full"].trial.metrics_file, {"splits": {"val": {"miou_expr": 50.0}}, "step": 3, "parameters": {}})
    write_json(cells["full"].trial.provenance_file, {"seconds": {"fit": 60.0}, "peak_gpu_memory_mb": 0})
    return cells


def ablate(verb: str, tmp_path: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return rislab_here("ablate", verb, str(tmp_path / "table.yaml"), "--runs", str(tmp_path / "runs"), *options)


DEEP = "[" * 100_000
DAMAGES = {
    "provenance.json": (
        "[]", "3", '{"seconds": [1]}', '{"seconds": {"fit": "x"}}', '{"seconds": {"fit": NaN}}', '{"seconds": {}}',
        '{"seconds": {"fit": 1}, "peak_gpu_memory_mb": "much"}', DEEP, '{"seconds": 1' + "0" * 5000 + "}", "\x00",
    ),
    "identity.json": ('{"hash": 3}', '{"hash": "HASH", "sources": []}', '{"hash": "HASH", "config": []}', "[]", DEEP),
    "job.json": ("[]", "{}", '{"launcher": "slurm"}', '{"id": 3, "launcher": "slurm"}', '{"id": "1", "launcher": []}'),
    "status.json": ('{"step": NaN, "state": "running"}', '{"step": "x"}', '{"step": -1}', '{"step": 1e300}', "[]", DEEP),
    "attempts.jsonl": ('{"begin": 1}', '{"begin": "x", "host": 1}', '{"end": 1}', '{"parts": "x"}', '{"forgiven": []}', DEEP),
    "lock": ("[]", '{"pid": "x", "host": 1}', '{"pid": 1e400}', DEEP),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name, texts in DAMAGES.items() for text in texts],
    ids=lambda value: value[:40],
)
def test_a_damaged_file_of_one_trial_costs_no_other(
    name: str, text: str, campaign: dict[str, Planned], tmp_path: Path
) -> None:
    for cell in campaign.values():
        (cell.trial.path / name).write_text(text.replace("HASH", cell.hash) + "\n")
    done = ablate("plan", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["trials"]) == 2
    if name in ("provenance.json", "job.json", "status.json"):
        done = ablate("cancel", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "base s0: will not be started" in done.stdout
    one = TrialDir(campaign["base"].trial.path)
    assert one.step == 0
    assert one.attempts.all() == []
    assert one.holder() is None
    with one.locked():
        one.attempts.begin(0, 1)
    assert [each.before for each in one.attempts.all()] == [0]


def test_sound_provenance_is_the_cost(campaign: dict[str, Planned], tmp_path: Path) -> None:
    found = {
        each["row"]: each["expected_seconds"]
        for each in json.loads(ablate("plan", tmp_path, "--json").stdout)["trials"]
    }
    assert found == {"base": None, "full": 60.0}


def test_run_leaves_anothers_trial_out_and_says_why(
    campaign: dict[str, Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows are run; here with a stand-in for the training."""
    from rislab.launch import trial_jobs

    def stand_in(cell: Planned) -> local_pool.Job:
        return job(cell.trial.path.parent, cell.trial.path.name, "quick")

    monkeypatch.setattr(trial_jobs, "of_cell", stand_in)
    monkeypatch.setattr(trial_jobs, "prepare_inputs", lambda *_: False)
    monkeypatch.setattr(trial_jobs, "shared_modules", lambda _: [JOBS])
    monkeypatch.setattr(trial_jobs, "FREE_BYTES", 0)
    campaign["full"].trial.metrics_file.unlink()
    write_json(campaign["full"].trial.identity, {"hash": "0" * 64})
    done = ablate("run", tmp_path, "--jobs", "1")
    assert done.returncode not in (0, 130), done.stdout
    assert "full s0" in done.stdout
    assert "hash " + 16 * "0" in done.stdout
    assert campaign["base"].state == "done"
    assert read_json(campaign["full"].trial.identity)["hash"] == "0" * 64
    assert not (campaign["full"].trial.path / "runs.log").exists()


@may_mount
@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_what_cannot_be_written_is_one_line_and_the_others_are_changed(
    verb: str, campaign: dict[str, Planned], tmp_path: Path
) -> None:
    campaign["full"].trial.metrics_file.unlink()
    if verb == "retry":
        for cell in campaign.values():
            cell.trial.cancel()
    try:
        with read_only(campaign["base"].trial.path):
            done = ablate(verb, tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 2
    assert "base s0: left alone: " in done.stdout
    assert "cannot be written: Read-only file system" in done.stdout
    assert (campaign["base"].state, campaign["full"].state) == (
        ("pending", "cancelled") if verb == "cancel" else ("cancelled", "pending")
    )


def test_who_holds_a_trial_is_said_while_it_is_waited_for(tmp_path: Path) -> None:
    one = job(tmp_path, "a", "quick")
    assert one.trial is not None
    pool = LocalPool(1, 1, [JOBS], patience=0.0)
    with one.trial.locked():
        lock = json.loads(one.trial.lock_file.read_text())
        one.trial.lock_file.write_text(json.dumps(lock | {"host": "node3"}))
        pool.run([one], nothing)
        one.trial.lock_file.write_text(json.dumps(lock))
    assert pool.notes["a"].startswith(f"held by process {lock['pid']} on node3 since 20")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("999999999999", "expected at most 10000 seeds"),
        ("1" * 5000, "expected how many"),
        ("4294967296,", "a seed is at most 4294967295"),
        ("10001", "expected at most 10000 seeds"),
        ("0,", None),
        ("4294967295,", None),
        ("-1", "none negative"),
        ("x", "expected how many"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_seeds_have_bounds(seeds: str, said: str | None, tmp_path: Path) -> None:
    tiny_table(tmp_path)
    done = ablate("plan", tmp_path, f"--seeds={seeds}")
    assert done.returncode == (0 if said is None else 2)
    if said is not None:
        assert said in done.stderr
        assert len(done.stderr) < 300


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--jobs", "999999999999"), "--jobs 999999999999: expected at most 1000000"),
        (("--threads", "0"), "--threads 0: expected at least 1"),
        (("--threads", "999999999999"), "expected at most 1000000"),
    ],
)
def test_counts_have_bounds(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    tiny_table(tmp_path)
    done = ablate("run", tmp_path, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_seed_of_an_agent_has_bounds(tmp_path: Path) -> None:
    path = tiny_table(tmp_path)
    for seed in ("99999999999999999999", "²", "-1", "9" * 5000):
        done = rislab_here("ablate", "trial", str(path), "row=base", f"seed={seed}", "--runs", str(tmp_path / "runs"))
        assert done.returncode == 2
        assert "expected a whole number from 0 to 4294967295" in done.stderr


def test_damaged_lines_of_a_history_are_passed_over(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.jsonl")
    attempts.begin(0, 1)
    attempts.end("lost", 7)
    whole = attempts.all()
    with attempts.path.open("a") as file:
        file.write('{"begin": 1}\n{"end": 2, "kind": [], "reached": 1}\n{"parts": 0}\n[]\n')
    assert attempts.all() == whole
    assert attempts.parts == 1
    shutil.rmtree(tmp_path)
