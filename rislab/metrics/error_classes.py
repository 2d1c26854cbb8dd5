"""In which way a mask is wrong: one class of error a mask, from its pixels alone. docs/conventions.md defines the classes."""

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
ErrorClass = Literal["right", "outline", "part", "extra object", "wrong object", "nothing"]
CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)

RIGHT = 0.8
"""IoU from which a mask counts as right."""
FOUND = 0.25
"""Share of the target that must be covered for its object to count as found."""
ON_TARGET = 0.5
"""Share of a mask that must lie on the target for its object to count as found, where less than `FOUND` is covered."""
BAND = 0.1
"""Width of the band along an outline within which pixels are the outline's, over the square root of the target's area."""
LARGE = 0.25
"""Share of the target's area from which pixels outside of the band are a part that is missing, or an extra object."""


def error_class(prediction: Mask, target: Mask) -> ErrorClass:
    """The class of one mask.

    Args:
        prediction: bool [h, w].
        target: bool [h, w]; empty for an expression that means nothing.
    """
    of_target, of_prediction = int(np.count_nonzero(target)), int(np.count_nonzero(prediction))
    if not of_target:
        return "extra object" if of_prediction else "right"
    if not of_prediction:
        return "nothing"
    both = int(np.count_nonzero(prediction & target))
    if both >= RIGHT * (of_target + of_prediction - both):
        return "right"
    if both < FOUND * of_target and both < ON_TARGET * of_prediction:
        return "wrong object"
    width = max(1, round(BAND * of_target**0.5))
    if _outside(prediction, target, width) >= LARGE * of_target:
        return "extra object"
    if _outside(target, prediction, width) >= LARGE * of_target:
        return "part"
    return "outline"


def _outside(mask: Mask, other: Mask, width: int) -> int:
    """Pixels of a mask that lie further than `width` pixels from another one."""
    if np.count_nonzero(mask & ~other) == 0:
        return 0
    rows, columns = (np.flatnonzero((mask | other).any(axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # the rest of the picture is empty
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    wide = cv2.dilate(other[window].astype(np.uint8), disc)
    return int(np.count_nonzero(mask[window] & (wide == 0)))
