"""Label maps in the browser of results: a unit is a class in a picture."""

from pathlib import Path

import numpy as np
import pytest

from rislab.browse.table import contents
from rislab.data import masks
from rislab.data.benchmark_trees import read_labels
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.errors import DataError
from rislab.evaluation import kept_answers
from rislab.metrics.error_classes import CLASSES
from rislab.report.results import collect
from tests.browse.answered import label_all, labelled_table


@pytest.fixture
def campaign(tmp_path: Path):
    table, planned = labelled_table(tmp_path)
    for cell, by in zip(planned, (1, 9), strict=True):
        label_all(cell, by)
    return table, planned


def shown(table, planned):
    return contents(collect(table, table.profile("toy"), (0,), planned))


def test_units_are_classes_in_pictures(campaign, tmp_path: Path) -> None:
    found = shown(*campaign)
    assert found.kind == "classes"
    assert not found.notes
    assert [entry.row for entry in found.entries] == ["low", "high"]
    folder = tmp_path / "vocabulary" / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    for n, unit in enumerate(found.units):
        picture = found.pictures[unit.picture]
        label = read_labels(folder / f"{picture.file.stem}.png")
        target = masks.decode({"size": unit.size, "counts": unit.target})
        assert unit.share == pytest.approx(target.mean())
        (value,) = set(np.unique(label[target == 1]).tolist()) or {None}
        assert (value is None) == unit.no_target
        for entry in found.entries:
            said = masks.decode({"size": unit.size, "counts": entry.masks[n]})
            both, union = (said & target).sum(), (said | target).sum()
            assert np.isnan(entry.scores[n]) == unit.no_target
            assert unit.no_target or entry.scores[n] == pytest.approx(100 * both / union)
            assert (CLASSES[entry.errors[n]] == "nothing") == (not unit.no_target and not said.any())
    one, other = (np.nanmean(entry.scores) for entry in found.entries)
    assert one > other


def test_large_maps_are_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "LONGEST", 40)
    table, planned = labelled_table(tmp_path)
    for cell in planned:
        label_all(cell, 0)
    found = shown(table, planned)
    assert {unit.size for unit in found.units} == {(40, 40)}
    exact = [n for n, unit in enumerate(found.units) if not unit.no_target and unit.text != "background"]
    assert {float(found.entries[0].scores[n]) for n in exact} == {100.0}


def test_other_data_are_refused(campaign, tmp_path: Path) -> None:
    table, planned = campaign
    (tmp_path / "vocabulary").rename(tmp_path / "before")
    ToyVocabulary(scenes=20, pairs=1, size=64, seed=4).write(tmp_path / "vocabulary")
    with pytest.raises(DataError, match=r"low s0: picture 0: its label map .* not those that were scored"):
        shown(table, planned)
