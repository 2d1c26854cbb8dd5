"""Loaders that follow a plan; the one for training knows where it is, so that a run can be resumed within an epoch."""

from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from rislab.data.batch import Images
from rislab.data.sampling import Plan, Planner, Row
from rislab.errors import ConfigError, RislabError


class PlannedLoader:
    """The batches of one plan, from the first, whenever it is iterated.

    It holds a DataLoader instead of being one, so that a Trainer can put no sampler of its own in the place of ours.

    Args:
        dataset: makes a batch of a planned one.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        persistent: keep the workers, and what they have in memory, from one iteration to the next.
        pin_memory: put batches where a GPU can fetch them by itself.
    """

    def __init__(
        self,
        dataset: Dataset[Images],
        plan: Plan,
        num_workers: int = 0,
        persistent: bool = False,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self._ahead = plan
        self._length = len(plan)
        self._options: dict[str, Any] = {
            "num_workers": num_workers,
            "persistent_workers": persistent and num_workers > 0,
            "pin_memory": pin_memory,
        }
        self._loader: DataLoader[Images | RislabError] | None = None

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._length

    def __iter__(self) -> Iterator[Images]:
        if self._loader is None:
            self._loader = DataLoader(
                _Guarded(self.dataset),
                sampler=_Ahead(self),
                batch_size=None,
                collate_fn=_as_is,
                worker_init_fn=_one_thread,
                generator=torch.Generator(),  # or every epoch would draw a number from the run's own stream
                **self._options,
            )
        for batch in self._loader:
            if isinstance(batch, RislabError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the worker processes; the next iteration starts new ones."""
        self._loader = None


class ResumableLoader(PlannedLoader):
    """One epoch of a plan an iteration, without end; Lightning stores its position in the checkpoint.

    The position counts batches that were handed out, not those that workers have prepared ahead, and it is its own: an
    iteration that stops early is gone on with by the next one, whatever a Trainer then calls the epoch. So a run that
    stops at any step and goes on sees what it would have seen.

    Args:
        plan: epoch -> batches of rows, of the same number for every epoch.
    """

    def __init__(self, dataset: Dataset[Images], plan: Planner, **options: Any) -> None:
        super().__init__(dataset, plan(0), **options)
        self.plan = plan
        self.epoch = self.given = 0

    def __iter__(self) -> Iterator[Images]:
        # A Trainer stops by length and may never run what follows the last yield: an epoch that was given out whole is
        # recognised here, when the next one begins.
        if self.given >= len(self):
            self.epoch, self.given = self.epoch + 1, 0
        self._ahead = self.plan(self.epoch)[self.given :]
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self.given, "of": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ConfigError when the position means other batches here than where it was stored."""
        given, length = state["given"], state["of"]
        if given < length != len(self):
            raise ConfigError(
                f"the checkpoint lies within an epoch of {length} batches, here an epoch has {len(self)}: "
                "data, batch size and number of devices must be those it was written with"
            )
        self.epoch, self.given = state["epoch"], len(self) if given >= length else given


class _Ahead:
    """The sampler of the inner loader, which lives on: what is ahead when an iteration begins."""

    def __init__(self, loader: PlannedLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader._ahead)

    def __iter__(self) -> Iterator[list[Row]]:
        return iter(self._loader._ahead)


class _Guarded(Dataset["Images | RislabError"]):
    """Returns an error for the user instead of raising it: a worker would wrap it into its own traceback."""

    def __init__(self, dataset: Dataset[Images]) -> None:
        self.dataset = dataset

    def __getitem__(self, rows: list[Row]) -> Images | RislabError:
        try:
            return self.dataset[rows]
        except RislabError as error:
            return error


def _as_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # one process is one thread; OpenCV would start one per core in every worker
