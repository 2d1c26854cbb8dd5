"""Training on image-text pairs, scored on a benchmark of label maps."""

import signal
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rislab.data.batch import Batch
from rislab.data.evaluated import EvaluatedData
from rislab.data.geometry import Geometry
from rislab.data.loader import ResumableLoader
from rislab.data.semantic import LabelBatch, SemanticData
from rislab.data.shards import Shards
from rislab.errors import ConfigError, DataError
from rislab.paths import user_path

SPARE = 2
"""Pairs that stand ready for each batch, in the place of those that turn out to be unreadable."""

Augment = Literal["none", "official"]


@dataclass(frozen=True)
class PairBatch(Batch):
    """A batch of pairs: one text an image, no masks. skipped: why pairs were replaced, and how many."""

    skipped: dict[str, int] = field(default_factory=dict)


class Pairs(Dataset[PairBatch]):
    """Batches of a plan; a row is the numbers of a batch's pairs, the spare ones last."""

    def __init__(self, shards: Shards, batch_size: int, geometry: Geometry, augment: Augment, seed: int) -> None:
        self.shards, self.batch_size, self.geometry, self.augment, self.seed = (
            shards,
            batch_size,
            geometry,
            augment,
            seed,
        )

    def __getitem__(self, row: NDArray[np.int64]) -> PairBatch:
        skipped: Counter[str] = Counter()
        images: list[NDArray[np.uint8]] = []
        texts: list[str] = []
        numbers: list[int] = []
        epoch, *candidates = row.tolist()
        for number in candidates:
            if len(images) == self.batch_size:
                break
            try:
                picture, text = self.shards.pair(number)
            except DataError as error:
                skipped[str(error)] += 1
                continue
            images.append(self._seen(picture, epoch, number))
            texts.append(text)
            numbers.append(number)
        if not images:
            raise DataError(f"no pair of a whole batch can be read; the first is {self.shards.where(candidates[0])}")
        while len(images) < self.batch_size:  # more unreadable ones than spares: every process needs as many
            skipped["repeated"] += 1
            at = len(images) % len(numbers)
            images, texts, numbers = [*images, images[at]], [*texts, texts[at]], [*numbers, numbers[at]]
        places = [self.geometry.place(*self.geometry.size)] * len(images)
        return PairBatch(
            torch.from_numpy(np.stack(images)),
            texts,
            torch.arange(len(images)),
            None,
            None,
            places,
            numbers,
            numbers,
            numbers,
            [False] * len(images),
            dict(skipped),
        )

    def _seen(self, picture: Image.Image, epoch: int, number: int) -> NDArray[np.uint8]:
        """uint8 [3, H, W]; drawn from (seed, epoch, number) alone."""
        height, width = self.geometry.size
        if self.augment == "none":
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        else:
            from rislab.data.augment_pairs import official

            picture = official(picture, (height, width), [self.seed, epoch, number])
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


class PairsLoader(ResumableLoader):
    """Counts what its batches had to skip. A loader process that dies is replaced, and its batches are made again.

    skipped: so far, by reason; it is stored with the position, so that a resumed run counts what a whole one does.
    lost: loader processes replaced in this run. Each reason is warned of once.
    """

    RESTARTS = 5  # without a batch in between: then it is no accident

    def __init__(self, dataset: Pairs, plan: Any, **options: Any) -> None:
        super().__init__(dataset, plan, **options)
        self.skipped: Counter[str] = Counter()
        self.lost = 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "skipped": dict(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.skipped = Counter(state["skipped"])

    def __iter__(self) -> Iterator[Batch]:
        lost = 0
        before = signal.getsignal(signal.SIGCHLD)
        while True:
            try:
                for batch in super().__iter__():
                    lost = 0
                    self._poll_only(before)
                    assert isinstance(batch, PairBatch)
                    self._count(batch.skipped)
                    yield batch
                return
            except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
                # A lost process is noticed by torch, or by whoever fetches a tensor that it still held; its own errors
                # come "Caught ... in DataLoader worker process" and are no loss.
                is_loss = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
                lost += 1
                if not is_loss or str(error).startswith("Caught") or lost > self.RESTARTS:
                    raise
                self.close()
                self.lost += 1
                warnings.warn("a loader process was lost, and is replaced", stacklevel=2)
                if self.given >= len(self):
                    return

    @staticmethod
    def _poll_only(before: Any) -> None:
        """Take back torch's handler, which raises wherever a step happens to be; a loss is seen when the next batch is due."""
        is_torchs = getattr(signal.getsignal(signal.SIGCHLD), "__module__", "").startswith("torch.utils.data")
        if is_torchs and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)

    def _count(self, skipped: dict[str, int]) -> None:
        for reason in skipped:
            if reason not in self.skipped:
                warnings.warn(f"image-text pairs: {reason}; skipped, and counted from here on", stacklevel=3)
        self.skipped.update(skipped)


class PairsData(EvaluatedData):
    """Image-text pairs for training, a benchmark for validation and test.

    shards: tar files, with braces for numbers: `cc3m/gcc-train-{000000..000347}.tar`. Those that are missing are reported;
        relative ones lie below the benchmark's root where that is generated.
    benchmark_data: what the method is scored on.
    batch_size: pairs a training batch and process. augment: `official` as TCL trains: random crop, flip, RandAugment,
        erasing. num_workers: loader processes. seed: of order and augmentation.
    at_once: shards that an epoch's order mixes, for disks that do not like to be read everywhere; None: all.
    """

    root_option: ClassVar[str] = "benchmark_data.root"
    required_files: ClassVar[str] = "rislab.data.required_files.pairs"
    below_root: ClassVar[tuple[str, ...]] = ("shards",)
    neutral: ClassVar[tuple[str, ...]] = ("num_workers",)

    def __init__(
        self,
        shards: list[str],
        benchmark_data: SemanticData,
        batch_size: int = 64,
        augment: Augment = "official",
        num_workers: int = 0,
        seed: int = 0,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("at_once", 1 if at_once is None else at_once)):
            if value < 1:
                raise ConfigError(f"data.init_args.{name} is {value}, expected 1 or more")
        self.patterns, self.scored = shards, benchmark_data
        self.batch_size, self.augment, self.num_workers, self.seed, self.at_once = (
            batch_size,
            augment,
            num_workers,
            seed,
            at_once,
        )
        self.val_split = benchmark_data.val_split
        self._shards: Shards | None = None
        self._loader: PairsLoader | None = None

    @property
    def evaluated(self) -> EvaluatedData:
        return self.scored

    @property
    def benchmark(self) -> str:
        return self.scored.benchmark

    @property
    def protocol_name(self) -> str:
        return self.scored.protocol_name

    @property
    def averages(self) -> tuple[str, ...]:
        return self.scored.averages

    @property
    def test_splits(self) -> list[str]:
        return self.scored.test_splits

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

    def prepare_data(self) -> None:
        self.scored.prepare_data()

    def setup(self, stage: str) -> None:
        self.scored.trainer = self.trainer
        self.scored.setup(stage)
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
        return (self.batch_size + SPARE) * self.place[1]

    def teardown(self, stage: str) -> None:
        if self._loader is not None:
            self._loader.close()

    def train_dataloader(self) -> PairsLoader:
        shards, (rank, world) = self.shards, self.place
        steps = len(shards) // self._step

        def plan(epoch: int) -> list[NDArray[np.int64]]:
            order = epoch_order(shards.shard, [self.seed, epoch], self.at_once)
            each = order[: steps * self._step].reshape(steps, world, self.batch_size + SPARE)[:, rank]
            return list(np.column_stack([np.full(steps, epoch), each]))

        dataset = Pairs(shards, self.batch_size, self.geometry, self.augment, self.seed)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._loader = PairsLoader(dataset, plan, num_workers=self.num_workers, persistent=True, pin_memory=on_gpu)
        return self._loader

    def val_dataloader(self) -> "DataLoader[LabelBatch]":
        return self.scored.val_dataloader()

    def test_dataloader(self) -> "list[DataLoader[LabelBatch]]":
        return self.scored.test_dataloader()


def epoch_order(shard: NDArray[np.int32], key: list[int], at_once: int | None) -> NDArray[np.int64]:
    """A permutation of all pairs; with `at_once`, shards are shuffled first, then pairs among so many shards at a time."""
    rng = np.random.default_rng([*key, 5])
    if at_once is None:
        return rng.permutation(len(shard))
    group = rng.permutation(int(shard.max()) + 1)[shard] // at_once
    return np.lexsort((rng.random(len(shard)), group))
