"""The stateful shell around `rislab.metrics.referring`: counts of all processes, gathered once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from rislab.metrics.protocols import Convention
from rislab.metrics.referring import COLUMNS, Table, averages


class ReferringScores(Metric):
    """Per-expression pixel counts of one split.

    The state is integers only, gathered whole, and sorted and freed of duplicates by `sent_id` before anything is
    averaged: any number of processes and any order of batches give the same digits.
    """

    full_state_update = False

    def __init__(self, convention: Convention) -> None:
        super().__init__()
        self.convention = convention
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    rows: list[Tensor] | Tensor

    def update(self, rows: Sequence[Sequence[int]]) -> None:
        """rows: one a query, in the order of `COLUMNS`; areas in pixels of the scored size."""
        assert isinstance(self.rows, list)
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).view(-1, len(COLUMNS)))

    def table(self) -> Table:
        """Columns sorted by sent_id, each expression once."""
        parts = self.rows if isinstance(self.rows, list) else [self.rows]
        if not parts:
            return {name: np.zeros(0, np.int64) for name in COLUMNS}
        everything = torch.cat(parts).cpu().numpy()
        _, first = np.unique(everything[:, 0], return_index=True)
        return dict(zip(COLUMNS, np.ascontiguousarray(everything[first].T), strict=True))

    def compute(self) -> dict[str, Any]:
        """`averages` plus `expressions`, `zero_target` and `images` (how many), and the `table` itself.

        The table rides along because only inside `compute` are the rows of all processes at hand.
        """
        table = self.table()
        return {
            **averages(table, self.convention),
            "expressions": len(table["sent_id"]),
            "zero_target": int(table["no_target"].sum()),
            "images": len(np.unique(table["image_id"])),
            "table": table,
        }
