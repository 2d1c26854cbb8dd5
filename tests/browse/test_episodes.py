"""Few-shot episodes in the browser of results: a unit is an episode of a fold; masks are those that were scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from rislab.ablation import plan, table
from rislab.ablation.integrity import seal
from rislab.ablation.plan import Planned
from rislab.browse import trials
from rislab.browse.table import contents
from rislab.data import masks
from rislab.data.toy.folds import ToyFolds
from rislab.data.truth import Episodes
from rislab.errors import DataError
from rislab.evaluation.episode_arithmetic import EpisodeArithmetic
from rislab.evaluation.kept_answers import KeptAnswers, compact_masks
from rislab.metrics.episodes import COLUMNS, episode_counts
from rislab.metrics.error_classes import CLASSES
from rislab.report.results import collect
from tests.worlds import ROOT, tiny_table

SIDE, COUNT = 40, 9


@pytest.fixture
def campaign(tmp_path: Path) -> tuple[table.Table, list[Planned]]:
    """Two rows in two folds, one of them a control whose test has wrong names."""
    path = tiny_table(tmp_path, "plain: {features: 8}\ncontrol: {features: 8}")
    config = yaml.safe_load((ROOT / "experiments" / "lseg" / "toy_fold.yaml").read_text())
    config["data"]["init_args"] |= {"root": str(tmp_path / "folds"), "size": SIDE, "episodes": COUNT}
    config["data"]["init_args"]["generate"]["init_args"] = {"scenes": 90, "size": 48, "seed": 0}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    ToyFolds(scenes=90, size=48).write(tmp_path / "folds")
    content = yaml.safe_load(path.read_text())
    content["profiles"]["toy"]["folds"] = {"one": {"data.fold": 1}, "two": {"data.fold": 2}}
    content["rows"][1]["switches"]["data.permuted_names"] = True
    content |= {"metrics": ["miou_fold", "fb_iou"], "baseline": "plain"}
    content["paper"]["method"] = "lseg"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    loaded = table.load(path)
    planned = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
    assert [(cell.row.name, cell.fold) for cell in planned] == [
        (row, fold) for row in ("plain", "control") for fold in ("one", "two")
    ]
    for cell in planned:
        answer(cell, 2 if cell.row.name == "plain" else 5)
    return loaded, planned


def answer(cell: Planned, by: int) -> None:
    """Make `cell` done: every episode answered by its mask moved to the right."""
    cell.write()
    truth = trials.truth_of(cell.config).read()
    assert isinstance(truth, Episodes)
    kept, rows = KeptAnswers(20_000_000), []
    for number, pair in enumerate(truth.pairs):
        mask = truth.mask(pair)
        said = np.roll(mask == 1, by, axis=1)
        rows.append((number, truth.image_ids[pair.picture], pair.class_id, *episode_counts(said, mask)))
        kept.offer("val", compact_masks([number], [said]))
    kept.gather([dict(kept.parts)])
    kept.write(cell.trial.path, "run lengths")
    counts = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))
    pq.write_table(pa.table({"split": ["val"] * len(rows), **counts}), cell.trial.scores_file)
    classes = truth.files.classes(truth.fold, "val")
    arithmetic = EpisodeArithmetic(classes)
    facts: dict[str, Any] = {"benchmark": "toy", "protocol": f"fold {truth.fold}", "episode_classes": list(classes)}
    splits = {"val": arithmetic.scores(counts) | arithmetic.summary(counts)}
    seal(cell.directory, {**facts, "splits": splits, "parameters": {"total": 1, "trainable": 0}, "step": 0})
    cell.trial.update_status(state="done")


def test_units_are_the_episodes_of_all_folds(campaign: tuple[table.Table, list[Planned]]) -> None:
    loaded, planned = campaign
    found = contents(collect(loaded, loaded.profile("toy"), (0,), planned))
    assert (found.kind, found.notes, len(found.units)) == ("classes", (), 2 * COUNT)
    assert [(entry.row, entry.fold) for entry in found.entries] == [(cell.row.name, cell.fold) for cell in planned]
    for entry, cell in zip(found.entries, planned, strict=True):
        first = 0 if cell.fold == "one" else COUNT
        mine = [n for n, mask in enumerate(entry.masks) if mask is not None]
        assert mine == list(range(first, first + COUNT)), "a fold's trial answered its own episodes alone"
        truth = trials.truth_of(cell.config).read()
        for number, n in enumerate(mine):
            unit, pair = found.units[n], truth.pairs[number]
            assert unit.text == truth.files.names[pair.class_id], "by its own name, in the control too"
            assert found.pictures[unit.picture].file == truth.file(pair)
            target, said = (masks.decode({"size": [SIDE, SIDE], "counts": c}) for c in (unit.target, entry.masks[n]))
            assert np.array_equal(target, truth.mask(pair) == 1)
            both, union = (target & said).sum(), (target | said).sum()
            assert entry.scores[n] == pytest.approx(100 * both / max(union, 1))
            assert 0 <= entry.errors[n] < len(CLASSES)
    means = [np.nanmean(entry.scores) for entry in found.entries]
    assert min(means[:2]) > max(means[2:])


def test_other_data_than_were_scored_are_refused(campaign: tuple[table.Table, list[Planned]], tmp_path: Path) -> None:
    loaded, planned = campaign
    truth = trials.truth_of(planned[0].config).read()
    label = truth.files.root / truth.files.label_path(truth.pairs[0].picture)
    before = label.read_bytes()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(label)
    with pytest.raises(
        DataError, match=r"plain s0 one: episode 0: its kept mask and the target of the data give .* pixels"
    ):
        contents(collect(loaded, loaded.profile("toy"), (0,), planned))
    label.write_bytes(before)
    names = truth.files.root.parent / "splits" / "pascal" / "val" / "fold1.txt"
    names.write_text("".join(sorted(names.read_text().splitlines(True), reverse=True)))
    with pytest.raises(DataError, match=r"plain s0 one: episode 0: the data show another picture or class"):
        contents(collect(loaded, loaded.profile("toy"), (0,), planned))
