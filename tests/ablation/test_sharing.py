"""The same config in two tables is one trial: one directory, trained once, in any order."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import yaml

from rislab.ablation import plan, sharing, table
from rislab.ablation.plan import Planned
from rislab.cli.main import main
from rislab.errors import ConfigError
from rislab.files import read_json, write_json
from tests.worlds import tiny_chain, tiny_table

ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"


def table_named(folder: Path, name: str, rows: str = ROWS) -> Path:
    """A table of that name in a folder of its own."""
    (folder / name).mkdir(exist_ok=True)
    path = tiny_table(folder / name, rows)
    path.write_text(path.read_text().replace("name: tiny\n", f"name: {name}\n"))
    return path


def planned(path: Path, runs: Path, seeds: tuple[int, ...] = (0,)) -> dict[str, Planned]:
    loaded = table.load(path)
    return {cell.name: cell for cell in plan.plan(loaded, loaded.profile("toy"), seeds, runs)}


def test_a_trial_of_another_table_is_used_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    first = planned(table_named(tmp_path, "one"), runs)["base s0"]
    first.write()
    path = table_named(tmp_path, "two", "base: {decoder_layers: 0}\nother: {decoder_layers: 2}")
    second = planned(path, runs)
    assert second["base s0"].trial.path == first.trial.path
    assert second["base s0"].config["trainer"]["default_root_dir"] == str(first.trial.path)
    assert (second["base s0"].shared_with, second["other s0"].shared_with) == ("one", "")
    assert second["other s0"].trial.path.parent == runs / "two"
    write_json(first.trial.metrics_file, {"splits": {"val": {"miou_expr": 50.0}}})
    options = [str(path), "--runs", str(runs)]
    assert main(["ablate", "plan", *options]) == 0
    said = capsys.readouterr().out
    assert "done, shared with one" in said
    assert "2 trials, 1 to run" in said
    assert main(["ablate", "status", *options, "--json"]) == 0
    found = {each["trial"]: each for each in json.loads(capsys.readouterr().out)}
    assert (found["base s0"]["state"], found["base s0"]["shared_with"], found["base s0"]["value"]) == (
        "done",
        "one",
        50.0,
    )
    assert main(["ablate", "report", *options, "--out", str(tmp_path / "reports")]) == 0
    assert f"`one/{first.trial.path.name}`" in (tmp_path / "reports" / "two" / "report.md").read_text()


def test_who_begins_first_has_it_even_when_both_had_planned_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    mine, yours = (planned(table_named(tmp_path, name), runs)["base s0"] for name in ("one", "two"))
    assert mine.trial.path != yours.trial.path
    yours.write()
    mine.write()
    assert mine.trial.path == yours.trial.path
    assert mine.shared_with == "two"
    assert read_json(mine.trial.identity)["hash"] == mine.hash
    assert yaml.safe_load(mine.trial.config.read_text())["trainer"]["default_root_dir"] == str(yours.trial.path)
    assert not (runs / "one").exists()


def test_a_stage_starts_from_where_the_stage_before_it_went(tmp_path: Path) -> None:
    runs, cells = tmp_path / "runs", []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = tiny_chain(tmp_path / name, "full: {ske: true}")
        path.write_text(path.read_text().replace("name: tiny\n", f"name: {name}\n"))
        cells.append(planned(path, runs))
    cells[0]["full s0 patch"].write()
    for stage in ("patch", "pixel"):
        cells[1][f"full s0 {stage}"].write()
    pixel = cells[1]["full s0 pixel"]
    assert pixel.trial.path.parent == runs / "two"
    started_from = yaml.safe_load(pixel.trial.config.read_text())["trial"]["start_from"]
    assert started_from == str(cells[0]["full s0 patch"].trial.checkpoints / "best.ckpt")


def test_a_renamed_row_keeps_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    before = planned(table_named(tmp_path, "one"), runs)["full s0"]
    before.write()
    path = table_named(tmp_path, "one", ROWS.replace("full", "everything"))
    after = planned(path, runs)["everything s0"]
    assert (after.trial.path, after.shared_with) == (before.trial.path, "")
    assert main(["ablate", "plan", str(path), "--runs", str(runs)]) == 0
    assert "no longer in the table" not in capsys.readouterr().out


def test_directories_of_earlier_releases_are_found_without_a_claim(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cells = [planned(table_named(tmp_path, name), runs)["base s0"] for name in ("a", "b")]
    for cell in cells:
        cell.trial.path.mkdir(parents=True)
        write_json(cell.trial.identity, {"hash": cell.hash, "config": {}, "sources": {}})
    other = table_named(tmp_path, "c")
    assert planned(other, runs)["base s0"].trial.path == cells[0].trial.path
    write_json(cells[1].trial.metrics_file, {})
    assert planned(other, runs)["base s0"].trial.path == cells[1].trial.path, "a finished one goes before others"
    assert planned(tmp_path / "a" / "table.yaml", runs)["base s0"].trial.path == cells[0].trial.path, "its own first"


def test_eight_equal_digits_are_not_enough(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cell = planned(table_named(tmp_path, "one"), runs)["base s0"]
    cell.trial.path.mkdir(parents=True)
    write_json(cell.trial.identity, {"hash": cell.hash[:8] + "0" * 56})
    other = planned(table_named(tmp_path, "two"), runs)["base s0"]
    assert other.trial.path.parent == runs / "two"
    place = runs / sharing.CLAIMS / cell.hash
    place.parent.mkdir()
    place.write_text(f"one/{cell.trial.path.name}\n")
    with pytest.raises(ConfigError, match=f"does not name the directory of trial {cell.hash[:8]}; remove the file"):
        other.write()


@pytest.mark.parametrize("text", ["", "one\n", "../x--00000000\n", "one/a/b\n", "one/base--s0--11111111\n"])
def test_a_damaged_claim_names_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / sharing.CLAIMS).mkdir()
    digest = "0" * 64
    (tmp_path / sharing.CLAIMS / digest).write_text(text)
    assert sharing.claimed(tmp_path, digest) is None
    own = tmp_path / "one" / "base--s0--00000000"
    assert sharing.SharedDirectories(tmp_path).find(digest, own) == own


def _claim_all(
    runs: str, table: str, begin: "multiprocessing.synchronize.Barrier", said: "multiprocessing.Queue"
) -> None:
    begin.wait()
    for number in range(200):
        digest = f"{number:08x}" + "0" * 56
        own = Path(runs) / table / f"row--s0--{digest[:8]}"
        said.put((number, str(sharing.claim(Path(runs), digest, own))))
    said.put(None)


def test_eight_processes_agree_on_every_directory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, said = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_claim_all, args=(str(tmp_path), f"t{n}", begin, said)) for n in range(8)]
    for process in processes:
        process.start()
    found: dict[int, set[str]] = {}
    ended = 0
    while ended < 8:
        answer = said.get(timeout=60)
        if answer is None:
            ended += 1
        else:
            found.setdefault(answer[0], set()).add(answer[1])
    for process in processes:
        process.join()
    assert {number: len(places) for number, places in found.items()} == dict.fromkeys(range(200), 1)
    assert not list((tmp_path / sharing.CLAIMS).glob(".*")), "nothing half-written is left"


def test_shipped_tables_share_what_they_have_in_common(tmp_path: Path) -> None:
    from tests.worlds import ROOT

    runs = tmp_path / "runs"
    for cell in plan.distinct(list(planned(ROOT / "ablations" / "risclip.yaml", runs).values())):
        cell.write()
    choices = planned(ROOT / "ablations" / "risclip-choices.yaml", runs)
    assert choices["full s0 patch"].shared_with == choices["full s0 pixel"].shared_with == "risclip-chain"
    assert choices["joint s0 joint"].shared_with == ""
    shutil.rmtree(runs)
