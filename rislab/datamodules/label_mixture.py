"""Training on label maps of several benchmarks, each with its own class names; a batch is of one of them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rislab.data.batch import LabelMaps
from rislab.data.loader import ResumableLoader
from rislab.data.sampling import Plan, Row, parts_of
from rislab.datamodules.base import BenchmarkedData
from rislab.datamodules.label_maps import LabelMapBatches
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.errors import ConfigError, DataError


class LabelMixtureData(BenchmarkedData):
    """Label maps of several benchmarks below one root, and one benchmark for validation and test.

    Nothing is relabelled: each set keeps its vocabulary, mmsegmentation's names, so that a batch has the names of one set. The
    released demo model of LSeg was trained on seven sets with their own labels (issues 13 and 39 of isl-org/lang-seg); how its
    batches were drawn is not published.

    Args:
        benchmark_data: What the method is scored on. Its root holds all sets.
        sets: Names of benchmarks, as `SemanticData` knows them.
        shares: Of the batches of an epoch, one a set, in any unit; None: by their numbers of pictures, each picture once.
        train_split: Split of every set.
        batch_size: Pictures a training batch and process.
        num_workers: Loader processes.
        seed: Of the order of sets and pictures, and of the method's transform.

    Raises:
        ConfigError: No set, one twice, an unknown one, shares that are not one positive number a set, a batch of no picture.
    """

    gives: ClassVar[type[LabelMaps]] = LabelMaps
    root_option: ClassVar[str] = "benchmark_data.root"
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_mixture.label_mixture"
    neutral: ClassVar[tuple[str, ...]] = ("num_workers",)
    scored: SemanticData

    def __init__(
        self,
        benchmark_data: SemanticData,
        sets: list[str],
        shares: list[float] | None = None,
        train_split: str = "train",
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"data.init_args.batch_size is {batch_size}, expected 1 or more")
        twice = [name for number, name in enumerate(sets) if name in sets[:number]]
        if not sets or twice:
            raise ConfigError(f"data.init_args.sets: {f'{twice[0]} is there twice' if twice else 'names no set'}")
        if shares is not None and (len(shares) != len(sets) or min(shares) <= 0):
            raise ConfigError(f"data.init_args.shares is {shares}, expected {len(sets)} numbers above 0, one a set")
        self.scored, self.train_split, self.shares = benchmark_data, train_split, shares
        self.sets = [
            SemanticData(str(benchmark_data.root.absolute()), name, SemanticProtocol.tcl, benchmark_data.generate)
            for name in sets
        ]
        for each in self.sets:
            each.require_own_labels()
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.val_split = benchmark_data.val_split
        self._loader: ResumableLoader | None = None

    def facts(self) -> dict[str, Any]:
        return self.scored.facts() | {"train_split": self.train_split}

    def setup(self, stage: str) -> None:
        """Look at everything that the run will need, every set's training split among it."""
        super().setup(stage)
        if stage == "fit":
            for each in self.sets:
                each.items(self.train_split)

    def teardown(self, stage: str) -> None:
        if self._loader is not None:
            self._loader.close()

    def train_dataloader(self) -> ResumableLoader:
        rank, world = self.rank_and_world_size
        together = self.batch_size * world
        transform = self.method.train_transform()
        datasets = [
            LabelMapBatches(each, each.items(self.train_split), self.geometry, transform, self.seed)
            for each in self.sets
        ]
        sizes = [len(dataset.items) for dataset in datasets]
        for each, size in zip(self.sets, sizes, strict=True):
            if size < together:
                raise DataError(
                    f"{size} pictures of {each.benchmark}, {self.train_split}, do not fill one batch of {self.batch_size} on "
                    f"each of {world} processes; lower data.batch_size"
                )
        counts = batches_of(sizes, together, self.shares)
        first = [0, *accumulate(sizes)]

        def plan(epoch: int) -> Plan:
            of_sets = [
                drawn(np.random.default_rng([self.seed, epoch, number]), size, count * together) + start
                for number, (size, count, start) in enumerate(zip(sizes, counts, first, strict=False))
            ]
            steps = [order[at : at + together] for order in of_sets for at in range(0, len(order), together)]
            turns = np.random.default_rng([self.seed, epoch]).permutation(len(steps))
            # In a step all processes see the same set.
            mine = [[Row(number, (), epoch) for number in steps[turn][rank::world].tolist()] for turn in turns]
            return parts_of(mine, self.parts)

        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._loader = ResumableLoader(
            MixtureBatches(datasets), plan, num_workers=self.num_workers, persistent=True, pin_memory=on_gpu
        )
        return self._loader


def batches_of(sizes: Sequence[int], together: int, shares: Sequence[float] | None) -> list[int]:
    """Batches of each set in an epoch, one at least.

    Args:
        sizes: Pictures of each set.
        together: Pictures a step, over all processes.
        shares: Of the batches; None: as many as each set fills.
    """
    whole = [size // together for size in sizes]
    if shares is None:
        return whole
    return [max(1, round(sum(whole) * share / sum(shares))) for share in shares]


def drawn(rng: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    """Numbers below `size`, int64 [count]: all of them in a new order, again and again, so that none comes much more often."""
    orders = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(orders)[:count]


class MixtureBatches(Dataset[LabelMaps]):
    """Batches of planned rows, whose image id is the number of an item, counted through the sets.

    Args:
        datasets: Of each set; a batch's rows are all of one.
    """

    def __init__(self, datasets: Sequence[LabelMapBatches]) -> None:
        self.datasets = datasets
        self.ends = list(accumulate(len(dataset.items) for dataset in datasets))

    def __getitem__(self, rows: list[Row]) -> LabelMaps:
        number = int(np.searchsorted(self.ends, rows[0].image_id, side="right"))
        start = self.ends[number] - len(self.datasets[number].items)
        batch = self.datasets[number][[replace(row, image_id=row.image_id - start) for row in rows]]
        return replace(batch, image_ids=[row.image_id for row in rows])
