"""Training on whole pictures in an order that is drawn anew in every epoch."""

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from rislab.data.loader import ResumableLoader
from rislab.data.sampling import Plan, Row, parts_of
from rislab.datamodules.base import EvaluatedData
from rislab.errors import DataError


class ShuffledPictures(EvaluatedData):
    """Data whose training batches are pictures of one split, each once an epoch; a last batch that is not full is left out.

    Attributes:
        train_split: Split that training reads.
        batch_size: Pictures a training batch and process.
        num_workers: Loader processes.
        seed: Of the order of pictures and of the method's transform.
    """

    train_split: str
    batch_size: int
    num_workers: int
    seed: int
    _loader: ResumableLoader | None = None

    def teardown(self, stage: str) -> None:
        if self._loader is not None:
            self._loader.close()

    def shuffled(self, dataset: "Dataset[Any]", count: int) -> ResumableLoader:
        """The training loader.

        Args:
            dataset: Gives the batch of a list of rows, whose image ids count from 0.
            count: Pictures.

        Raises:
            DataError: They do not fill a batch on every process.
        """
        rank, world = self.rank_and_world_size
        whole = count // (self.batch_size * world)
        if not whole:
            raise DataError(
                f"{count} pictures of {self.train_split} do not fill one batch of {self.batch_size} on each of {world} "
                "processes; lower data.batch_size"
            )

        def plan(epoch: int) -> Plan:
            order = np.random.default_rng([self.seed, epoch]).permutation(count)[: whole * self.batch_size * world]
            mine = [Row(number, (), epoch) for number in order[rank::world].tolist()]
            batches = [mine[at : at + self.batch_size] for at in range(0, len(mine), self.batch_size)]
            return parts_of(batches, self.parts)

        self._loader = ResumableLoader(
            dataset, plan, num_workers=self.num_workers, persistent=True, pin_memory=self.is_on_gpu
        )
        return self._loader
