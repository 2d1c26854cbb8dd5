"""Stages: a row is a chain of trials, each of which starts from the one before; rows share what they have in common."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation import plan, table
from rislab.ablation.plan import Planned, distinct
from rislab.errors import ConfigError
from tests.worlds import ROOT, tiny_chain


def planned(folder: Path, rows: str, runs: Path | None = None, **changes: Any) -> list[Planned]:
    loaded = table.load(tiny_chain(folder, rows, **changes))
    return plan.plan(loaded, loaded.profile("toy"), [0], runs or folder / "runs")


ROWS = """
clip: {adapters: false, cfe: false, ske: false}
full: {ske: true}
levels: {decoder_levels: [2, 3, 4]}
no-decoder: {stage: patch}
joint: {stage: joint}
"""


def test_a_shared_prefix_is_one_trial(tmp_path: Path) -> None:
    cells = planned(tmp_path, ROWS)
    assert [cell.name for cell in cells] == [
        "clip s0 patch",
        "clip s0 pixel",
        "full s0 patch",
        "full s0 pixel",
        "levels s0 patch",
        "levels s0 pixel",
        "no-decoder s0 patch",
        "joint s0 joint",
    ]
    by_name = {cell.name: cell for cell in cells}
    first = by_name["full s0 patch"]
    assert first.hash == by_name["levels s0 patch"].hash == by_name["no-decoder s0 patch"].hash
    assert len(distinct(cells)) == 6
    for name in ("full s0 pixel", "levels s0 pixel"):
        assert by_name[name].config["trial"]["start_from"] == str(first.trial.checkpoints / "best.ckpt")
        assert by_name[name].parent is first
    assert by_name["full s0 pixel"].hash != by_name["levels s0 pixel"].hash
    assert [cell.name for cell in cells if cell.is_last] == [
        "clip s0 pixel",
        "full s0 pixel",
        "levels s0 pixel",
        "no-decoder s0 patch",
        "joint s0 joint",
    ]
    assert "start_from" not in by_name["joint s0 joint"].config["trial"]


def test_what_a_stage_starts_from_counts_and_where_it_lies_does_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = planned(tmp_path / "a", "full: {ske: true}"), planned(tmp_path / "b", "full: {ske: true}")
    assert [cell.hash for cell in here] == [cell.hash for cell in there]
    (tmp_path / "c").mkdir()
    other = planned(tmp_path / "c", "full: {ske: true}", model__init_args__patch_target="any")
    assert other[0].hash != here[0].hash
    assert other[1].hash != here[1].hash, "the second stage does not read this option, but starts from other weights"
    assert here[1].identity["parent"] == here[0].hash


def test_options_that_a_stage_does_not_read_do_not_count_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = planned(tmp_path / "a", "full: {ske: true}")
    other = planned(tmp_path / "b", "full: {ske: true}", model__init_args__decoder_width=[4, 4, 4])
    assert one[0].hash == other[0].hash
    assert one[1].hash != other[1].hash


def test_stages_have_files_of_their_own(tmp_path: Path) -> None:
    cells = planned(tmp_path, "full: {ske: true}")
    assert [cell.config["trainer"]["max_epochs"] for cell in cells] == [2, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patch:miou_expr", "pach:miou_expr", r"no stage 'pach' \(did you mean 'patch'\?\); stages are patch, pixel"),
        ("patch:miou_expr", "patch:miou_exp", r"no metric 'miou_exp' \(did you mean 'miou_expr'\?\)"),
        (
            "name: pixel",
            "name: pixels",
            r"profile 'toy': stage 'pixels': RISCLIPTask has no stage 'pixels' \(did you mean 'pixel'\?\)",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tiny_chain(tmp_path, "full: {ske: true}")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        table.load(path)


def test_the_shipped_chain_trains_fewer_stages_than_rows_times_stages() -> None:
    loaded = table.load(ROOT / "ablations" / "risclip.yaml")
    cells = plan.plan(loaded, loaded.profile("toy"), [0], Path("runs"))
    assert len(distinct(cells)) < len(cells) < 2 * len(loaded.rows)
    assert yaml.safe_load((ROOT / "experiments" / "risclip" / "toy_pixel.yaml").read_text()).keys() == {"trainer"}
