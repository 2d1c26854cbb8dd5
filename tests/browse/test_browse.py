"""The folder of `rislab ablate browse`: what is in it, what it refuses, and that numbers are those of the scores."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rislab.browse.table import contents
from rislab.browse.write import write
from rislab.data import masks
from rislab.errors import ConfigError, DataError
from rislab.metrics.error_classes import CLASSES, error_class
from rislab.report.results import collect
from tests.browse.answered import answer, answer_all, answered_table, truth_of
from tests.worlds import rislab_here


def called(file: Path) -> list[Any]:
    """The values that a script hands to the page."""
    match = re.fullmatch(r"rislabBrowse\.\w+\((.*)\);\n", file.read_text(), re.DOTALL)
    assert match is not None
    return list(json.loads(f"[{match[1]}]"))


@pytest.fixture
def campaign(tmp_path: Path):
    table, planned = answered_table(tmp_path)
    answer_all(planned)
    return table, planned


def shown(table, planned, seeds=(0,)):
    return contents(collect(table, table.profile("toy"), seeds, planned))


def test_the_command_writes_a_folder_that_the_report_links_to(campaign, tmp_path: Path) -> None:
    table, _ = campaign
    options = ("--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    report = tmp_path / "out" / "tiny" / "report.html"
    assert rislab_here("ablate", "report", str(table.path), *options).returncode == 0
    assert "browse/" not in report.read_text()
    done = rislab_here("ablate", "browse", str(table.path), *options)
    assert done.returncode == 0, done.stderr
    folder = report.parent / "browse"
    assert done.stdout.splitlines()[0] == str(folder / "index.html")
    assert 'href="browse/index.html#a=full&amp;b=base"' in report.read_text()
    page = (folder / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (folder / name).exists(), name
    assert "http" not in "".join(each.read_text() for each in folder.glob("*.*"))
    (given,) = called(folder / "data" / "index.js")
    assert all((folder / source).is_file() for source, _, _ in given["pictures"])
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert rislab_here("ablate", "browse", str(table.path), *options).returncode == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_every_answer_is_there_with_its_score_and_error(campaign, tmp_path: Path) -> None:
    table, planned = campaign
    folder = write(shown(table, planned), tmp_path / "folder").parent
    (given,) = called(folder / "data" / "index.js")
    assert [row["name"] for row in given["rows"]] == ["base", "full", "plain"]
    (_, _, truth) = called(folder / "data" / "truth-0.js")
    sizes = [given["sizes"][at] for at in given["units"]["size"]]
    for number, (entry, cell) in enumerate(zip(given["entries"], planned, strict=True)):
        scores = pq.read_table(cell.trial.scores_file).to_pydict()
        assert given["units"]["number"] == scores["sent_id"]
        assert np.array(entry["scores"]) == pytest.approx(10_000 * np.array(scores["iou"]), abs=0.5)
        (_, _, kept) = called(folder / "data" / f"answers-{number}-0.js")
        for n, counts in enumerate(kept):
            mask, target = (masks.decode({"size": sizes[n], "counts": c}).astype(bool) for c in (counts, truth[n]))
            assert (mask & target).sum() == scores["intersection"][n]
            assert CLASSES[entry["errors"][n]] == error_class(mask, target)


def test_seeds_are_entries_and_an_untold_trial_is_named(tmp_path: Path) -> None:
    table, planned = answered_table(tmp_path, (0, 1))
    truth = truth_of(planned[0])
    for cell in planned[:-1]:
        answer(cell, lambda target, number, seed: target, truth)
    found = shown(table, planned, (0, 1))
    assert [(entry.row, entry.seed) for entry in found.entries] == [(c.row.name, c.seed) for c in planned[:-1]]
    assert found.notes == ("plain s1 is not shown: pending",)


def test_what_was_not_kept_or_was_changed_is_said(campaign, tmp_path: Path) -> None:
    table, planned = campaign
    planned[0].trial.answers_file.write_bytes(planned[1].trial.answers_file.read_bytes())
    answer(planned[1], lambda target, number, seed: target, truth_of(planned[1]), limit=100)
    assert shown(table, planned).notes == (
        "base s0 is not shown: answers.parquet is not what the trial wrote",
        "full s0 is not shown: it kept no answers to split 'val' (0.0 MB are more than its trial.answers_mb leaves)",
    )
    planned[2].trial.answers_file.unlink()
    with pytest.raises(DataError, match=r"no answers can be shown\n.*base s0.*\n.*full s0.*\n.*plain s0 is not shown"):
        shown(table, planned)


def test_other_data_than_those_scored_are_refused(tmp_path: Path) -> None:
    """Ids alone say nothing: a target that has changed is found, too."""
    table, planned = answered_table(tmp_path, data__init_args__root=str(tmp_path / "world"))
    answer_all(planned)
    shown(table, planned)
    file = tmp_path / "world" / "refcoco" / "instances.json"
    instances = json.loads(file.read_text())
    for each in instances["annotations"]:
        each["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    file.write_text(json.dumps(instances))
    with pytest.raises(
        DataError, match=r"base s0: sentence .* the data are not those that were scored; --data says where"
    ):
        shown(table, planned)
    _, other = answered_table(tmp_path, data__init_args__root="other", data__init_args__generate__init_args__seed=5)
    for cell in planned:
        cell.config = other[0].config
    with pytest.raises(DataError, match=r"no sentence .* was scored"):
        shown(table, planned)


def test_a_folder_of_others_is_left_alone(campaign, tmp_path: Path) -> None:
    table, planned = campaign
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        write(shown(table, planned), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_pictures_are_referred_to_where_they_lie(campaign, tmp_path: Path) -> None:
    table, planned = campaign
    folder = write(shown(table, planned), tmp_path / "deep" / "folder", "reference").parent
    (given,) = called(folder / "data" / "index.js")
    assert not (folder / "pictures").exists()
    sources = [source for source, _, _ in given["pictures"]]
    assert all(source.startswith("../") and (folder / source).is_file() for source in sources)


def test_rows_of_other_data_are_not_compared(tmp_path: Path) -> None:
    table, planned = answered_table(tmp_path)
    answer_all(planned)
    shuffled = json.loads(json.dumps(planned[2].config))
    shuffled["data"]["init_args"]["shuffle_sentences"] = True
    planned[2].config = shuffled
    found = shown(table, planned)
    assert [entry.row for entry in found.entries] == ["base", "full"]
    assert any("plain s0 is not shown" in note for note in found.notes)


def test_how_much_is_kept_is_no_part_of_a_trials_hash(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    hashes = [
        [cell.hash for cell in answered_table(folder, trial__answers_mb=limit)[1]]
        for folder, limit in ((tmp_path, 0), (tmp_path / "other", 500.0))
    ]
    assert hashes[0] == hashes[1]
