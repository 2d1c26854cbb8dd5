"""Real records, where they are at hand: a folder of excerpts in the official layout, named by `RISLAB_SHARED_DATA`.

They are not ours to publish. All that is done with whole files is done with them: read, check, compare, draw, score.
"""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from rislab.data import masks
from rislab.data.checking import check
from rislab.data.leaks import leaks, part
from rislab.data.locate import Place, places
from rislab.scoring.foreign import Predictions
from rislab.scoring.score import score
from tests.worlds import rislab

ROOT = Path(os.environ.get("RISLAB_SHARED_DATA", "../shared/data")) / "refcoco-excerpt"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no excerpts: set RISLAB_SHARED_DATA")


def each() -> list[Place]:
    return places(ROOT) if ROOT.is_dir() else []


@pytest.mark.parametrize("place", each(), ids=lambda place: place.title)
def test_counts_and_masks_agree_with_pycocotools(place: Place) -> None:
    refer = place.read()
    coco = COCO(str(refer.instances_file))
    assert refer.images.keys() == coco.imgs.keys()
    for reference in refer.references:
        annotations = [coco.anns[ann_id] for ann_id in reference.ann_ids]
        assert masks.area(refer.target(reference)) == sum(int(coco.annToMask(a).sum()) for a in annotations) > 0
        same = coco.getAnnIds(imgIds=[reference.image_id], catIds=[annotations[0]["category_id"]], iscrowd=False)
        assert refer.distractors(reference) == len(same) - 1
    found = next(
        each for each in check(ROOT).data_sets if (each.dataset, each.split_by) == (place.dataset, place.split_by)
    )
    assert not found.faults
    assert sum(split.references for split in found.splits.values()) == len(refer.references)
    assert found.pictures.missing == found.pictures.expected == len({r.image_id for r in refer.references})


@pytest.mark.parametrize("place", each(), ids=lambda place: place.title)
def test_perfect_answers_score_a_hundred(place: Place, tmp_path: Path) -> None:
    refer = place.read()
    for split in refer.splits:
        answers = [
            {"sent_id": expression.sent_id, "segmentation": masks.to_json(refer.target(reference))}
            for reference in refer.split(split)
            for expression in reference.expressions
        ]
        file = tmp_path / "masks.json"
        file.write_text(json.dumps(answers))
        found = score(refer, split, Predictions(file), ["native", "cris", "dmmi"])
        assert found.averages("native")["oiou"] == found.averages("dmmi")["miou_expr"] == 100
        assert found.averages("cris")["pr@90"] == 100


def test_the_same_object_in_two_sets_is_a_leak() -> None:
    """Annotation 220551 is RefCOCO testA and RefCOCOg umd test; 1536273 is RefCOCO testB and RefCOCOg val."""
    train, test = part(ROOT, "refcoco:unc:testA"), part(ROOT, "refcocog:umd:test")
    (found,) = leaks([train], [test])
    assert 220551 in found.objects
    (found,) = leaks([part(ROOT, "refcoco:testB")], [part(ROOT, "refcocog:umd:val")])
    assert 1536273 in found.objects


def test_the_commands(tmp_path: Path) -> None:
    done = rislab("data", "show", str(ROOT.resolve()), "--dataset", "refcocog", "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 400
    done = rislab("data", "check", str(ROOT.resolve()), "--json")
    assert len(json.loads(done.stdout)["data_sets"]) == 4
