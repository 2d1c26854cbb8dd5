"""The square in the middle of a picture, as torchvision makes it of PIL pictures: Resize of the short side, then CenterCrop."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resampling = Literal["nearest", "bilinear", "bicubic"]
"""PIL's; all but `nearest` look at every pixel when they make a picture smaller."""
METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def square(picture: NDArray[np.uint8], side: int, resampling: Resampling) -> NDArray[np.uint8]:
    """The short side brought to `side`, then the square in the centre.

    Args:
        picture: uint8 RGB [h, w, 3], or a label map [h, w].
        side: In pixels.
        resampling: How pixels are made.

    Returns:
        uint8 [side, side, 3] or [side, side].
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    size = max(side, int(side * width / short)), max(side, int(side * height / short))
    large = np.asarray(Image.fromarray(picture).resize(size, METHODS[resampling]))
    top, left = round((size[1] - side) / 2.0), round((size[0] - side) / 2.0)
    return large[top : top + side, left : left + side].copy()
