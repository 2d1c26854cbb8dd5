"""Annotation files that are wrong in every way we could think of: an error that names file and record, or a counted skip.

Never a traceback from the depths, never a data set that is silently smaller.
"""

import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rislab.data import masks
from rislab.data.check.referring import Check, check
from rislab.data.refer import Refer
from rislab.errors import DataError
from tests.data.small import SmallSet

Bend = Callable[[SmallSet], object]


def images(s: SmallSet) -> list[dict[str, Any]]:
    return list(s.instances["images"])


def annotations(s: SmallSet) -> list[dict[str, Any]]:
    return list(s.instances["annotations"])


def segment(value: Any) -> Bend:
    return lambda s: annotations(s)[0].update(segmentation=value)


# What reading refuses: (the change, what the error says, the kind under which `rislab data check` counts it).
REFUSED: dict[str, tuple[Bend, str, str]] = {
    "annotation of a reference is not there": (
        lambda s: s.refs[2].update(ann_id=7),
        r"ref_id 2: ann_id 7 is not in instances.json",
        "dangling annotation id",
    ),
    "annotation is of another image": (
        lambda s: s.refs[0].update(ann_id=1001),
        r"ref_id 0: ann_id 1001 belongs to image 101, not 100",
        "annotation of another image",
    ),
    "image of a reference is not there": (
        lambda s: s.refs[0].update(image_id=5),
        r"ref_id 0: image_id 5 is not in instances.json",
        "dangling image id",
    ),
    "one ref_id for two": (
        lambda s: s.refs[1].update(ref_id=0),
        r"ref_id 0: occurs more than once",
        "duplicate reference id",
    ),
    "one sent_id in two references": (
        lambda s: s.refs[1]["sentences"][0].update(sent_id=0),
        r"sent_id 0: occurs in ref_id 0 and in ref_id 1",
        "duplicate sentence id",
    ),
    "one sent_id twice in a reference": (
        lambda s: s.refs[1]["sentences"][0].update(sent_id=2),
        r"ref_id 1: has a sent_id more than once",
        "duplicate sentence id",
    ),
    "sentences are a number": (
        lambda s: s.refs[1].update(sentences=3),
        r"ref_id 1: field missing or of a wrong type",
        "unreadable reference",
    ),
    "a sentence is a text": (
        lambda s: s.refs[1].update(sentences=["left one"]),
        r"ref_id 1: field missing or of a wrong type",
        "unreadable reference",
    ),
    "sent is a number": (
        lambda s: s.refs[1]["sentences"][0].update(sent=3),
        r"ref_id 1: field .*int instead of text",
        "unreadable reference",
    ),
    "no raw text": (
        lambda s: s.refs[1]["sentences"][0].pop("raw"),
        r"ref_id 1: field .*KeyError\('raw'\)",
        "unreadable reference",
    ),
    "sent_id is text": (
        lambda s: s.refs[1]["sentences"][0].update(sent_id="one"),
        r"ref_id 1: field .*'one'",
        "unreadable reference",
    ),
    "no split": (lambda s: s.refs[1].pop("split"), r"ref_id 1: field .*KeyError\('split'\)", "unreadable reference"),
    "split is a list": (lambda s: s.refs[1].update(split=["val"]), r"ref_id 1: field", "unreadable reference"),
    "ref_id is NaN": (lambda s: s.refs[1].update(ref_id=math.nan), r"ref_id nan: field", "unreadable reference"),
    "ann_id is half": (lambda s: s.refs[1].update(ann_id=1000.5), r"1000.5 is no id", "unreadable reference"),
    "ann_id is nothing": (lambda s: s.refs[1].update(ann_id=None), r"ref_id 1: field", "unreadable reference"),
    "none beside another": (lambda s: s.refs[1].update(ann_id=[-1, 1001]), r"-1 says", "unreadable reference"),
    "image without width": (
        lambda s: images(s)[0].pop("width"),
        r"instances.json: image \{'id': 100.*KeyError\('width'\)",
        "unreadable image",
    ),
    "image of no width": (
        lambda s: images(s)[0].update(width=0),
        r"image 100: is said to have 0x24 pixels",
        "unreadable image",
    ),
    "image of negative height": (
        lambda s: images(s)[0].update(height=-24),
        r"image 100: is said to have 32x-24 pixels",
        "unreadable image",
    ),
    "image of infinite width": (
        lambda s: images(s)[0].update(width=math.inf),
        r"image .*OverflowError",
        "unreadable image",
    ),
    "image name is a number": (
        lambda s: images(s)[0].update(file_name=7),
        r"image .*int instead of text",
        "unreadable image",
    ),
    "image is a text": (lambda s: s.instances["images"].append("photo.jpg"), r"image 'photo.jpg'", "unreadable image"),
    "one image id for two": (
        lambda s: s.instances["images"].append(images(s)[0]),
        r"image id 100 occurs more than once",
        "duplicate image id",
    ),
    "one annotation id for two": (
        lambda s: s.instances["annotations"].append(annotations(s)[0]),
        r"annotation id 1000 occurs more than once",
        "duplicate annotation id",
    ),
    "annotation id is infinite": (
        lambda s: annotations(s)[0].update(id=math.inf),
        r"annotation .*OverflowError",
        "unreadable annotation",
    ),
    "annotation without segmentation": (
        lambda s: annotations(s)[0].pop("segmentation"),
        r"annotation .*KeyError\('segmentation'\)",
        "unreadable annotation",
    ),
}

# What is found when a mask is drawn.
UNDRAWABLE: dict[str, tuple[Any, str]] = {
    "RLE of another size": ({"size": [1, 1], "counts": [1]}, r"RLE of size \[1, 1\]"),
    "RLE that does not add up": ({"size": [24, 32], "counts": [5, 5]}, "do not add up"),
    "RLE of negative runs": ({"size": [24, 32], "counts": [800, -32]}, "do not add up"),
    "damaged compressed RLE": ({"size": [24, 32], "counts": "PPPP"}, "damaged"),
    "RLE without counts": ({"size": [24, 32]}, "RLE counts are NoneType"),
    "a number": (5, "neither polygons nor RLE but int"),
    "a polygon of text": ([["a", "b", "c", "d", "e", "f"]], "no flat list of numbers"),
    "a polygon of NaN": ([[math.nan] * 6], "no pixel positions"),
    "a polygon far away": ([[1e9, 1, 2, 2, 3, 1]], "no pixel positions"),
    "polygons and RLE mixed": ([[1, 1, 5, 1, 5, 5], {"size": [24, 32], "counts": [768]}], "mixes forms"),
}

# What is legal to read, and counted: (the change, where `rislab data check` shows it).
COUNTED: dict[str, tuple[Bend, Callable[[Check], int]]] = {
    "polygon of two points": (segment([[1, 1, 5, 5]]), lambda c: fault(c, "zero-area mask")),
    "no polygon": (segment([]), lambda c: fault(c, "zero-area mask")),
    "polygon outside the picture": (segment([[50, 50, 60, 50, 60, 60]]), lambda c: fault(c, "zero-area mask")),
    "odd number of coordinates": (
        segment([[1, 1, 9, 1, 9, 9], [1, 1, 2, 2, 3, 3, 4]]),
        lambda c: note(c, "polygons dropped"),
    ),
    "NaN in a box": (lambda s: annotations(s)[0].update(bbox=[math.nan, 1, 2, 3]), lambda c: fault(c, "bad box")),
    "box of negative size": (lambda s: annotations(s)[0].update(bbox=[1, 1, -2, 3]), lambda c: fault(c, "bad box")),
    "box of three numbers": (lambda s: annotations(s)[0].update(bbox=[1, 1, 2]), lambda c: fault(c, "bad box")),
    "crowd": (lambda s: annotations(s)[0].update(iscrowd=1), lambda c: note(c, "crowd annotations")),
    "empty sentence": (lambda s: s.refs[1]["sentences"][0].update(sent=" "), lambda c: note(c, "empty sentences")),
    "sentence given twice": (
        lambda s: s.refs[1]["sentences"][0].update(sent=s.refs[1]["sentences"][1]["sent"]),
        lambda c: note(c, "sentences given twice"),
    ),
    "not ASCII": (lambda s: s.refs[0]["sentences"][0].update(raw="café 🙂"), lambda c: note(c, "not ASCII")),
}


def fault(found: Check, kind: str) -> int:
    return sum(each.count for each in found.data_sets[0].faults if each.kind == kind)


def note(found: Check, words: str) -> int:
    return sum(number for name, number in found.data_sets[0].notes.items() if words in name)


@pytest.fixture
def small() -> SmallSet:
    return SmallSet({"train": 4, "val": 2, "testA": 1})


def test_there_are_many() -> None:
    assert len(REFUSED) + len(UNDRAWABLE) + len(COUNTED) + len(WHOLE_FILES) >= 50


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused_by_name_and_counted_by_check(small: SmallSet, tmp_path: Path, name: str) -> None:
    bend, message, kind = REFUSED[name]
    bend(small)
    root = small.write(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        Refer(root, "refcoco", "unc")
    assert str(tmp_path / "refcoco") in str(caught.value)
    found = check(root)
    assert fault(found, kind) == 1
    assert not found.is_sound
    kept = sum(split.references for split in found.data_sets[0].splits.values())
    lost = sum(each.count for each in found.data_sets[0].faults)
    assert kept + lost >= len(small.refs), "a reference is neither kept nor named"


@pytest.mark.parametrize("name", UNDRAWABLE)
def test_masks_that_cannot_be_drawn_are_named(small: SmallSet, tmp_path: Path, name: str) -> None:
    value, message = UNDRAWABLE[name]
    segment(value)(small)
    refer = Refer(small.write(tmp_path), "refcoco", "unc")
    with pytest.raises(DataError, match=rf"instances\.json: annotation 1000: .*{message}"):
        refer.target(refer.references[0])
    assert fault(check(tmp_path), "unreadable mask") == 1


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_legal_is_read_whole_and_counted(small: SmallSet, tmp_path: Path, name: str) -> None:
    bend, counted = COUNTED[name]
    bend(small)
    refer = Refer(small.write(tmp_path), "refcoco", "unc")
    assert len(refer.references) == len(small.refs)
    assert all(masks.area(refer.target(reference)) >= 0 for reference in refer.references)
    assert counted(check(tmp_path)) == 1


class _Harmful:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("false",)


WHOLE_FILES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut pickle": ("refs(unc).p", lambda b: b[: len(b) // 2], "not a readable pickle"),
    "empty pickle": ("refs(unc).p", lambda b: b"", "not a readable pickle"),
    "pickle of a dict": ("refs(unc).p", lambda b: pickle.dumps({}), "expected a list of references, found dict"),
    "pickle of numbers": ("refs(unc).p", lambda b: pickle.dumps([1, 2]), "expected a list of references"),
    "pickle that runs code": ("refs(unc).p", lambda b: pickle.dumps([{"ref_id": _Harmful()}]), "refused"),
    "pickle with a class": ("refs(unc).p", lambda b: pickle.dumps([{"p": Path("x")}]), "asks for pathlib.*refused"),
    "cut JSON": ("instances.json", lambda b: b[: len(b) // 2], "not readable JSON"),
    "empty JSON": ("instances.json", lambda b: b"", "not readable JSON"),
    "JSON that is binary": ("instances.json", lambda b: bytes(range(256)), "not readable JSON"),
    "JSON list": ("instances.json", lambda b: b"[]", "expected COCO's instances format"),
    "JSON without images": ("instances.json", lambda b: b'{"annotations": []}', "expected COCO's instances format"),
    "JSON nested without end": ("instances.json", lambda b: b"[" * 200_000, "not readable JSON"),
}


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_files_that_are_no_annotation_files(small: SmallSet, tmp_path: Path, name: str) -> None:
    file, bend, message = WHOLE_FILES[name]
    path = small.write(tmp_path) / "refcoco" / file
    path.write_bytes(bend(path.read_bytes()))
    for read in (lambda: Refer(tmp_path, "refcoco", "unc"), lambda: check(tmp_path)):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert str(path) in str(caught.value)


def test_check_counts_what_is_there_and_names_what_is_not(small: SmallSet, tmp_path: Path) -> None:
    root = small.write(tmp_path)
    pictures = sorted((root / "images" / "train2014").iterdir())
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:100])
    found = check(root)
    one = found.data_sets[0]
    assert {name: (s.images, s.references, s.expressions) for name, s in one.splits.items()} == {
        "train": (4, 7, 13),
        "val": (2, 5, 11),
        "testA": (1, 1, 1),
    }
    assert one.missing_splits == ["testB"]
    assert "5 references (published: 3811)" in one.splits["val"].deviates
    assert (one.pictures.expected, one.pictures.missing, one.pictures.unreadable) == (7, 1, 1)
    assert {entry["dataset"] for entry in found.absent} == {"refcoco+", "refcocog", "ref-zom", "grefcoco"}
    assert json.loads(json.dumps(found.as_json()))["is_sound"] is False
    with pytest.raises(DataError, match="holds no referring data set"):
        check(pictures[2].parent)
