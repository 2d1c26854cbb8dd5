"""The official evaluation conventions, as named objects.

The same prediction gets different numbers in different papers. A convention says how logits return to the original
size, what counts as foreground, and how an expression is scored; it is named in the config and printed beside every
number.
"""

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


class Undo(typing.Protocol):
    """What a convention needs to know of `rislab.data.geometry.Placement`."""

    @property
    def input_size(self) -> tuple[int, int]: ...

    def undo(self, probability: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Convention:
    """How one official code base scores a prediction.

    title: what a report prints.
    text_field: which text of the annotation file is read, the cleaned `sent` or the typed `raw`.
    threshold: a pixel is foreground when its probability is strictly greater.
    iou_eps: added to the union.
    strict_precision: Pr@X counts IoU > X (strict) or IoU >= X.
    source: where the convention was read.
    """

    title: str
    text_field: Literal["sent", "raw"]
    threshold: float
    iou_eps: float
    strict_precision: bool
    source: str

    def input_probabilities(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask logits [N, h, w] -> probabilities float32 [N, H, W] at network input size.

        Sigmoid first, then bicubic with aligned corners: the other order changes Pr@90 (CRIS `engine.inference`).
        Always in float32: autocast would move pixels that lie near the threshold.
        """
        probabilities = torch.sigmoid(logits.float())[:, None]
        if probabilities.shape[-2:] != size:
            probabilities = F.interpolate(probabilities, size, mode="bicubic", align_corners=True)
        return probabilities[:, 0]

    def prediction(self, probability: NDArray[np.float32], placement: Undo) -> NDArray[np.bool_]:
        """Probability [H, W] at network input size -> foreground bool [h, w] at the original size."""
        return placement.undo(probability) > self.threshold

    def predictions(self, logits: Tensor, placements: Sequence[Undo]) -> list[NDArray[np.bool_]]:
        """Mask logits [N, h, w] and one placement a query -> N masks at their original sizes."""
        if not placements:
            return []
        probabilities = self.input_probabilities(logits, placements[0].input_size).cpu().numpy()
        return [self.prediction(p, where) for p, where in zip(probabilities, placements, strict=True)]


class Protocol(Enum):
    """The conventions by the name that a config gives: ``protocol: cris``."""

    cris = Convention(
        title="CRIS: letterbox undone, original size, p > 0.35, mean IoU over all expressions",
        text_field="sent",
        threshold=0.35,
        iou_eps=1e-6,
        strict_precision=True,
        source="DerrickWang005/CRIS.pytorch, engine/engine.py (inference), utils/dataset.py",
    )

    @property
    def convention(self) -> Convention:
        return self.value
