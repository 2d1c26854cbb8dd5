"""A mirrored picture and its sentence still belong together."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from rislab.data.flips import Flip, can_be_swapped, is_flipped, mirrored, names_a_side
from rislab.data.transforms import text_safe_flip
from tests.data.small import SmallSet
from tests.data.test_referring import ready


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("left man", "right man"),
        ("Far RIGHT, not the left one.", "Far LEFT, not the right one."),
        ("the left-hand cup on the right", "the right-hand cup on the left"),
        ("leftmost zebra", "rightmost zebra"),
        ("man who left the copyright office", "man who right the copyright office"),
        ("bright shirt", "bright shirt"),
        ("", ""),
    ],
)
def test_left_and_right_are_exchanged(text: str, other: str) -> None:
    assert mirrored(text) == other
    assert mirrored(other) == text
    assert names_a_side(text) == (text != other)


@given(st.text())
@example("AAa, McDonald")
def test_mirroring_twice_gives_the_sentence_back(text: str) -> None:
    assert mirrored(mirrored(text)) == text or not text.isascii()


def test_what_cannot_be_mirrored_is_left_alone() -> None:
    for text in ("the sign on the left", "man turning clockwise", "clock that says 12:00", "shirt with the letters"):
        assert not can_be_swapped(text)
        assert not any(is_flipped(flip, [text], 0, epoch, 1) for flip in Flip for epoch in range(50))
    assert any(is_flipped(Flip.swap, ["left cup"], 0, epoch, 1) for epoch in range(50))
    assert not any(is_flipped(Flip.refuse, ["red cup", "left cup"], 0, epoch, 1) for epoch in range(50))
    assert any(is_flipped(Flip.refuse, ["red cup"], 0, epoch, 1) for epoch in range(50))


def test_half_of_the_pictures_are_mirrored_and_always_the_same_ones() -> None:
    drawn = [is_flipped(Flip.swap, ["cup"], 0, 3, image_id) for image_id in range(2000)]
    assert 0.45 < sum(drawn) / 2000 < 0.55
    assert drawn == [is_flipped(Flip.swap, ["cup"], 0, 3, image_id) for image_id in range(2000)]
    assert drawn != [is_flipped(Flip.swap, ["cup"], 0, 4, image_id) for image_id in range(2000)]


def test_batches(tmp_path: Path) -> None:
    small = SmallSet({"train": 12, "val": 1})
    for ref in small.refs:
        for sentence in ref["sentences"]:
            sentence["sent"] = f"{sentence['sent']}on the left"
    root = small.write(tmp_path)
    plain = list(ready(root, batch_size=2).train_dataloader())
    swapped = list(ready(root, transform=text_safe_flip(Flip.swap), batch_size=2).train_dataloader())
    kinds = set()
    for one, other in zip(plain, swapped, strict=True):
        assert one.sent_ids == other.sent_ids
        for n, line in enumerate(one.image_index.tolist()):
            flipped = other.texts[n].endswith("on the right")
            kinds.add(flipped)
            assert other.texts[n] == (mirrored(one.texts[n]) if flipped else one.texts[n])
            for ours, theirs in ((one.images[line], other.images[line]), (one.masks[n], other.masks[n])):
                assert torch.equal(theirs, ours.flip(-1) if flipped else ours)
    assert kinds == {True, False}
    refused = list(ready(root, transform=text_safe_flip(Flip.refuse), batch_size=2).train_dataloader())
    assert all(torch.equal(one.images, other.images) for one, other in zip(plain, refused, strict=True))
    (ours,), (theirs,) = (
        list(ready(root, transform=text_safe_flip(flip)).val_dataloader()) for flip in (Flip.none, Flip.swap)
    )
    assert torch.equal(ours.images, theirs.images)
    assert ours.texts == theirs.texts
