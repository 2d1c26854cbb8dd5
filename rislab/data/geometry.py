"""How an image gets into a network and a mask gets back: geometry that is undone exactly, so it is our own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIP_FILL = (123, 117, 104)  # CLIP's mean colour * 255 as uint8: the border is about zero after normalisation


@dataclass(frozen=True)
class InverseGeometry:
    """Where an image lies in the network's frame.

    Attributes:
        matrix: float64 [2, 3], original (x, y) -> network (x, y).
        original_size, input_size: (height, width) in pixels.
        is_stretched: the picture fills the frame; otherwise there is a border around it.
    """

    matrix: NDArray[np.float64]
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    is_stretched: bool = False

    @property
    def inverse(self) -> NDArray[np.float64]:
        """float64 [2, 3], network (x, y) -> original (x, y)."""
        return np.asarray(cv2.invertAffineTransform(self.matrix))

    def undo(self, probability: NDArray[np.float32], cubic: bool = True) -> NDArray[np.float32]:
        """Map a probability map from network size [H, W] to the original size [h, w].

        Outside the frame lies 0, or what lies at its edge when the picture was stretched over it.

        Args:
            cubic: overshoots, so that values may leave [0, 1] slightly, as in the evaluation of CRIS; otherwise bilinear.
        """
        if probability.shape != self.input_size:
            raise ValueError(f"expected a map of {self.input_size}, got {probability.shape}")
        height, width = self.original_size
        return np.asarray(
            cv2.warpAffine(
                probability,
                self.inverse,
                (width, height),
                flags=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE if self.is_stretched else cv2.BORDER_CONSTANT,
                borderValue=0.0,
            )
        )


class Geometry(ABC):
    """How a method wants its pictures, and training targets beside them.

    Attributes:
        size: (height, width) of the network's frame.
    """

    size: tuple[int, int]

    @abstractmethod
    def place(self, height: int, width: int) -> InverseGeometry:
        """The placement of an image of the given original size."""

    @abstractmethod
    def image(self, image: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3] -> uint8 RGB [H, W, 3]."""

    @abstractmethod
    def mask_bytes(self, mask: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
        """uint8 0/1 [h, w] -> uint8 0..255 [H, W]."""

    def mask(self, mask: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.float32]:
        """uint8 0/1 [h, w] -> float32 [H, W] in [0, 1]."""
        return self.mask_bytes(mask, placement).astype(np.float32) / 255.0


class Letterbox(Geometry):
    """Scale by min(H/h, W/w), centre, fill the border.

    Source: CRIS `utils/dataset.py` and `engine/engine.py`. Coordinates are corner-based: pixel (x, y) maps by the affine
    matrix itself, without the half-pixel shift of most resize functions. The picture's position in the frame is not
    rounded to whole pixels.

    Args:
        size: side of the square frame, or (height, width).
        fill: RGB of the border, 0..255.
    """

    def __init__(self, size: int | tuple[int, int], fill: tuple[int, int, int] = CLIP_FILL) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.fill = fill

    def place(self, height: int, width: int) -> InverseGeometry:
        """The three-corner form of the official code, with float32 corners, so that matrices agree to the last bit."""
        frame_height, frame_width = self.size
        scale = min(frame_height / height, frame_width / width)
        new_height, new_width = height * scale, width * scale
        bias_x, bias_y = (frame_width - new_width) / 2.0, (frame_height - new_height) / 2.0
        source = np.array([[0, 0], [width, 0], [0, height]], np.float32)
        target = np.array(
            [[bias_x, bias_y], [new_width + bias_x, bias_y], [bias_x, new_height + bias_y]],
            np.float32,
        )
        return InverseGeometry(np.asarray(cv2.getAffineTransform(source, target)), (height, width), self.size)

    def image(self, image: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
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

    def mask_bytes(self, mask: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
        """uint8 0/1 [h, w] -> uint8 0..255 [H, W], linear: soft edges are kept, as in training of CRIS.

        The official mask has 0 and 255 and is warped as uint8, so values are multiples of 1/255; we do the same.
        """
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


class Stretch(Geometry):
    """Stretch to the frame, whatever the aspect; nothing is added around it.

    Source: LAVT and DMMI `transforms.py`, ReLA: Pillow's antialiased bilinear filter for pictures, its nearest pixel for
    masks. OpenCV's filters of the same names are others.

    Args:
        size: side of the square frame, or (height, width).
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = (size, size) if isinstance(size, int) else size

    def place(self, height: int, width: int) -> InverseGeometry:
        """Pixel centres map to pixel centres: x' + 1/2 = (x + 1/2) W / w."""
        x, y = self.size[1] / width, self.size[0] / height
        matrix = np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])
        return InverseGeometry(matrix, (height, width), self.size, is_stretched=True)

    def image(self, image: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
        height, width = self.size
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def mask_bytes(self, mask: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
        """Hard edges: only 0 and 255 occur."""
        height, width = self.size
        return np.asarray(cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
