import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from rislab.data import masks
from rislab.data.annotations import read_refs
from rislab.data.images import IMAGE_FOLDERS
from rislab.data.published import deviation, known
from rislab.data.refer import Refer
from rislab.errors import DataError
from tests.data.small import SmallSet, square


@pytest.fixture
def small() -> SmallSet:
    return SmallSet({"train": 4, "val": 2, "testA": 1})


def read(small: SmallSet, root: Path) -> Refer:
    return Refer(small.write(root), "refcoco", "unc")


def test_what_is_written_is_read(small: SmallSet, tmp_path: Path) -> None:
    refer = read(small, tmp_path)
    assert refer.splits == ["train", "val", "testA"]
    assert [r.ref_id for s in refer.splits for r in refer.split(s)] == list(range(len(small.refs)))
    second = refer.references[1]
    assert second.ann_ids == (1001,)
    assert [(e.sent_id, e.sent, e.raw) for e in second.expressions] == [
        (1, "thing 1", "Thing #1!"),
        (2, "thing 2", "Thing #2!"),
    ]
    assert masks.area(refer.target(second)) == 9 * 9
    # The name in the reference carries a suffix; the picture's name is the one in instances.json.
    assert refer.image_file(101).name == "COCO_train2014_000000000101.jpg"
    assert refer.image(101).shape == (24, 32, 3)


def test_several_annotations_and_none_at_all(small: SmallSet, tmp_path: Path) -> None:
    for record, (ref, ann_id) in enumerate(((0, [1001, 1002]), (3, []), (4, [-1]), (5, -1))):
        small.refs[ref] |= {"ann_id": ann_id, "image_id": 101 if record == 0 else small.refs[ref]["image_id"]}
    small.instances["annotations"][1]["segmentation"] = [square(0, 0, 4)]
    small.instances["annotations"][2]["segmentation"] = {"size": [24, 32], "counts": [32 * 24 - 5, 5]}
    refer = read(small, tmp_path)
    assert refer.references[0].ann_ids == (1001, 1002)
    assert masks.area(refer.target(refer.references[0])) == 16 + 5
    for ref in (3, 4, 5):
        assert refer.references[ref].ann_ids == ()
        assert masks.decode(refer.target(refer.references[ref])).sum() == 0


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": Harmful()}], protocol=2))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: asks for (posix|nt)\.system; .* refused"):
        read_refs(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_pickles_are_errors_for_the_user(small: SmallSet, tmp_path: Path) -> None:
    whole = pickle.dumps(small.refs, protocol=2)
    path = tmp_path / "refs(unc).p"
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, len(broken) or 1, 3):
            if broken:
                broken[at] = rng.integers(256)
        path.write_bytes(broken)
        # Many a change leaves a readable pickle. Whatever is raised is for the user: anything else fails this test.
        with contextlib.suppress(DataError):
            read_refs(path)


def test_what_is_missing_is_said_with_what_is_there(small: SmallSet, tmp_path: Path) -> None:
    small.write(tmp_path)
    with pytest.raises(DataError, match=r"no such folder; .*\['refcoco'\] \(did you mean 'refcoco'\?\)") as caught:
        Refer(tmp_path, "refcocog", "umd")
    for wanted in ("refcocog/instances.json", "refcocog/refs(umd).p", "images/train2014"):
        assert wanted in str(caught.value)
    with pytest.raises(DataError, match=r"refs\(google\).p: no such file; found \['refs\(unc\).p'\]"):
        Refer(tmp_path, "refcoco", "google")
    refer = Refer(tmp_path, "refcoco", "unc")
    with pytest.raises(DataError, match=r"no split 'testa', it has .* \(did you mean 'testA'\?\)"):
        refer.split("testa")
    (tmp_path / "refcoco" / "instances.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"instances.json: not readable JSON"):
        Refer(tmp_path, "refcoco", "unc")


@pytest.mark.parametrize("folder", IMAGE_FOLDERS)
def test_pictures_are_found_where_every_code_base_keeps_them(small: SmallSet, tmp_path: Path, folder: str) -> None:
    refer = read(small, tmp_path)
    (tmp_path / "images" / "train2014").rename(tmp_path / "kept")
    (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
    if (tmp_path / folder).exists():
        (tmp_path / folder).rmdir()
    (tmp_path / "kept").rename(tmp_path / folder)
    refer.check_images(refer.references)
    assert refer.image_file(100).parent == tmp_path / folder


def test_missing_pictures_are_counted_and_the_search_is_told(small: SmallSet, tmp_path: Path) -> None:
    refer = read(small, tmp_path)
    for image_id in (101, 102):
        refer.image_file(image_id).unlink()
    with pytest.raises(DataError, match=r"2 of 7 images not found \(COCO_train2014_000000000101.jpg, ") as caught:
        refer.check_images(refer.references)
    assert all(str(tmp_path / folder) in str(caught.value) for folder in IMAGE_FOLDERS)


def test_pictures_are_whole_or_refused(small: SmallSet, tmp_path: Path) -> None:
    refer = read(small, tmp_path)
    path = refer.image_file(100)
    whole = path.read_bytes()
    for kept in (len(whole) - 2, len(whole) // 2, 300, 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"000100\.jpg: (truncated or damaged JPEG|not a readable image)"):
            refer.image(100)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        refer.image(100)
    path.write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="not a readable image"):
        refer.image(100)
    path.write_bytes(whole + b"appended by a camera" * 10)
    assert refer.image(100).shape == (24, 32, 3)
    assert cv2.imwrite(str(path), np.zeros((24, 31, 3), np.uint8))
    with pytest.raises(DataError, match=r"31x24 pixels, instances\.json says 32x24"):
        refer.image(100)


def test_grey_becomes_rgb_and_exif_rotation_is_ignored(small: SmallSet, tmp_path: Path) -> None:
    from PIL import Image

    refer = read(small, tmp_path)
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    Image.fromarray(ramp).save(refer.image_file(100), quality=95)
    grey = refer.image(100)
    assert grey.shape == (24, 32, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees when shown
    Image.fromarray(np.stack([ramp, 0 * ramp, 0 * ramp], -1)).save(refer.image_file(100), quality=95, exif=exif)
    red = refer.image(100).astype(int)
    assert red[:, -4:, 0].mean() > 200 > 50 > red[:, -4:, 2].mean()


def test_a_cut_annotation_file_deviates_from_the_published_counts(small: SmallSet, tmp_path: Path) -> None:
    refer = read(small, tmp_path)
    assert deviation("refcoco", "unc", "val", refer.split("val")) == (
        "5 references (published: 3811), 2 images (published: 1500), 11 sentences (published: 10834)"
    )
    assert deviation("refcoco", "unc", "a split of one's own", refer.references) == ""
    totals = {
        (folder, split_by): sum(counts.references or 0 for counts in splits.values())
        for folder, each in known().items()
        for split_by, splits in each.partitions.items()
    }
    assert totals["refcoco", "unc"] == totals["refcoco", "google"] == 50000
    assert totals["refcoco+", "unc"] == 49856
    assert totals["refcocog", "umd"] == totals["refcocog", "google"] == 49822
