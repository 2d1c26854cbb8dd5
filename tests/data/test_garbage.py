"""Every reader, given damaged files: a DataError or a count, never another exception, whatever is damaged."""

import copy
import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rislab.data import pack
from rislab.data.annotations import Faults
from rislab.data.check.referring import check
from rislab.data.decoding import Expected, label_map, mask, picture
from rislab.data.geometry import Letterbox
from rislab.data.pack import Pack
from rislab.data.plain_pickle import unpickled
from rislab.data.refer import Refer
from rislab.errors import DataError
from rislab.paths import lines
from rislab.scoring.foreign import Predictions
from tests.data.small import SmallSet
from tests.data.test_decoding import GOOD_MASKS, PIXELS, encoded

EACH = 60
STRANGE: list[Any] = [
    *(None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**30, -(2**63)),
    *("", "x", "1", "a\0b", "../..", "\ud800", "x" * 300),
    *([], [[]], {}, {"a": 1}, [None], [1, 2, 3]),
]


def damaged(data: bytes, seed: int) -> Iterator[bytes]:
    """Cut, flipped, overwritten, doubled and random bytes."""
    rng = random.Random(seed)
    for number in range(EACH):
        bent = bytearray(data)
        match number % 5:
            case 0:
                del bent[rng.randrange(len(bent)) :]
            case 1:
                for _ in range(rng.randint(1, 8)):
                    bent[rng.randrange(len(bent))] = rng.randrange(256)
            case 2:
                at = rng.randrange(len(bent))
                bent[at : at + rng.randint(1, 40)] = rng.randbytes(rng.randint(0, 40))
            case 3:
                at = rng.randrange(len(bent))
                bent[at:at] = bent[: rng.randrange(len(bent))]
            case 4:
                bent = bytearray(bent[: rng.randrange(16)] + rng.randbytes(rng.randrange(200)))
        yield bytes(bent)


def bent_values(value: Any, seed: int, number: int = EACH) -> Iterator[Any]:
    """Copies in which one or two places hold a value of another kind, or nothing."""
    rng = random.Random(seed)
    for _ in range(number):
        bent = copy.deepcopy(value)
        for _ in range(rng.randint(1, 2)):
            at = bent
            while True:
                keys = list(at) if isinstance(at, dict) else range(len(at))
                if not keys:
                    break
                key = rng.choice(keys)
                if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.8:
                    at = at[key]
                    continue
                if rng.random() < 0.2:
                    del at[key]
                else:
                    at[key] = rng.choice(STRANGE)
                break
        yield bent


def survives(read: Callable[..., object], *arguments: Any) -> bool:
    """Whether the file was read; the only exception that may come is ours, short enough to be shown."""
    try:
        read(*arguments)
    except DataError as error:
        message = str(error)
    else:
        return True
    assert 0 < len(message) < 3000
    return False


PICTURES = {
    **{kind: encoded(Image.fromarray(PIXELS), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")},
    "GIF": encoded(Image.fromarray(PIXELS).convert("P"), "GIF"),
    "MPO": encoded(Image.fromarray(PIXELS), "MPO", save_all=True, append_images=[Image.fromarray(PIXELS)]),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(kind: str) -> None:
    read = [survives(picture, data, "f", None, True) for data in damaged(PICTURES[kind], 1)]
    assert not all(read)


def test_masks_and_label_maps() -> None:
    size = Expected(6, 9, "the image has")
    for number, data in enumerate(GOOD_MASKS.values()):
        for bent in list(damaged(data, number))[:20]:
            survives(mask, bent, "f", size)
            survives(label_map, bent, "f")


def test_pickles() -> None:
    refs = SmallSet({"train": 3}).refs
    refs[0]["ref_id"] = np.int64(0)
    for protocol in (0, 2, 5):
        for bent in damaged(pickle.dumps(refs, protocol), protocol):
            survives(unpickled, bent)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return SmallSet({"train": 3, "val": 1}).write(tmp_path / "data")


def whole(refer: Refer) -> None:
    for reference in refer.references:
        refer.target(reference)
        refer.distractors(reference)


def test_annotation_files(root: Path) -> None:
    small = SmallSet({"train": 3, "val": 1})
    instances, refs = root / "refcoco" / "instances.json", root / "refcoco" / "refs(unc).p"
    good = instances.read_bytes(), refs.read_bytes()
    for bent in bent_values(small.instances, 1, 150):
        instances.write_text(json.dumps(bent))
        survives(lambda: whole(Refer(root, "refcoco", "unc")))
        assert kept_and_lost(root, small.refs)
    instances.write_bytes(good[0])
    for bent in bent_values(small.refs, 2, 150):
        refs.write_bytes(pickle.dumps(bent))
        survives(lambda: whole(Refer(root, "refcoco", "unc")))
        assert kept_and_lost(root, bent)
    refs.write_bytes(good[1])
    for data in damaged(good[0], 3):
        instances.write_bytes(data)
        survives(lambda: whole(Refer(root, "refcoco", "unc")))
    instances.write_bytes(good[0])
    survives(lambda: check(root))
    refs.unlink()
    (root / "refcoco").rename(root / "grefcoco")
    grefs = root / "grefcoco" / "grefs(unc).json"
    for bent in bent_values(small.refs, 4):
        grefs.write_text(json.dumps(bent))
        survives(lambda: whole(Refer(root, "grefcoco", "unc")))


def kept_and_lost(root: Path, refs: list[Any]) -> bool:
    """Whether every reference of the file is kept, left out with a count, or a fault."""
    faults = Faults(collect=True)
    try:
        refer = Refer(root, "refcoco", "unc", faults)
    except DataError:
        return True
    lost = sum(fault.file == refer.refs_file for fault in faults.found)
    return len(refer.references) + refer.without_sentences.total() + lost == len(refs)


def test_check_goes_on_whatever_a_record_holds(root: Path) -> None:
    small = SmallSet({"train": 3, "val": 1})
    instances = root / "refcoco" / "instances.json"
    for bent in bent_values(small.instances, 5, 40):
        instances.write_text(json.dumps(bent))
        if survives(lambda: Refer(root, "refcoco", "unc", Faults(collect=True))):
            json.dumps(check(root, decode=False).as_json())


def test_predictions(root: Path, tmp_path: Path) -> None:
    refer = Refer(root, "refcoco", "unc")
    entries = []
    for number, reference in enumerate(refer.references):
        rle = refer.target(reference)
        counts: Any = rle["counts"].decode() if number % 2 else [100, 300, 368]
        for expression in reference.expressions:
            entries.append({"sent_id": expression.sent_id, "segmentation": {"size": [24, 32], "counts": counts}})
    path = tmp_path / "p.json"

    def read() -> None:
        for reader in Predictions(path).values():
            reader(24, 32)

    for bent in bent_values(entries, 6, 100):
        path.write_text(json.dumps(bent))
        survives(read)
    path.write_text(json.dumps(entries))
    assert survives(read)
    for data in damaged(path.read_bytes(), 7):
        path.write_bytes(data)
        survives(read)


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    for data in damaged("2007_000001\r\n2007_größer\n".encode(), 8):
        path.write_bytes(data)
        survives(lambda: lines(path))


def test_packs(root: Path) -> None:
    refer = Refer(root, "refcoco", "unc")
    folder = pack.write(refer, "refcoco", "unc", Letterbox(16), "letters", lambda text: [len(text)])
    files = {path: path.read_bytes() for path in folder.iterdir()}
    out = np.empty((16, 16), np.uint8)

    def read() -> None:
        found = Pack.open(refer, "refcoco", "unc", Letterbox(16))
        if found is not None:
            found.verify()
            found.targets(refer), found.tokens(), found.mask_into(out, 0)

    for path, data in files.items():
        for bent in list(damaged(data, 9))[:15]:
            path.write_bytes(bent)
            survives(read)
        path.write_bytes(data)
    about = json.loads((folder / "pack.json").read_text())
    for bent in bent_values(about, 10):
        (folder / "pack.json").write_text(json.dumps(bent))
        survives(read)
    (folder / "pack.json").write_bytes(files[folder / "pack.json"])
    # Whoever repairs the checksums of a damaged part gets an error that names it.
    (folder / "masks.npz").write_bytes(b"PK")
    about["parts"]["masks.npz"] = pack._sha256(folder / "masks.npz")
    (folder / "pack.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"masks\.npz: not a readable part of a pack"):
        read()
