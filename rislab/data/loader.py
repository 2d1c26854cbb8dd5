"""A loader that knows where it is: a run resumed in the middle of an epoch sees the very batches it would have seen."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from rislab.data.batch import Batch
from rislab.data.sampling import Planner, Row


class _Plans(Sampler[list[Row]]):
    """Hands out one epoch's batches, from `start` on."""

    def __init__(self, plan: Planner) -> None:
        self.plan = plan
        self.epoch = 0
        self.start = 0
        self._length = len(plan(0))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Row]]:
        return iter(self.plan(self.epoch)[self.start :])


class ResumableLoader(DataLoader[Batch]):
    """Batches of a plan that depends on the epoch; Lightning stores its position in the checkpoint.

    The position counts batches that were handed out, not those that workers have prepared ahead.

    plan: epoch -> batches of rows, of the same length for every epoch.
    """

    def __init__(self, dataset: Dataset[Batch], plan: Planner, **options: Any) -> None:
        self._plans = _Plans(plan)
        self._given = 0
        super().__init__(dataset, sampler=self._plans, batch_size=None, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is all that anyone asks for
        # A trainer stops by length and may never run what follows the last yield: an epoch that was given out whole is
        # recognised here, when the next one begins.
        if self._given >= len(self._plans):
            self._plans.epoch += 1
            self._given = 0
        self._plans.start = self._given
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._plans.epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._plans.epoch = state["epoch"]
        self._given = state["given"]
