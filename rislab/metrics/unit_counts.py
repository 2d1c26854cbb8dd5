"""The stateful shell around counts: rows of all processes, gathered once."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


class UnitCounts(Metric):
    """Integer counts of one split, a row a unit.

    The state is integers only, gathered whole, sorted by the key, each key once: any number of processes and any order of
    batches give the same digits.

    Args:
        columns: names of a row's values.
        key: columns that tell units apart. Padding of ranks repeats a key; a unit that a protocol repeats has several.
    """

    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(self, columns: Sequence[str], key: Sequence[str]) -> None:
        super().__init__()
        self.columns, self.key = tuple(columns), [tuple(columns).index(name) for name in key]
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, rows: NDArray[np.int64] | Sequence[Sequence[int]]) -> None:
        """Take rows [R, columns]; R may be 0."""
        assert isinstance(self.rows, list)
        values = np.asarray(rows, np.int64).reshape(-1, len(self.columns))
        self.rows.append(torch.from_numpy(values).to(self.device))

    def compute(self) -> dict[str, NDArray[np.int64]]:
        """The columns, each int64 [N], of the units of all processes."""
        parts = self.rows if isinstance(self.rows, list) else [self.rows]
        everything = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, len(self.columns)), np.int64)
        everything = everything[np.lexsort([everything[:, at] for at in reversed(self.key)])]
        keys = everything[:, self.key]
        is_first = np.ones(len(keys), np.bool_)
        is_first[1:] = (keys[1:] != keys[:-1]).any(1)
        return dict(zip(self.columns, np.ascontiguousarray(everything[is_first].T), strict=True))
