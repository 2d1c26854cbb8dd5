"""gc: shows before it removes, keeps what a table needs, and leaves whole trials or none behind, whatever happens to it."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rislab.ablation import garbage, plan, sharing, table
from rislab.ablation.plan import Planned
from rislab.cli.main import main
from rislab.files import write_json
from tests.worlds import ROOT, tiny_chain, tiny_table

ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}\ngone: {decoder_layers: 2}"


def planned(path: Path, seeds: tuple[int, ...] = (0,)) -> dict[str, Planned]:
    loaded = table.load(path)
    return {cell.name: cell for cell in plan.plan(loaded, loaded.profile("toy"), seeds, path.parent / "runs")}


def finish(cell: Planned, bytes_of_state: int = 1000) -> Planned:
    cell.write()
    cell.trial.checkpoints.mkdir(exist_ok=True)
    (cell.trial.checkpoints / "best.ckpt").write_bytes(b"b" * 10)
    for name in garbage.RESUMES:
        (cell.trial.checkpoints / name).write_bytes(b"s" * bytes_of_state)
    write_json(cell.trial.metrics_file, {"splits": {}})
    cell.trial.update_status(state="done")
    return cell


@pytest.fixture
def campaign(tmp_path: Path) -> dict[str, Planned]:
    """Three rows were run with two seeds, then one was taken out of the table."""
    cells = planned(tiny_table(tmp_path, ROWS), (0, 5))
    for cell in cells.values():
        finish(cell)
    tiny_table(tmp_path, "\n".join(ROWS.splitlines()[:2]))
    return cells


def gc(folder: Path, *arguments: str) -> int:
    return main(["ablate", "gc", str(folder / "table.yaml"), "--runs", str(folder / "runs"), *arguments])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_nothing_is_removed_before_it_was_shown(
    campaign: dict[str, Planned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path / "runs")
    assert gc(tmp_path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "10 to remove" in said
    assert "nothing was removed: --yes does it" in said
    assert tree(tmp_path / "runs") == before
    assert gc(tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted({each["what"] for each in found["garbage"]}) == ["optimiser state", "trial"]
    assert found["bytes"] == sum(each["bytes"] for each in found["garbage"]) > 12_000
    assert not any(each["removed"] for each in found["garbage"])
    trials = [each for each in found["garbage"] if each["what"] == "trial"]
    assert [Path(each["path"]).name.rsplit("--", 1)[0] for each in trials] == ["gone--s0", "gone--s5"]
    assert "no table needs it: row 'gone' is gone" in trials[0]["why"]


def test_what_was_shown_is_removed_and_the_rest_is_as_it_was(
    campaign: dict[str, Planned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path / "runs")
    assert gc(tmp_path, "--yes") == 0
    assert "10 removed, " in capsys.readouterr().out
    after = tree(tmp_path / "runs")
    assert after == {
        name: content
        for name, content in before.items()
        if "gone--" not in name
        and not name.endswith(garbage.RESUMES)
        and name not in {f".shared/{cell.hash}" for cell in campaign.values() if cell.row.name == "gone"}
    }
    assert gc(tmp_path, "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_orphans_can_be_kept(campaign: dict[str, Planned], tmp_path: Path) -> None:
    assert gc(tmp_path, "--yes", "--keep-orphans") == 0
    assert campaign["gone s0"].state == "done"
    assert not (campaign["full s0"].trial.checkpoints / "last.ckpt").exists()
    assert (campaign["gone s0"].trial.checkpoints / "last.ckpt").exists()


def test_trials_on_an_imported_set_stay_while_the_set_has_their_version(
    campaign: dict[str, Planned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No table names an imported set: `--data` does, and gc does not know what it was."""
    file = campaign["gone s0"].directory / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["data"]["init_args"] |= {"root": str(tmp_path / "DATA"), "dataset": "mine", "version": "0123456789ab"}
    file.write_text(yaml.safe_dump(config))

    def orphans() -> dict[str, str]:
        capsys.readouterr()
        assert gc(tmp_path, "--json") == 0
        found = json.loads(capsys.readouterr().out)["garbage"]
        return {Path(one["path"]).name.rsplit("--", 1)[0]: one["why"] for one in found if one["what"] == "trial"}

    assert orphans().keys() == {"gone--s5"}, "the set is out of reach"
    for version, kept in (("0123456789ab", True), ("ba9876543210", False)):
        write_json(tmp_path / "DATA" / "mine" / "import.json", {"version": version})
        found = orphans()
        assert ("gone--s0" not in found) is kept
    assert "imported anew since" in found["gone--s0"]


def test_every_profile_and_every_table_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that only another table in ablations/ needs stays, wherever it lies."""
    cells = planned(tiny_table(tmp_path, ROWS))
    finish(cells["gone s0"], 0)
    (tmp_path / "ablations").mkdir()
    other = tiny_table(tmp_path, "base: {decoder_layers: 3}\nmine: {decoder_layers: 2}")
    other.rename(tmp_path / "ablations" / "other.yaml")
    (tmp_path / "ablations" / "other.yaml").write_text(
        (tmp_path / "ablations" / "other.yaml").read_text().replace("name: tiny\n", "name: other\n")
    )
    tiny_table(tmp_path, "base: {decoder_layers: 0}")
    monkeypatch.chdir(tmp_path)
    assert gc(tmp_path, "--yes") == 0
    assert cells["gone s0"].state == "done"
    (tmp_path / "ablations" / "other.yaml").unlink()
    assert gc(tmp_path, "--yes") == 0
    assert not cells["gone s0"].directory.exists()


def test_a_first_stage_is_needed_by_the_second(tmp_path: Path) -> None:
    path = tiny_chain(tmp_path, "full: {ske: true}\nlevels: {decoder_levels: [2, 3, 4]}")
    cells = planned(path)
    for cell in plan.distinct(list(cells.values())):
        finish(cell, 0)
    tiny_chain(tmp_path, "levels: {decoder_levels: [2, 3, 4]}")
    assert gc(tmp_path, "--yes") == 0
    assert cells["full s0 patch"].state == "done", (
        "it carries a row's name that is gone, and its weights are started from"
    )
    assert not cells["full s0 pixel"].directory.exists()
    assert cells["levels s0 pixel"].state == "done"


def test_what_a_stranger_starts_from_is_kept(campaign: dict[str, Planned], tmp_path: Path) -> None:
    search = tmp_path / "runs" / "tiny-search" / "abc"
    search.mkdir(parents=True)
    write_json(search / "identity.json", {"hash": "1" * 64, "config": {"parent": campaign["gone s0"].hash}})
    assert gc(tmp_path, "--yes") == 0
    assert campaign["gone s0"].state == "done"
    assert not campaign["gone s5"].directory.exists()


def test_what_is_in_use_or_not_ours_is_left_alone(
    campaign: dict[str, Planned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    kept = [
        runs / "matrix" / "gone--s0--00000000" / "metrics.json",
        runs / "fit" / "a" / ".x.1-1.tmp",
        runs / "tiny" / "notes.txt",
    ]
    outside = tmp_path / "outside"
    kept += [outside / "last.ckpt", outside / "gone--s1--00000000" / "status.json"]
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        os.utime(file, (1, 1))
    (runs / "tiny" / "gone--s2--00000000").symlink_to(outside / "gone--s1--00000000")
    held = campaign["gone s0"]
    linked = campaign["full s0"].trial.checkpoints
    (linked / "previous.ckpt").unlink()
    (linked / "previous.ckpt").symlink_to(outside / "last.ckpt")
    with held.trial.locked():
        assert gc(tmp_path, "--yes") == 0
        assert held.state == "done"
    assert [file for file in kept if not file.exists()] == []
    assert (runs / "tiny" / "gone--s2--00000000").is_symlink()
    assert (linked / "previous.ckpt").is_symlink()
    assert not campaign["gone s5"].directory.exists()


def test_an_interrupted_trial_that_a_table_needs_can_still_go_on(tmp_path: Path) -> None:
    cell = planned(tiny_table(tmp_path, ROWS))["full s0"]
    finish(cell)
    cell.trial.metrics_file.unlink()
    for state in ("interrupted", "failed", "running"):
        cell.trial.update_status(state=state)
        before = tree(tmp_path / "runs")
        assert gc(tmp_path, "--yes") == 0
        assert tree(tmp_path / "runs") == before


def test_what_kills_left_goes_when_it_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = planned(tiny_table(tmp_path, ROWS))["full s0"]
    cell.write()
    names = (".status.json.12-34.tmp", ".lock-0123abcd", "checkpoints/.last.ckpt.12-34.tmp", "log/.metrics.csv.1-2.tmp")
    for name in names:
        for suffix, age in (("", 7200), ("9.tmp" if name.endswith("tmp") else "9", 60)):
            file = cell.directory / (
                name.removesuffix(".tmp") + suffix if suffix and name.endswith("tmp") else name + suffix
            )
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"half")
            os.utime(file, (time.time() - age, time.time() - age))
    young = {path for path in tree(tmp_path / "runs") if time.time() - (tmp_path / "runs" / path).stat().st_mtime < 600}
    assert gc(tmp_path, "--yes") == 0
    assert tree(tmp_path / "runs").keys() == young
    assert "4 removed" in capsys.readouterr().out


def test_a_table_that_cannot_be_read_stops_it(
    campaign: dict[str, Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "broken.yaml").write_text("name: x\nrows: [")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path / "runs")
    assert gc(tmp_path, "--yes") == 2
    said = capsys.readouterr().err
    assert "ablations/broken.yaml cannot be read, and may need anything: nothing is removed" in said
    assert tree(tmp_path / "runs") == before
    (tmp_path / "ablations" / "broken.yaml").unlink()
    assert main(["ablate", "gc", "--runs", str(tmp_path / "runs")]) == 0
    assert "nothing to remove" in capsys.readouterr().out, "rislab's own tables count; none of their folders is here"


def test_a_trial_that_was_started_after_it_was_found_is_kept(campaign: dict[str, Planned], tmp_path: Path) -> None:
    runs, loaded = tmp_path / "runs", table.load(tmp_path / "table.yaml")
    found = garbage.find(garbage.needed([loaded], runs), runs, "tiny")
    orphans = {one.path.name.split("--")[1]: one for one in found if one.what == "trial"}
    with campaign["gone s0"].trial.locked():
        assert garbage.remove(orphans["s0"], runs) == garbage.CHANGED
    campaign["gone s5"].trial.update_status(state="running")
    assert garbage.remove(orphans["s5"], runs) == garbage.CHANGED
    last = next(one for one in found if one.path.name == "last.ckpt")
    assert last.trial is not None
    (last.trial / "metrics.json").unlink()
    assert garbage.remove(last, runs) == "the trial is no longer done"
    assert last.path.exists()
    assert campaign["gone s0"].state == campaign["gone s5"].state == "done"


def test_a_place_that_cannot_be_written_is_named(
    campaign: dict[str, Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    assert gc(tmp_path, "--yes") == 1
    assert "cannot be removed: " in (said := capsys.readouterr().out)
    assert "Read-only file system" in said
    assert campaign["gone s0"].state == "done"


def is_whole(trial: Path) -> bool:
    return {"config.yaml", "identity.json", "metrics.json", "status.json"} <= {path.name for path in trial.iterdir()}


def test_kill_9_in_the_middle_leaves_whole_trials_or_none(tmp_path: Path) -> None:
    rows = "\n".join([*ROWS.splitlines()[:2], *(f"old{n}: {{dropout: {n / 100}}}" for n in range(1, 25))])
    cells = planned(tiny_table(tmp_path, rows))
    for cell in cells.values():
        finish(cell, 10)
        (cell.directory / "predictions").mkdir()
        for number in range(40):
            (cell.directory / "predictions" / f"{number}.jpg").touch()
    tiny_table(tmp_path, "\n".join(ROWS.splitlines()[:2]))
    command = [sys.executable, "-m", "rislab.cli.main", "ablate", "gc", str(tmp_path / "table.yaml")]
    command += ["--runs", str(tmp_path / "runs"), "--yes"]
    kills = 0
    for wanted in (20, 14, 8, 3):  # killed when so many trials are left
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "runs" / "tiny").iterdir())) > wanted + 2:
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert all(is_whole(path) for path in (tmp_path / "runs" / "tiny").iterdir())
    assert kills
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
    assert sorted(path.name for path in (tmp_path / "runs" / "tiny").iterdir()) == sorted(
        cells[name].directory.name for name in ("base s0", "full s0")
    )
    assert list((tmp_path / "runs" / garbage.TRASH).iterdir()) == []


def _collect(
    runs: str, path: str, begin: "multiprocessing.synchronize.Barrier", failed: "multiprocessing.Queue"
) -> None:
    try:
        found = garbage.find(garbage.needed([table.load(Path(path))], Path(runs)), Path(runs), "tiny")
        begin.wait()
        for one in found:
            garbage.remove(one, Path(runs))
        failed.put("")
    except BaseException as error:
        failed.put(repr(error))


def test_two_at_once_do_not_trip_over_each_other(campaign: dict[str, Planned], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, failed = context.Barrier(4), context.Queue()
    arguments = (str(tmp_path / "runs"), str(tmp_path / "table.yaml"), begin, failed)
    processes = [context.Process(target=_collect, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    assert [failed.get(timeout=60) for _ in processes] == [""] * 4
    for process in processes:
        process.join()
    found = {path.name for path in (tmp_path / "runs" / "tiny").iterdir()}
    assert found == {cell.directory.name for cell in campaign.values() if cell.row.name != "gone"}
    assert list((tmp_path / "runs" / garbage.TRASH).iterdir()) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.sets(st.integers(0, 4), min_size=1),
    after=st.sets(st.integers(0, 4), min_size=1),
    states=st.lists(st.sampled_from(["done", "interrupted", "failed", "pending"]), min_size=5, max_size=5),
)
def test_no_trial_that_is_needed_ever_goes(
    before: set[int], after: set[int], states: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")

    def rows(depths: set[int]) -> str:
        return "\n".join(f"{'base' if n == min(depths) else f'r{n}'}: {{decoder_layers: {n}}}" for n in sorted(depths))

    cells = {cell.hash: cell for cell in planned(tiny_table(folder, rows(before))).values()}
    for cell, state in zip(cells.values(), states, strict=False):
        cell.write()
        if state == "done":
            finish(cell)
        else:
            cell.trial.update_status(state=state)
    wanted = {cell.hash: cell for cell in planned(tiny_table(folder, rows(after))).values()}
    assert gc(folder, "--yes") == 0
    for digest, cell in cells.items():
        assert cell.directory.exists() == (digest in wanted)
        if digest in wanted:
            assert wanted[digest].directory == cell.directory
            assert sharing.claimed(folder / "runs", digest) == cell.directory
