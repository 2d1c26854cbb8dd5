"""The stateful shell around `rislab.metrics.classes`: one matrix, summed over processes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from rislab.metrics.classes import class_averages, confusion


class ClassScores(Metric):
    """The matrix of one split, int64, summed over processes: any order of pictures gives the same digits."""

    full_state_update = False
    matrix: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("matrix", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: NDArray[np.integer], label: NDArray[np.integer]) -> None:
        """Maps [h, w] at the picture's own size."""
        self.matrix += torch.from_numpy(confusion(prediction, label, self.classes)).to(self.matrix.device)

    def compute(self) -> dict[str, float]:
        return class_averages(self.matrix.cpu().numpy())
