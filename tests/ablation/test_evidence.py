"""A result is believed only where its directory is the trial's and its files are what the trial wrote."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rislab.ablation import integrity
from rislab.ablation.plan import Planned
from rislab.ablation.trial import TrialDir
from rislab.errors import ConfigError
from rislab.files import read_json, write_json
from rislab.report import status
from rislab.report.csv import csv_text
from rislab.report.model import view
from rislab.report.results import collect
from rislab.report.verdicts import judge
from tests.report.trials import finish, planned_table
from tests.worlds import rislab_here, tiny_table

ROWS = "base: {decoder_layers: 0}\nbetter: {decoder_layers: 1}\nother: {decoder_layers: 2}"
CLAIM = "claims:\n- {name: up, text: up, holds: 'miou_expr[better] > miou_expr[base]', source: s}"


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Planned]:
    path = tiny_table(tmp_path, ROWS)
    path.write_text(path.read_text().replace("claims: []", CLAIM))
    _, cells = planned_table(path, tmp_path / "runs", [0])
    for cell, gain in zip(cells, (0.0, 0.12, 0.05), strict=True):
        finish(cell, gain)
    return {cell.row.name: cell for cell in cells}


def command(action: str, folder: Path, *more: str) -> str:
    """What a command prints about the table; it must end well."""
    done = rislab_here("ablate", action, str(folder / "table.yaml"), "--runs", str(folder / "runs"), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit_score(value: str) -> Callable[[Planned], None]:
    def edit(cell: Planned) -> None:
        metrics = cell.trial.metrics_file
        score = json.dumps(read_json(metrics)["splits"]["val"]["miou_expr"])
        metrics.write_text(metrics.read_text().replace(score, value))

    return edit


def cut(name: str) -> Callable[[Planned], None]:
    def edit(cell: Planned) -> None:
        data = (cell.directory / name).read_bytes()
        (cell.directory / name).write_bytes(data[: len(data) // 2])

    return edit


def foreign(name: str) -> Callable[[Planned], None]:
    def edit(cell: Planned) -> None:
        (other,) = cell.directory.parent.glob("other--*")
        shutil.copyfile(other / name, cell.directory / name)

    return edit


def gone(name: str) -> Callable[[Planned], None]:
    return lambda cell: (cell.directory / name).unlink()


def edit_identity(cell: Planned) -> None:
    recorded = read_json(cell.trial.identity)
    recorded["config"]["trainer"]["max_epochs"] = 99
    write_json(cell.trial.identity, recorded)


def edit_config(cell: Planned) -> None:
    cell.trial.config.write_text(cell.trial.config.read_text().replace("max_epochs: 2", "max_epochs: 3"))


CASES: dict[str, tuple[Callable[[Planned], None], str, str]] = {
    "an edited score": (edit_score("99.0"), "damaged", "metrics.json is not what the trial wrote"),
    "a score of 1e308": (edit_score("1e308"), "damaged", "splits.val.miou_expr is 1e+308, expected a number from 0 to"),
    "a score of inf": (edit_score("Infinity"), "damaged", "splits.val.miou_expr is Infinity"),
    "a score of nan": (edit_score("NaN"), "damaged", "splits.val.miou_expr is NaN"),
    "a score below 0": (edit_score("-1.0"), "damaged", "splits.val.miou_expr is -1.0"),
    "a score that is text": (edit_score('"55.0"'), "damaged", "expected a number from 0 to 100"),
    "half a result": (cut("metrics.json"), "damaged", "metrics.json is no JSON"),
    "another's result": (foreign("metrics.json"), "damaged", "metrics.json is not what the trial wrote"),
    "half the scores": (cut("scores.parquet"), "damaged", "scores.parquet is not what the trial wrote"),
    "another's scores": (foreign("scores.parquet"), "damaged", "scores.parquet is not what the trial wrote"),
    "no scores": (gone("scores.parquet"), "damaged", "scores.parquet is gone"),
    "another's config": (foreign("config.yaml"), "damaged", "config.yaml is the config of another trial"),
    "an edited config": (edit_config, "damaged", "config.yaml is the config of another trial"),
    "an edited identity": (edit_identity, "damaged", "identity.json is not what the trial wrote"),
    "another's identity": (foreign("identity.json"), "foreign", "belongs to a trial with hash"),
    "no identity": (gone("identity.json"), "foreign", "identity.json is gone"),
    "another's manifest": (foreign("manifest.json"), "foreign", "manifest.json is that of"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_believed_has_no_number(case: str, made: dict[str, Planned], tmp_path: Path) -> None:
    spoil, state, reason = CASES[case]
    spoil(made["better"])
    line = status.trial_status(made["better"])
    assert (line.state, line.value) == (state, None)
    assert reason in line.note
    loaded, cells = planned_table(tmp_path / "table.yaml", tmp_path / "runs", [0])
    results = collect(loaded, loaded.profile("toy"), [0], cells)
    assert [(cell.planned.row.name, cell.state) for cell in results.cells] == [
        ("base", "done"),
        ("better", state),
        ("other", "done"),
    ]
    assert [judged.verdict for judged in judge(results)] == ["not run"]
    assert ",better,0," not in csv_text(view(results))
    with pytest.raises(ConfigError, match="move it away"):
        made["better"].write()


@pytest.mark.parametrize("case", ["an edited score", "another's identity"])
def test_every_command_says_it_and_none_touches_it(case: str, made: dict[str, Planned], tmp_path: Path) -> None:
    spoil, state, _ = CASES[case]
    spoil(made["better"])
    files = {path: path.read_bytes() for path in made["better"].directory.rglob("*") if path.is_file()}
    assert f"better s0: {state}: " in command("status", tmp_path)
    plan = command("plan", tmp_path)
    assert f"better s0: {state}: " in plan
    assert "3 trials, 0 to run" in plan
    command("report", tmp_path, "--out", str(tmp_path / "reports"))
    forms = {path.suffix: path.read_text() for path in (tmp_path / "reports" / "tiny").iterdir()}
    assert f"| *{state}* |" in forms[".md"]
    assert f"better s0: {state}: " in forms[".md"]
    assert ",base,0," in forms[".csv"]
    for form in (".md", ".tex", ".html"):
        assert "99.00" not in forms[form]
    run = rislab_here("ablate", "run", str(tmp_path / "table.yaml"), "--runs", str(tmp_path / "runs"))
    assert run.returncode == 1, "what is named is not there"
    assert "not touched; move it away, and run again to train it anew" in run.stdout
    assert files == {path: path.read_bytes() for path in made["better"].directory.rglob("*") if path.is_file()}


def test_trials_that_changed_places_turn_no_claim(made: dict[str, Planned], tmp_path: Path) -> None:
    base, better = made["base"], made["better"]
    base.directory.rename(tmp_path / "aside")
    better.directory.rename(base.directory)
    (tmp_path / "aside").rename(better.directory)
    loaded, cells = planned_table(tmp_path / "table.yaml", tmp_path / "runs", [0])
    assert [cell.state for cell in cells] == ["foreign", "foreign", "done"]
    results = collect(loaded, loaded.profile("toy"), [0], cells)
    assert [judged.verdict for judged in judge(results)] == ["not run"]
    with pytest.raises(ConfigError, match=r"is foreign: belongs to a trial with hash .* move it away"):
        cells[0].write()


def test_a_dead_trial_in_anothers_directory_is_not_gone_on_with(made: dict[str, Planned]) -> None:
    cell = made["base"]
    for name in ("metrics.json", "identity.json"):
        (cell.directory / name).unlink()
    assert cell.state == "lost", "nothing there that says whose it is"
    cell.trial.checkpoints.mkdir()
    (cell.trial.checkpoints / "last.ckpt").touch()
    assert cell.state == "foreign"


def test_scores_are_compared_at_every_trial_also_where_no_claim_looks(made: dict[str, Planned], tmp_path: Path) -> None:
    """A forged manifest, and a result of an earlier release: the evidence itself speaks."""
    for name, cell in made.items():
        result = read_json(cell.trial.metrics_file)
        result["splits"]["val"]["pr@50"] = 77.0
        if name == "other":
            integrity.seal(cell.directory, result)
        elif name == "better":
            write_json(cell.trial.metrics_file, result)
            (cell.directory / "manifest.json").unlink()
    loaded, cells = planned_table(tmp_path / "table.yaml", tmp_path / "runs", [0])
    found = {cell.planned.row.name: cell for cell in collect(loaded, loaded.profile("toy"), [0], cells).cells}
    assert {name: cell.state for name, cell in found.items()} == {
        "base": "done",
        "better": "damaged",
        "other": "damaged",
    }
    assert "pr@50 of split 'val' is 77.00 in metrics.json" in found["other"].error
    assert found["better"].value("val", "miou_expr") is None


def test_results_of_an_earlier_release_count_and_are_said_to_have_no_digests(
    made: dict[str, Planned], tmp_path: Path
) -> None:
    (made["base"].directory / "manifest.json").unlink()
    said = command("status", tmp_path)
    assert "3 done" in said
    assert "base s0: finished without digests: changed files would not be noticed" in said
    command("report", tmp_path, "--out", str(tmp_path / "reports"))
    assert "- no digests: base s0: finished by an earlier release" in (tmp_path / "reports/tiny/report.md").read_text()


def test_data_that_moved_and_files_that_were_copied_change_nothing(made: dict[str, Planned], tmp_path: Path) -> None:
    cell = made["base"]
    config = yaml.safe_load(cell.trial.config.read_text())
    config["data"]["init_args"]["root"] = str(tmp_path / "another disk")
    cell.trial.config.write_text(yaml.safe_dump(config))
    for path in cell.directory.rglob("*"):
        os.utime(path)  # a copy without times: everything looks newer than the manifest
    assert cell.trial.inspect()[0] == "done"
    assert cell.trial.inspect(thorough=True)[0] == "done"


def test_an_edit_that_keeps_size_and_time_is_found_by_the_report(made: dict[str, Planned]) -> None:
    path = made["base"].trial.scores_file
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert made["base"].trial.inspect()[0] == "done", "status looks at sizes and times"
    assert made["base"].trial.inspect(thorough=True)[0] == "damaged"


def test_a_manifest_names_nothing_outside_and_runs_by_hand_have_one_too(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_bytes(b"scores")
    integrity.seal(tmp_path, {"splits": {}})
    assert TrialDir(tmp_path).inspect(thorough=True)[1] == integrity.Finding(
        is_done=True, has_digests=True, result={"splits": {}}
    )
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["hash"] is None
    manifest["files"]["../secret"] = manifest["files"]["metrics.json"]
    write_json(tmp_path / "manifest.json", manifest)
    assert TrialDir(tmp_path).inspect(thorough=True)[1].changed == ("../secret",)


def as_other_user(act: Callable[[], str]) -> str:
    """What `act` says in a process of a user who may not read everything; every module that it needs has been loaded."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            said = act()
        except BaseException as error:
            said = repr(error)
        with os.fdopen(write, "w") as file:
            file.write(said)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        found = file.read()
    os.waitpid(child, 0)
    return found


@pytest.mark.parametrize("closed", ["a directory", "a result", "a status"])
def test_a_colleagues_closed_trial_is_one_line_and_the_others_are_shown(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o777)
        _, cells = planned_table(tiny_table(folder, ROWS), folder / "runs", [0])
        for cell in cells:
            finish(cell, 0.1)
        mine = cells[1].trial
        if closed == "a status":
            mine.metrics_file.unlink()
        path = {"a directory": mine.path, "a result": mine.metrics_file, "a status": mine.status_file}[closed]

        def look() -> str:
            said = [command(each, folder) for each in ("status", "plan")]
            said.append(command("report", folder, "--out", str(folder / "reports")))
            return "".join([*said, (folder / "reports/tiny/report.md").read_text()])

        look()  # loads what is needed
        shutil.rmtree(folder / "reports")
        path.chmod(0)
        try:
            said = as_other_user(look)
        finally:
            path.chmod(0o755)
        assert said.count("better s0: unreadable: ") == 3, said
        assert "Permission denied" in said
        assert "2 of 3 trials done" in said
