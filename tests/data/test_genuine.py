"""Real records, where they are at hand: a folder of excerpts in the official layout, named by `RISLAB_SHARED_DATA`.

They are not ours to publish. All that is done with whole files is done with them: read, check, compare, draw, score.
"""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from rislab.data import masks, pack
from rislab.data.check.referring import check
from rislab.data.geometry import Letterbox
from rislab.data.leaks import leaks, part
from rislab.data.locate import DataFolder, data_folders
from rislab.scoring.foreign import Predictions
from rislab.scoring.score import score
from tests.data.test_referring import ready
from tests.worlds import rislab

HERE = Path(os.environ.get("RISLAB_SHARED_DATA", "../shared/data"))
ROOT, PANOPTIC = HERE / "refcoco-excerpt", HERE / "coco-panoptic-mini"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no excerpts: set RISLAB_SHARED_DATA")


def each() -> list[DataFolder]:
    return data_folders(ROOT) if ROOT.is_dir() else []


@pytest.mark.parametrize("place", each(), ids=lambda place: place.title)
def test_counts_and_masks_agree_with_pycocotools(place: DataFolder) -> None:
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
def test_perfect_answers_score_a_hundred(place: DataFolder, tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's panoptic things as a referring set: real photographs of real sizes, real masks as run lengths."""
    if not PANOPTIC.is_dir():
        pytest.skip("no photographs")
    root = tmp_path_factory.mktemp("photographs")
    (root / "images" / "train2014").mkdir(parents=True)
    (root / "refcoco").mkdir()
    instances: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    refs: list[dict[str, Any]] = []
    for split in ("train", "val"):
        file = json.loads((PANOPTIC / "annotations" / f"panoptic_{split}2017.json").read_text())
        names = {category["id"]: category["name"] for category in file["categories"]}
        instances["images"] += file["images"]
        for image in file["images"]:
            shutil.copy(PANOPTIC / f"{split}2017" / image["file_name"], root / "images" / "train2014")
        for annotation in file["annotations"]:
            with Image.open(PANOPTIC / "annotations" / f"panoptic_{split}2017" / annotation["file_name"]) as png:
                red, green, blue = (np.asarray(channel, np.int64) for channel in png.convert("RGB").split())
            for segment in annotation["segments_info"]:
                mask = red + 256 * green + 65536 * blue == segment["id"]
                number = len(instances["annotations"])
                record = {"id": number, "image_id": annotation["image_id"], "category_id": segment["category_id"]}
                shape = {"iscrowd": segment["iscrowd"], "segmentation": masks.to_json(masks.encode(mask))}
                instances["annotations"].append({**record, **shape, "bbox": segment["bbox"], "area": segment["area"]})
                text = names[segment["category_id"]]
                sentence = {"sent_id": number, "sent": text, "raw": text, "tokens": text.split()}
                of = {"ref_id": number, "ann_id": number, "image_id": annotation["image_id"], "split": split}
                refs.append({**of, "sentences": [sentence], "sent_ids": [number]})
    (root / "refcoco" / "instances.json").write_text(json.dumps(instances))
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return root


def test_real_photographs_are_read_drawn_packed_and_scored(photographs: Path, tmp_path: Path) -> None:
    (place,) = data_folders(photographs)
    refer = place.read()
    areas = {a["id"]: a["area"] for a in json.loads(refer.instances_file.read_text())["annotations"]}
    assert len(refer.images) == 24
    assert all(masks.area(refer.target(r)) == areas[r.ann_ids[0]] > 0 for r in refer.references), "the file's own areas"
    found = check(photographs).data_sets[0]
    assert (found.pictures.missing, found.pictures.unreadable, found.faults) == (0, 0, [])
    done = rislab("data", "show", str(photographs), "--split", "val", "--n", "8", "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stderr
    before = [(b.images, b.masks) for b in ready(photographs, 64, batch_size=4).train_dataloader()]
    pack.write(refer, "refcoco", "unc", Letterbox(64), "none", lambda text: [len(text)])
    after = [(b.images, b.masks) for b in ready(photographs, 64, batch_size=4).train_dataloader()]
    for (images, soft), (packed_images, packed_soft) in zip(before, after, strict=True):
        assert torch.equal(images, packed_images)
        assert torch.equal(soft, packed_soft)
    answers = [{"sent_id": r.ref_id, "segmentation": masks.to_json(refer.target(r))} for r in refer.split("val")]
    (tmp_path / "masks.json").write_text(json.dumps(answers))
    scores = score(refer, "val", Predictions(tmp_path / "masks.json"), ["native", "lavt", "rela"])
    assert scores.averages("native")["oiou"] == scores.averages("lavt")["oiou"] == 100
    assert scores.averages("rela")["giou"] == pytest.approx(100 * (len(answers) - 1) / len(answers)), (
        "ReLA leaves the crowd out"
    )
