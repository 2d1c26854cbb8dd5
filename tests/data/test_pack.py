"""The pack gives the very batches of the files, and notices when it is not theirs."""

import json
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rislab.data import pack
from rislab.data.batch import MaskQueries
from rislab.data.geometry import Geometry, Letterbox, Stretch
from rislab.data.pack import Pack
from rislab.data.refer import Refer
from rislab.errors import DataError
from tests.data.small import SmallSet
from tests.data.test_referring import ready
from tests.worlds import rislab


def encode(text: str) -> list[int]:
    return [1, *(ord(letter) for letter in text), 2]


def made(root: Path, geometry: Geometry | None = None) -> Path:
    refer = Refer(root, "refcoco", "unc")
    return pack.write(refer, "refcoco", "unc", geometry or Letterbox(16), "letters", encode)


def batches(root: Path, **options: object) -> list[MaskQueries]:
    module = ready(root, batch_size=2, eval_images=2, **options)
    return [*module.train_dataloader(), *module.val_dataloader()]


def assert_same(one: list[MaskQueries], other: list[MaskQueries]) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert (ours.sent_ids, ours.targets) == (theirs.sent_ids, theirs.targets)
        assert ours.masks is None or torch.equal(ours.masks, theirs.masks)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return SmallSet({"train": 6, "val": 2}).write(tmp_path / "data")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_batches_to_the_bit(root: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = batches(root)
    made(root)
    monkeypatch.setattr("rislab.data.images.decode", None)  # decoding a picture now fails
    assert_same(batches(root, num_workers=workers), before)


def test_a_changed_picture_is_read_anew_and_a_changed_annotation_puts_all_aside(root: Path) -> None:
    made(root)
    picture = Refer(root, "refcoco", "unc").image_file(100)
    assert cv2.imwrite(str(picture), np.full((24, 32, 3), 7, np.uint8))
    with pytest.warns(UserWarning, match="1 pictures have changed since .*packed"):
        changed = batches(root)
    assert_same(changed, batches(root, packed=False))
    instances = json.loads((root / "refcoco" / "instances.json").read_text())
    instances["annotations"][0]["segmentation"] = [[0, 0, 5, 0, 5, 5]]
    (root / "refcoco" / "instances.json").write_text(json.dumps(instances))
    with pytest.warns(UserWarning, match="of other files: not used"):
        changed = batches(root)
    assert_same(changed, batches(root, packed=False))
    made(root)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*pack.*")
        assert_same(batches(root), changed)


def test_packing_goes_on_where_it_was_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "KEEP_EVERY", 1)
    refer = Refer(root, "refcoco", "unc")
    placed: list[int] = []
    image = Letterbox.image
    monkeypatch.setattr(Letterbox, "image", lambda self, i, p: (placed.append(1), image(self, i, p))[1])

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack.write(refer, "refcoco", "unc", Letterbox(16), "letters", encode, stop)
    assert Pack.open(refer, "refcoco", "unc", Letterbox(16)) is None, "an unfinished pack is used"
    placed.clear()
    folder = made(root)
    assert len(placed) == 8 - 5
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert whole.keys() == {"images.u8", "pictures.npz", "masks.npz", "placed.npz", "tokens.npz", "pack.json"}
    placed.clear()
    made(root)
    assert not placed, "what is there is packed again"
    # What the notes say of a picture whose bytes never reached the disk is not believed.
    unfinished = folder.rename(folder.with_name(f".{folder.name}.unfinished"))
    about = json.loads((unfinished / "pack.json").read_text())
    (unfinished / "about.json").write_text(
        json.dumps({key: about[key] for key in ("format", "sources", "geometry", "tokenizer")})
    )
    (unfinished / "pictures.npz").rename(unfinished / "progress.npz")
    with (unfinished / "images.u8").open("r+b") as file:
        file.seek(3 * 3 * 16 * 16)
        file.write(b"\0" * 100)
    made(root)
    assert len(placed) == 8 - 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_damage_is_found(root: Path, tmp_path: Path) -> None:
    folder = made(root)
    refer = Refer(root, "refcoco", "unc")
    with (folder / "images.u8").open("r+b") as file:
        file.seek(2 * 3 * 16 * 16 + 5)
        file.write(b"\1\2\3")
    found = Pack.open(refer, "refcoco", "unc", Letterbox(16))
    assert found is not None
    assert found.verify() == [102]
    (folder / "masks.npz").write_bytes((folder / "masks.npz").read_bytes()[:-3])
    assert Pack.open(refer, "refcoco", "unc", Letterbox(16)) is None
    os.truncate(made(root) / "images.u8", 100)
    assert Pack.open(refer, "refcoco", "unc", Letterbox(16)) is None
    refer.image_file(101).write_bytes(b"no picture")
    with pytest.raises(DataError, match="not a readable image"):
        made(root)


def test_geometries_have_packs_of_their_own(root: Path) -> None:
    folders = {made(root, g) for g in (Letterbox(16), Letterbox(32), Letterbox(16, (0, 0, 0)), Stretch(16))}
    assert len(folders) == 4


def test_tokens_reach_the_method(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, list[int]] = {}

    def take(self: object, kind: str, ids: dict[str, np.ndarray]) -> None:
        assert kind == "letters"
        taken.update({text: found.tolist() for text, found in ids.items()})

    made(root)
    monkeypatch.setattr("tests.data.small.Recorder.take_tokens", take, raising=False)
    batches(root)
    assert taken["thing 3"] == encode("thing 3")
    assert len(taken) == sum(len(r.expressions) for r in Refer(root, "refcoco", "unc").references)


def test_the_command_packs_and_verifies(root: Path) -> None:
    done = rislab("data", "pack", str(root), "--size", "16", "--verify")
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    found = Pack.open(Refer(root, "refcoco", "unc"), "refcoco", "unc", Letterbox(16))
    assert found is not None
    assert found.tokens()[0][0] == 49406
    with (found.folder / "images.u8").open("r+b") as file:
        file.write(b"\1\2\3")
    done = rislab("data", "pack", str(root), "--size", "16", "--verify")
    assert done.returncode == 2
    assert "1 packed pictures are damaged (100)" in done.stderr
