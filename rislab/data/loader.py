"""A loader that knows where it is: a run resumed in the middle of an epoch sees the very batches it would have seen."""

from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from rislab.data.batch import Batch
from rislab.data.sampling import Plan, Planner, Row
from rislab.errors import ConfigError, RislabError


class ResumableLoader:
    """Batches of a plan that depends on the epoch; Lightning stores its position in the checkpoint.

    The position counts batches that were handed out, not those that workers have prepared ahead. An epoch begins at its
    first batch whenever it is iterated, except right after `load_state_dict`, which may point into it.

    It holds a DataLoader instead of being one, so that a Trainer can put no sampler of its own in the place of ours.

    dataset: makes a batch of a planned one.
    plan: epoch -> batches of rows, of the same number for every epoch.
    num_workers: processes that prepare batches; 0 prepares them in this one.
    persistent: keep the workers, and what they have in memory, from epoch to epoch.
    pin_memory: put batches where a GPU can fetch them by itself.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        plan: Planner,
        num_workers: int = 0,
        persistent: bool = False,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.plan = dataset, plan
        self.epoch = self._given = self._start = 0
        self._length = len(plan(0))
        self._ahead: Plan = []
        self._options: dict[str, Any] = {
            "num_workers": num_workers,
            "persistent_workers": persistent and num_workers > 0,
            "pin_memory": pin_memory,
        }
        self._loader: DataLoader[Batch | RislabError] | None = None

    def __len__(self) -> int:
        """Batches of a whole epoch, also when a resumed one gives fewer."""
        return self._length

    @property
    def sampler(self) -> "ResumableLoader":
        """Lightning tells the epoch to whatever stands here, and asks it whether it shuffles."""
        return self

    batch_sampler = None

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self._given, self._start = epoch, 0, 0

    def __iter__(self) -> Iterator[Batch]:
        # Nothing is taken from _start here: a trainer may ask for an iterator only to see whether there is one.
        if self._loader is None:
            self._loader = DataLoader(
                _Guarded(self.dataset),
                sampler=_Live(self),
                batch_size=None,
                collate_fn=_as_is,
                worker_init_fn=_one_thread,
                generator=torch.Generator(),  # or each epoch would draw a number from the run's own stream
                **self._options,
            )
        return self._give(self._loader)

    def _give(self, loader: "DataLoader[Batch | RislabError]") -> Iterator[Batch]:
        self._ahead = self.plan(self.epoch)[self._start :]
        self._given = self._start
        for batch in loader:
            if isinstance(batch, RislabError):
                raise batch
            # A trainer stops by length and never runs what follows the last yield: everything is counted before.
            self._start = 0
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self._given, "of": self._length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ConfigError when the position means other batches here than where it was stored."""
        within = 0 < state["given"] < state["of"]
        if within and state["of"] != self._length:
            raise ConfigError(
                f"the checkpoint lies within an epoch of {state['of']} batches, here an epoch has {self._length}: "
                "data, batch size and number of devices must be those it was written with"
            )
        self.epoch = state["epoch"]
        self._given = self._start = self._length if state["given"] >= state["of"] else state["given"]

    def close(self) -> None:
        """End the worker processes; the next epoch starts new ones."""
        self._loader = None


class _Live:
    """The sampler of the inner loader: what is ahead at the moment when an epoch begins."""

    def __init__(self, loader: ResumableLoader) -> None:
        self._of = loader

    def __len__(self) -> int:
        return len(self._of._ahead)

    def __iter__(self) -> Iterator[list[Row]]:
        return iter(self._of._ahead)


class _Guarded(Dataset["Batch | RislabError"]):
    """Returns an error for the user instead of raising it: a worker would wrap it into its own traceback."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self.dataset = dataset

    def __getitem__(self, rows: list[Row]) -> Batch | RislabError:
        try:
            return self.dataset[rows]
        except RislabError as error:
            return error


def _as_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # one process is one thread; OpenCV would start one per core in every worker
