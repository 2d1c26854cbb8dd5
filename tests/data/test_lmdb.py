"""The LMDB files of CRIS's users: read like the annotation files that they were made from."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from rislab.data import masks
from rislab.data.refer import Refer
from rislab.data.referring import ReferringData
from rislab.errors import ConfigError, DataError
from tests.data.small import SmallSet
from tests.data.test_referring import ready

lmdb = pytest.importorskip("lmdb")


def write(refer: Refer, root: Path, **changes: Any) -> Path:
    """As CRIS's tools/folder2lmdb.py does: one file a split, one record a reference."""
    for split in refer.splits:
        path = root / "lmdb" / "refcoco" / f"{split}.lmdb"
        path.parent.mkdir(parents=True, exist_ok=True)
        with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as file:
            references = refer.split(split)
            for number, reference in enumerate(references):
                done, png = cv2.imencode(".png", masks.decode(refer.target(reference)) * 255)
                assert done
                record = {
                    "img": refer.picture(reference.image_id)[1],
                    "mask": png.tobytes(),
                    "cat": 0,
                    "seg_id": reference.ref_id,
                    "img_name": refer.images[reference.image_id].file_name,
                    "num_sents": len(reference.expressions),
                    "sents": [expression.sent for expression in reference.expressions],
                }
                file.put(str(number).encode(), pickle.dumps(record | changes, protocol=5))
            file.put(b"__keys__", pickle.dumps([str(n).encode() for n in range(len(references))]))
            file.put(b"__len__", pickle.dumps(len(references)))
    return root


@pytest.fixture
def refer(tmp_path: Path) -> Refer:
    return Refer(SmallSet({"train": 4, "val": 3}).write(tmp_path / "files"), "refcoco", "unc")


def batches(root: Path, **options: Any) -> list[Any]:
    module = ready(root, batch_size=2, eval_images=2, **options)
    return [*module.train_dataloader(), *module.val_dataloader()]


def test_the_same_batches_as_from_the_annotation_files(
    refer: Refer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    root = write(refer, tmp_path / "cris")
    for _ in range(2):  # the second time from the cached index
        pairs = list(zip(batches(tmp_path / "files"), batches(root, layout="lmdb"), strict=True))
        for ours, theirs in pairs:
            assert torch.equal(ours.images, theirs.images)
            assert (ours.texts, ours.ref_ids, ours.image_ids) == (theirs.texts, theirs.ref_ids, theirs.image_ids)
            if ours.masks is not None:
                assert torch.equal(ours.masks, theirs.masks)
            else:
                assert [masks.area(t) for t in ours.targets] == [masks.area(t) for t in theirs.targets]
    assert batches(root, layout="lmdb", num_workers=1)[0].texts == pairs[0][1].texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img": 5}, "record 0: expected a dict with img"),
        ({"img": b"no picture"}, "record 0: COCO_train2014"),
        ({"sents": []}, r"no references \(7 references without a sentence left out"),
        ({"img": Path("x")}, "asks for pathlib.*refused.*pyarrow.serialize"),
        ({"seg_id": 3}, "seg_id 3 occurs more than once"),
    ],
    ids=str,
)
def test_damaged_records_are_named(
    refer: Refer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    root = write(refer, tmp_path / "cris", **changes)
    with pytest.raises(DataError, match=message):
        batches(root, layout="lmdb")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no \*\.lmdb files"):
        ReferringData(str(tmp_path), layout="lmdb").refer  # noqa: B018
    (tmp_path / "lmdb" / "refcoco").mkdir(parents=True)
    (tmp_path / "lmdb" / "refcoco" / "val.lmdb").write_bytes(b"not one")
    with pytest.raises(DataError, match="not a readable LMDB file"):
        ReferringData(str(tmp_path), layout="lmdb").refer  # noqa: B018
    import sys

    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'rislab\[lmdb\]'"):
        ReferringData(str(tmp_path), layout="lmdb").refer  # noqa: B018
