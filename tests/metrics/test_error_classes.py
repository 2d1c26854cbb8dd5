"""Classes of errors on built masks: docs/conventions.md, "Classes of errors"."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.metrics.error_classes import CLASSES, RIGHT, error_class


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((100, 140), bool)
    mask[max(top, 0) : top + height, max(left, 0) : left + width] = True
    return mask


TARGET = rectangle(20, 20, 40, 40)
NONE = rectangle(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("expected", "mask"),
    [
        ("right", TARGET),
        ("right", rectangle(20, 20, 40, 44)),
        ("right", rectangle(20, 20, 40, 33)),
        ("outline", rectangle(16, 16, 48, 48)),
        ("outline", rectangle(24, 24, 32, 32)),
        ("outline", rectangle(25, 25, 40, 40)),
        ("part", rectangle(20, 20, 40, 20)),
        ("part", rectangle(30, 30, 6, 6)),
        ("part", rectangle(20, 20, 20, 20) | rectangle(40, 56, 20, 8)),
        ("extra object", TARGET | rectangle(20, 90, 40, 40)),
        ("extra object", rectangle(20, 20, 40, 80)),
        ("extra object", rectangle(20, 20, 40, 20) | rectangle(20, 90, 40, 40)),
        ("extra object", ~NONE),
        ("wrong object", rectangle(20, 90, 40, 40)),
        ("wrong object", rectangle(20, 90, 40, 40) | rectangle(20, 20, 10, 10)),
        ("wrong object", rectangle(80, 100, 1, 1)),
        ("nothing", NONE),
    ],
)
def test_built_masks(expected: str, mask: np.ndarray) -> None:
    assert error_class(mask, TARGET) == expected


def test_zero_targets() -> None:
    assert error_class(NONE, NONE) == "right"
    assert error_class(rectangle(3, 3, 1, 1), NONE) == "extra object"


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 90)] * 4), st.tuples(*[st.integers(1, 60)] * 4), st.integers(1, 3))
def test_every_mask_has_one_class_at_any_scale(places: tuple, sides: tuple, scale: int) -> None:
    """The class of large rectangles does not hang on the number of pixels that they are drawn with."""
    target, mask = rectangle(places[0], places[1], *sides[:2]), rectangle(places[2], places[3], *sides[2:])
    found = error_class(mask, target)
    assert found in CLASSES
    union, both = (mask | target).sum(), (mask & target).sum()
    assert (found == "right") == ((bool(union) and both >= RIGHT * union) or (not target.any() and not mask.any()))
    grown = [np.kron(each, np.ones((scale, scale), bool)).astype(bool) for each in (mask, target)]
    again = error_class(*grown)
    settled = {"right", "nothing", "wrong object"}
    assert (found in settled or again in settled) <= (found == again)


def test_where_in_the_picture_does_not_matter() -> None:
    for expected, left in (("wrong object", 45), ("outline", 5), ("right", 2)):
        shifted = rectangle(20, 20 + left, 40, 40)
        assert error_class(shifted, TARGET) == expected
        assert error_class(shifted[:, ::-1], TARGET[:, ::-1]) == expected
        assert error_class(shifted.T, TARGET.T) == expected
