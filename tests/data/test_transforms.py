"""Transforms: drawn from their key alone, and a picture and its masks move together."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.data.flips import Flip
from rislab.data.transforms import LongSideScaleCrop, Sample, TextSafeFlip, TimmTraining, Transform
from tests.data.small import SmallSet, trainer
from tests.data.test_referring import Recorder, ready

CROP = LongSideScaleCrop((32, 32), (16, 64), fill=(7, 7, 7))


def sample(height: int = 40, width: int = 56, masks: int = 1) -> Sample:
    """A picture that says of each pixel where it was: red is the row, green the column; the first mask is the row, too."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    picture = np.stack([rows, columns, np.full_like(rows, 99)], axis=-1)
    return Sample(picture, np.stack([rows] * masks) if masks else np.empty((0, height, width), np.uint8), ("left cup",))


@pytest.mark.parametrize(
    "transform",
    [CROP, LongSideScaleCrop((32, 48), (20, 90), flip=0, cubic=True), TextSafeFlip(Flip.swap), TimmTraining((32, 32))],
    ids=["crop", "wide", "flip", "timm"],
)
def test_drawn_from_the_key_alone(transform: Transform) -> None:
    given = sample(masks=0 if isinstance(transform, TimmTraining) else 1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = [transform(given, (0, 3, image_id)).picture for image_id in range(12)]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    again = [transform(given, (0, 3, image_id)).picture for image_id in reversed(range(12))]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert len({picture.tobytes() for picture in first}) > 1, "another sample, another draw"
    assert any(not np.array_equal(a, transform(given, (0, 4, image_id)).picture) for image_id, a in enumerate(first)), (
        "another epoch, another draw"
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 70), st.integers(20, 70), st.integers(0, 10_000))
def test_masks_lie_where_their_picture_lies(height: int, width: int, image_id: int) -> None:
    found = CROP(sample(height, width, masks=2), (0, 0, image_id))
    assert found.picture.shape == (32, 32, 3)
    assert found.masks.shape == (2, 32, 32)
    is_picture = found.masks[0] != 255
    assert np.array_equal(found.picture[..., 2] == 99, is_picture), "padding lies where the mask is ignored"
    assert (found.picture[~is_picture] == 7).all()
    inner = found.picture[..., 0][is_picture].astype(int) - found.masks[0][is_picture]
    scale = max(1.0, max(height, width) / 16)
    assert np.abs(inner).max(initial=0) <= scale, "a mask pixel is at most one source pixel from its picture's"
    assert np.array_equal(found.masks[0], found.masks[1])


def test_a_flip_turns_picture_masks_and_words_or_nothing() -> None:
    given = sample()
    for image_id in range(20):
        found = TextSafeFlip(Flip.swap)(given, (0, 0, image_id))
        turned = found.texts == ("right cup",)
        assert np.array_equal(found.picture, given.picture[:, ::-1] if turned else given.picture)
        assert np.array_equal(found.masks, given.masks[..., ::-1] if turned else given.masks)
        assert TextSafeFlip(Flip.refuse)(given, (0, 0, image_id)).texts == given.texts


def batches(root: Path, workers: int) -> list[tuple[bytes, bytes, list[str]]]:
    loader = ready(root, size=32, transform=CROP, batch_size=2, num_workers=workers).train_dataloader()
    found = [
        (b.images.numpy().tobytes(), b.mask_bytes.numpy().tobytes(), b.texts)
        for b in loader
        if b.mask_bytes is not None
    ]
    loader.close()
    return found


def test_loader_processes_and_a_resume_change_no_byte(tmp_path: Path) -> None:
    root = SmallSet({"train": 9, "val": 1}).write(tmp_path)
    alone = batches(root, 0)
    assert len(alone) == 9
    assert batches(root, 2) == alone
    module = ready(root, size=32, transform=CROP, batch_size=2)
    loader = module.train_dataloader()
    loader.load_state_dict({"epoch": 0, "given": 2, "of": 9})
    rest = [b.images.numpy().tobytes() for b in loader]
    assert rest == [images for images, _, _ in alone[2:]]


def test_training_sees_the_transform_and_evaluation_does_not(tmp_path: Path) -> None:
    root = SmallSet({"train": 6, "val": 2}).write(tmp_path)
    module = ready(root, size=32, transform=CROP, batch_size=2)
    trainer().fit(Recorder(32, CROP), datamodule=module)
    plain, seen = (next(iter(ready(root, size=32, transform=t).val_dataloader())) for t in (None, CROP))
    assert torch.equal(plain.images, seen.images)


def test_albumentations_is_imported_on_use_only_and_does_not_look_for_updates() -> None:
    code = (
        "import sys, os, rislab.data.transforms as t, numpy as np\n"
        "assert 'albumentations' not in sys.modules\n"
        "t.LongSideScaleCrop((8, 8), (8, 8))(t.Sample(np.zeros((9, 9, 3), np.uint8), np.zeros((0, 9, 9), np.uint8)), (0, 0, 0))\n"
        "assert 'albumentations' in sys.modules and os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
