"""Training on image-text pairs, scored on a benchmark of label maps."""

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.data.batch import Captions
from rislab.data.pair_batches import SPARE, Pairs, PairsLoader, epoch_order
from rislab.data.shards import Shards
from rislab.datamodules.base import BenchmarkedData
from rislab.datamodules.semantic import SemanticData
from rislab.errors import ConfigError, DataError
from rislab.paths import user_path


class PairsData(BenchmarkedData):
    """Image-text pairs for training, a benchmark for validation and test.

    Args:
        shards: tar files, with braces for numbers: `cc3m/gcc-train-{000000..000347}.tar`. Those that are missing are reported;
            relative ones lie below the benchmark's root where that is generated.
        benchmark_data: what the method is scored on.
        batch_size: pairs a training batch and process.
        num_workers: loader processes.
        seed: of order and of the transform.
        at_once: shards that an epoch's order mixes, for disks that do not like to be read everywhere; None: all.
    """

    gives: ClassVar[type[Captions]] = Captions
    root_option: ClassVar[str] = "benchmark_data.root"
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_files.pairs"
    below_root: ClassVar[tuple[str, ...]] = ("shards",)
    neutral: ClassVar[tuple[str, ...]] = ("num_workers",)
    scored: SemanticData

    def __init__(
        self,
        shards: list[str],
        benchmark_data: SemanticData,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("at_once", 1 if at_once is None else at_once)):
            if value < 1:
                raise ConfigError(f"data.init_args.{name} is {value}, expected 1 or more")
        self.patterns, self.scored = shards, benchmark_data
        self.batch_size, self.num_workers, self.seed, self.at_once = (
            batch_size,
            num_workers,
            seed,
            at_once,
        )
        self.val_split = benchmark_data.val_split
        self._shards: Shards | None = None
        self._loader: PairsLoader | None = None

    @property
    def shards(self) -> Shards:
        """Indexed on first use."""
        if self._shards is None:
            generated = self.scored.generate is not None
            self._shards = Shards(
                [
                    str(self.scored.root / p) if generated and not user_path(p).is_absolute() else p
                    for p in self.patterns
                ]
            )
        return self._shards

    def facts(self) -> dict[str, Any]:
        seen = dict(self._loader.skipped) if self._loader is not None else {}
        return self.scored.facts() | {"pairs": len(self.shards), "skipped": dict(self.shards.skipped) | seen}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            if self.shards.missing:
                there, first = len(self.shards.paths), self.shards.missing[0]
                warnings.warn(
                    f"{len(self.shards.missing)} shards are missing ({there} are there), the first: {first}",
                    stacklevel=2,
                )
            if self.shards.skipped:
                warnings.warn(f"shards hold members that are no pair: {self.shards.skipped_text()}", stacklevel=2)
            if len(self.shards) < self._step:
                raise DataError(
                    f"{len(self.shards)} pairs are fewer than one step needs ({self._step}, spare ones included)"
                )

    @property
    def _step(self) -> int:
        """Pairs that one step of all processes takes."""
        return (self.batch_size + SPARE) * self.rank_and_world_size[1]

    def teardown(self, stage: str) -> None:
        if self._loader is not None:
            self._loader.close()

    def train_dataloader(self) -> PairsLoader:
        shards, (rank, world) = self.shards, self.rank_and_world_size
        steps = len(shards) // self._step

        def plan(epoch: int) -> list[NDArray[np.int64]]:
            order = epoch_order(shards.shard, [self.seed, epoch], self.at_once)
            each = order[: steps * self._step].reshape(steps, world, self.batch_size + SPARE)[:, rank]
            return list(np.column_stack([np.full(steps, epoch), each]))

        dataset = Pairs(shards, self.batch_size, self.geometry, self.method.train_transform(), self.seed)
        self._loader = PairsLoader(
            dataset, plan, num_workers=self.num_workers, persistent=True, pin_memory=self.is_on_gpu
        )
        return self._loader
