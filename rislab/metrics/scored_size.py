"""Masks at the size at which a convention compares them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.metrics.protocols import Convention


def at_scored_size(mask: NDArray[np.bool_], convention: Convention) -> NDArray[np.bool_]:
    """A mask of the original size [h, w] -> the mask that is compared.

    Stretched with the nearest pixel as Pillow picks it, which is what the official codes use: OpenCV's plain INTER_NEAREST
    picks others, and that alone costs a mask 1.4 points of IoU on average.
    """
    if convention.side is None:
        return mask
    pixels = cv2.resize(mask.view(np.uint8), (convention.side,) * 2, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(pixels.view(np.bool_))
