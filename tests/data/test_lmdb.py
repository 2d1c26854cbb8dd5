"""The LMDB files of CRIS's users: read like the annotation files that they were made from."""

import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from rislab.data import masks
from rislab.data.lmdb_layout import LmdbRefer
from rislab.data.lmdb_pages import refuse_damaged
from rislab.data.refer import Refer
from rislab.datamodules.referring import ReferringData
from rislab.errors import ConfigError, DataError
from tests.data.small import SmallSet
from tests.data.test_referring import ready
from tests.worlds import ROOT

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


def test_a_file_that_was_cut_or_changed_is_refused_before_it_is_mapped(
    refer: Refer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """liblmdb believes a file: reading half of one, or one whose pages point elsewhere, ends the process without a word."""
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    path = write(refer, tmp_path / "cris") / "lmdb" / "refcoco" / "train.lmdb"
    data = path.read_bytes()
    refuse_damaged(path)
    for size in (0, 100, 4096, len(data) // 2, len(data) - 4096, len(data) - 1):
        cut = tmp_path / f"{size}" / "lmdb" / "refcoco" / "train.lmdb"
        cut.parent.mkdir(parents=True)
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"train\.lmdb: not a readable LMDB file") as caught:
            LmdbRefer(tmp_path / f"{size}", "refcoco")
        assert size < 8192 or "the copy was interrupted" in str(caught.value)
    rng = random.Random(0)
    read = []
    for number in range(60):
        bent = bytearray(data)
        for _ in range(rng.randint(1, 60)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        file = tmp_path / f"{number}.lmdb"
        file.write_bytes(bent)
        try:
            refuse_damaged(file)
        except DataError:
            continue
        read.append(file)
    assert 5 < len(read) < 55
    # What is believed to be whole is read in a process of its own, which must come to its end.
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, read)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{len(read)}\n"), done.stderr[-2000:]


READ_ALL = """
import sys
from contextlib import suppress
from pathlib import Path

from rislab.data.lmdb_layout import LmdbStore
from rislab.errors import DataError

for path in sys.argv[1:]:
    store = LmdbStore({"train": Path(path)})
    with suppress(DataError):
        store.count("train")
    for number in range(7):
        with suppress(DataError):
            store.record("train", number)
print(len(sys.argv) - 1)
"""


def test_numbers_of_records_agree(refer: Refer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "file-in-the-way"))
    (tmp_path / "file-in-the-way").write_text("")  # a cache that cannot be written is no cache
    root = write(refer, tmp_path / "cris")
    assert len(LmdbRefer(root, "refcoco").references) == len(refer.references)
    for key, value, message in (
        (b"__len__", pickle.dumps(9), r"holds 7 records, and says that it has 9"),
        (b"7th", b"", r"1 keys are no record numbers, the first is b'7th'"),
    ):
        other = tmp_path / key.decode()
        shutil.copytree(root, other)
        path = other / "lmdb" / "refcoco" / "train.lmdb"
        with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as file:
            file.put(key, value)
        with pytest.raises(DataError, match=message):
            LmdbRefer(other, "refcoco")
