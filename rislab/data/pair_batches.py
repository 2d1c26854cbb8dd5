"""Batches of image-text pairs, and the loader that counts what it had to skip."""

import signal
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from rislab.data.batch import Captions
from rislab.data.geometry import Geometry
from rislab.data.loader import ResumableLoader
from rislab.data.shards import Shards
from rislab.data.transforms import Sample, Transform
from rislab.errors import DataError

SPARE = 2
"""Pairs that stand ready for each batch, in the place of those that turn out to be unreadable."""


class Pairs(Dataset[Captions]):
    """Batches of a plan; a row is the numbers of a batch's pairs, the spare ones last.

    Args:
        shards: where pairs are read.
        batch_size: pairs a batch.
        geometry: the network's frame, which pictures are stretched to without a transform.
        transform: of the method, or None.
        seed: of the transform's draws.
    """

    def __init__(
        self, shards: Shards, batch_size: int, geometry: Geometry, transform: Transform | None, seed: int
    ) -> None:
        self.shards, self.batch_size, self.geometry = shards, batch_size, geometry
        self.transform, self.seed = transform, seed

    def __getitem__(self, row: NDArray[np.int64]) -> Captions:
        skipped: Counter[str] = Counter()
        images: list[NDArray[np.uint8]] = []
        texts: list[str] = []
        nouns: list[list[str]] = []
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
            shown, prompts = self._framed(picture, text, epoch, number)
            images.append(shown)
            texts.append(text)
            nouns.append(prompts)
            numbers.append(number)
        if not images:
            raise DataError(f"no pair of a whole batch can be read; the first is {self.shards.where(candidates[0])}")
        while len(images) < self.batch_size:  # more unreadable ones than spares: every process needs as many
            skipped["repeated"] += 1
            at = len(images) % len(numbers)
            images, texts, numbers = [*images, images[at]], [*texts, texts[at]], [*numbers, numbers[at]]
            nouns = [*nouns, nouns[at]]
        placements = [self.geometry.place(*self.geometry.size)] * len(images)
        return Captions(
            images=torch.from_numpy(np.stack(images)),
            image_ids=numbers,
            placements=placements,
            texts=texts,
            nouns=nouns if any(nouns) else None,
            skipped=dict(skipped),
        )

    def _framed(self, picture: Image.Image, text: str, epoch: int, number: int) -> tuple[NDArray[np.uint8], list[str]]:
        """uint8 [3, H, W], and the texts that a transform adds to the caption; drawn from (seed, epoch, number) alone."""
        height, width = self.geometry.size
        added: tuple[str, ...] = ()
        if self.transform is None:
            shown = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        else:
            sample = Sample(np.asarray(picture), np.empty((0, 0, 0), np.uint8), (text,))
            found = self.transform(sample, (self.seed, epoch, number))
            shown, added = found.picture, found.texts[1:]
        return np.ascontiguousarray(shown.transpose(2, 0, 1)), list(added)


class PairsLoader(ResumableLoader):
    """Counts what its batches had to skip. A loader process that dies is replaced, and its batches are made again.

    Attributes:
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

    def __iter__(self) -> Iterator[Captions]:
        lost = 0
        before = signal.getsignal(signal.SIGCHLD)
        while True:
            try:
                for batch in super().__iter__():
                    lost = 0
                    self._poll_only(before)
                    assert isinstance(batch, Captions)
                    self._count(batch.skipped)
                    yield batch
                return
            except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
                # A lost process is noticed by torch, or where a tensor is fetched that it still held; its own errors
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


def epoch_order(shard: NDArray[np.int32], key: list[int], at_once: int | None) -> NDArray[np.int64]:
    """A permutation of all pairs; with `at_once`, shards are shuffled first, then pairs among so many shards at a time."""
    rng = np.random.default_rng([*key, 5])
    if at_once is None:
        return rng.permutation(len(shard))
    group = rng.permutation(int(shard.max()) + 1)[shard] // at_once
    return np.lexsort((rng.random(len(shard)), group))
