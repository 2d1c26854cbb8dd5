"""How an image gets into a network and a mask gets back: geometry that is undone exactly, so it is our own.

Source: CRIS `utils/dataset.py` and `engine/engine.py`. Coordinates are corner-based: pixel (x, y) maps by the affine
matrix itself, without the half-pixel shift of most resize functions. The picture's position in the frame is not rounded
to whole pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CLIP_FILL = (123, 117, 104)  # CLIP's mean colour * 255 as uint8: the border is about zero after normalisation


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the network's frame.

    matrix: float64 [2, 3], original (x, y) -> network (x, y).
    original_size, input_size: (height, width) in pixels.
    """

    matrix: NDArray[np.float64]
    original_size: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def inverse(self) -> NDArray[np.float64]:
        """float64 [2, 3], network (x, y) -> original (x, y)."""
        return np.asarray(cv2.invertAffineTransform(self.matrix))

    def undo(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map a probability map from network size [H, W] to the original size [h, w]: cubic, zero outside the frame.

        Cubic interpolation overshoots: values may leave [0, 1] slightly, as in the official evaluation.
        """
        if probability.shape != self.input_size:
            raise ValueError(f"expected a map of {self.input_size}, got {probability.shape}")
        height, width = self.original_size
        return np.asarray(
            cv2.warpAffine(
                probability,
                self.inverse,
                (width, height),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=0.0,
            )
        )


class Letterbox:
    """Scale by min(H/h, W/w), centre, fill the border (CRIS).

    size: side of the square frame, or (height, width).
    fill: RGB of the border, 0..255.
    """

    def __init__(self, size: int | tuple[int, int], fill: tuple[int, int, int] = CLIP_FILL) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.fill = fill

    def place(self, height: int, width: int) -> Placement:
        """The placement of an image of the given original size.

        The three-corner form of the official code, with float32 corners, so that matrices agree to the last bit.
        """
        frame_height, frame_width = self.size
        scale = min(frame_height / height, frame_width / width)
        new_height, new_width = height * scale, width * scale
        bias_x, bias_y = (frame_width - new_width) / 2.0, (frame_height - new_height) / 2.0
        source = np.array([[0, 0], [width, 0], [0, height]], np.float32)
        target = np.array(
            [[bias_x, bias_y], [new_width + bias_x, bias_y], [bias_x, new_height + bias_y]],
            np.float32,
        )
        return Placement(np.asarray(cv2.getAffineTransform(source, target)), (height, width), self.size)

    def image(self, image: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3] -> uint8 RGB [H, W, 3], cubic."""
        height, width = self.size
        return np.asarray(
            cv2.warpAffine(
                image,
                placement.matrix,
                (width, height),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self.fill,
            )
        )

    def mask_bytes(self, mask: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
        """uint8 0/1 [h, w] -> uint8 0..255 [H, W], linear: soft edges are kept, as in training of CRIS."""
        height, width = self.size
        return np.asarray(
            cv2.warpAffine(
                mask * np.uint8(255),
                placement.matrix,
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=0.0,
            )
        )

    def mask(self, mask: NDArray[np.uint8], placement: Placement) -> NDArray[np.float32]:
        """uint8 0/1 [h, w] -> float32 [H, W] in [0, 1].

        The official mask has 0 and 255 and is warped as uint8, so values are multiples of 1/255; we do the same.
        """
        return self.mask_bytes(mask, placement).astype(np.float32) / 255.0
