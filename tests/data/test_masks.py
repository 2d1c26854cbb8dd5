import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from rislab.data import masks
from rislab.errors import DataError
from tests.data.small import square

SIDES = st.integers(1, 12)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda size: arrays(np.bool_, size))
PAIRS = st.tuples(SIDES, SIDES).flatmap(lambda size: st.tuples(arrays(np.bool_, size), arrays(np.bool_, size)))


@given(MASKS)
def test_every_written_form_is_the_same_mask(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    text = json.loads(json.dumps(masks.to_json(rle)))
    column = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(column.astype(int))) + 1
    runs = np.diff([0, *changes, column.size]).tolist()
    plain = {"size": list(mask.shape), "counts": [0, *runs] if column[0] else runs}
    for form in (rle, text, plain, [rle], [text, text]):
        found = masks.from_segmentation(form, *mask.shape)
        np.testing.assert_array_equal(masks.decode(found), mask)
        assert masks.area(found) == mask.sum()


@given(PAIRS)
def test_parts_are_united_not_added(pair: tuple[np.ndarray, np.ndarray]) -> None:
    parts = [masks.encode(mask) for mask in pair]
    for order in (parts, parts[::-1], parts + parts):
        np.testing.assert_array_equal(masks.decode(masks.union(order, *pair[0].shape)), pair[0] | pair[1])


def test_a_polygon_given_twice_or_overlapping_keeps_its_pixels() -> None:
    once = masks.from_segmentation([square(2, 2, 6)], 20, 20)
    twice = masks.from_segmentation([square(2, 2, 6), square(2, 2, 6)], 20, 20)
    both = masks.from_segmentation([square(2, 2, 6), square(5, 5, 6)], 20, 20)
    assert masks.area(once) == masks.area(twice) == 36
    assert masks.area(both) == 36 + 36 - 9


@pytest.mark.parametrize("bad", [[1, 2, 3, 4], [1, 2], [], [1, 2, 3, 4, 5, 6, 7]])
def test_what_is_no_polygon_is_dropped_wherever_it_stands(bad: list[float]) -> None:
    good = square(2, 2, 6)
    for segmentation in ([bad, good], [good, bad]):
        assert masks.area(masks.from_segmentation(segmentation, 20, 20)) == 36
    assert masks.area(masks.from_segmentation([bad], 20, 20)) == 0


@given(st.lists(st.lists(st.floats(-60, 60), max_size=9), max_size=4))
def test_any_list_of_numbers_gives_a_mask_of_the_right_size(segmentation: list[list[float]]) -> None:
    assert masks.decode(masks.from_segmentation(segmentation, 13, 7)).shape == (13, 7)


@given(st.binary(max_size=12))
def test_compressed_counts_are_exact_or_refused(counts: bytes) -> None:
    """pycocotools itself returns uninitialised pixels for counts that end early."""
    try:
        rle = masks.from_segmentation({"size": [4, 5], "counts": counts}, 4, 5)
    except DataError:
        return
    again = coco_mask.encode(np.asfortranarray(masks.decode(rle)))
    assert masks.area(again) == masks.area(rle)
    np.testing.assert_array_equal(masks.decode(again), masks.decode(rle))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither polygons nor RLE"),
        ([1, 2, 3, 4, 5, 6], "mixes forms"),
        ([square(1, 1, 2), {"size": [4, 5], "counts": "0"}], "mixes forms"),
        ([[0, 0, 1, 0, 1, float("nan")]], "no pixel positions"),
        ([[0, 0, 1e9, 0, 1, 1]], "no pixel positions"),
        ([[0, 0, "a", 0, 1, 1]], "no flat list of numbers"),
        ({"size": [5, 4], "counts": [20]}, r"RLE of size \[5, 4\], image of \[4, 5\]"),
        ({"size": [4, 5], "counts": [3, 4]}, "do not add up to the 20 pixels"),
        ({"size": [4, 5], "counts": [30, -10]}, "do not add up to the 20 pixels"),
        ({"size": [4, 5], "counts": ""}, "damaged"),
        ({"size": [4, 5]}, "counts are NoneType"),
    ],
)
def test_the_rest_is_refused_with_a_reason(segmentation: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        masks.from_segmentation(segmentation, 4, 5)
