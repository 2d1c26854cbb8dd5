"""From planned rows to a batch: decoded once, kept while there is capacity, copied into place."""

import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rislab.data import masks
from rislab.data.annotations import Reference
from rislab.data.batch import MaskQueries
from rislab.data.geometry import Geometry, InverseGeometry
from rislab.data.lmdb_layout import LmdbRefer
from rislab.data.masks import RLE
from rislab.data.pack import Pack
from rislab.data.refer import Refer
from rislab.data.sampling import Row
from rislab.data.transforms import Sample, Transform
from rislab.metrics.protocols import Convention


class ByteCache:
    """Arrays of one size, by number; those that have a place are kept for good.

    Samples come in random order, so throwing out the oldest would gain nothing: the first `capacity // size` numbers get a
    place, the others are made afresh each time. Forked workers share the memory; it is used up only as it fills.

    Args:
        count: arrays there could be.
        shape: of each, uint8.
        capacity: bytes.
    """

    def __init__(self, count: int, shape: tuple[int, ...], capacity: int) -> None:
        self.shape = shape
        self.places = min(count, max(0, capacity) // (math.prod(shape) + 1))
        self._open()

    def _open(self) -> None:
        # Anonymous memory and not /dev/shm, which containers keep small.
        memory = np.frombuffer(mmap.mmap(-1, max(1, self.size)), np.uint8)
        self._there = memory[: self.places]
        self._arrays = memory[self.places : self.size].reshape(self.places, *self.shape)

    @property
    def size(self) -> int:
        """Bytes, when full."""
        return self.places * (math.prod(self.shape) + 1)

    def copy_into(self, out: NDArray[np.uint8], number: int, make: Callable[[int], NDArray[np.uint8]]) -> None:
        """Write array `number` to `out`, made by `make(number)` if it is not here yet."""
        if number < self.places and self._there[number]:
            out[...] = self._arrays[number]
            return
        out[...] = make(number)
        if number < self.places:
            self._arrays[number] = out
            self._there[number] = 1  # last: another process must not find half an array

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "places": self.places}  # a spawned worker starts with an empty cache of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _spans(samples: Sequence[Sample]) -> list[tuple[int, int] | None] | None:
    """Of all texts of all samples; None where the method's transform draws none."""
    if any(sample.noun_spans is None for sample in samples):
        return None
    return [span for sample in samples for span in sample.noun_spans or ()]


class Queries(Dataset[MaskQueries]):
    """Turns planned rows into a batch. Targets are rasterised here, once, so that a bad annotation is found at once.

    Args:
        references: what the indices of the rows point into.
        convention: which text of an expression is the query, and what an evaluation's target is.
        training: with targets placed as the images are (`masks`), else with those that the convention scores (`targets`).
        capacity: bytes for decoded images and then masks.
        pack: where placed images and masks lie ready; images need no memory then.
    """

    def __init__(
        self,
        refer: Refer | LmdbRefer,
        references: Sequence[Reference],
        geometry: Geometry,
        convention: Convention,
        training: bool,
        capacity: int,
        pack: Pack | None = None,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        # Only what batches are made of: this object travels to worker processes, the whole annotation file need not.
        self.geometry, self.training = geometry, training
        self.transform, self.seed = transform, seed
        self.store = refer.store
        self.references = list(references)
        field = convention.text_field
        self.texts = [[str(getattr(e, field)) for e in reference.expressions] for reference in references]
        self.pack = pack
        if training and pack is not None and isinstance(refer, Refer):
            packed = pack.targets(refer)
            self.targets: list[RLE] = [packed[reference.ref_id] for reference in references]
        else:
            self.targets = [refer.target(reference, None if training else convention) for reference in references]
        self.records = [refer.images[image_id] for image_id in dict.fromkeys(r.image_id for r in references)]
        self.number = {record.image_id: number for number, record in enumerate(self.records)}
        self.images = ByteCache(len(self.records) if pack is None else 0, (3, *geometry.size), capacity)
        kept = len(self.references) if training and pack is None else 0
        self.masks = ByteCache(kept, geometry.size, capacity - self.images.size)
        self._placements: dict[tuple[int, int], InverseGeometry] = {}

    @property
    def size(self) -> int:
        """Bytes that the caches may take."""
        return self.images.size + self.masks.size

    def _placement(self, height: int, width: int) -> InverseGeometry:
        found = self._placements.get((height, width))
        if found is None:
            found = self._placements[height, width] = self.geometry.place(height, width)
        return found

    def _image(self, number: int) -> NDArray[np.uint8]:
        record = self.records[number]
        if self.pack is not None and record.image_id in self.pack:
            return self.pack.image(record.image_id)
        placement = self._placement(record.height, record.width)
        return self.geometry.image(self.store.read(record), placement).transpose(2, 0, 1)

    def _mask(self, at: int) -> NDArray[np.uint8]:
        target = masks.decode(self.targets[at])
        return self.geometry.mask_bytes(target, self._placement(*target.shape))

    def __getitem__(self, rows: list[Row]) -> MaskQueries:
        if self.transform is not None and not self.transform.in_frame:
            samples = [self.transform(self._original(row), self._key(row)) for row in rows]
        else:
            samples = self._framed(rows)
            if self.transform is not None:
                samples = [self.transform(sample, self._key(row)) for sample, row in zip(samples, rows, strict=True)]
        pictures = np.stack([sample.picture for sample in samples]).transpose(0, 3, 1, 2)
        records = [self.records[self.number[row.image_id]] for row in rows]
        queries = [pair for row in rows for pair in row.queries]
        return MaskQueries(
            images=torch.from_numpy(np.ascontiguousarray(pictures)),
            image_ids=[row.image_id for row in rows],
            placements=[self._placement(record.height, record.width) for record in records],
            texts=[text for sample in samples for text in sample.texts],
            image_index=torch.tensor([line for line, row in enumerate(rows) for _ in row.queries], dtype=torch.int64),
            mask_bytes=torch.from_numpy(np.concatenate([sample.masks for sample in samples]))
            if self.training
            else None,
            targets=None if self.training else [self.targets[at] for at, _ in queries],
            ref_ids=[self.references[at].ref_id for at, _ in queries],
            sent_ids=[self.references[at].expressions[sentence].sent_id for at, sentence in queries],
            no_target=[not self.references[at].ann_ids for at, _ in queries],
            noun_spans=_spans(samples),
        )

    def _key(self, row: Row) -> tuple[int, int, int]:
        return self.seed, row.epoch, row.image_id

    def _texts(self, row: Row) -> tuple[str, ...]:
        return tuple(self.texts[at][sentence] for at, sentence in row.queries)

    def _framed(self, rows: list[Row]) -> list[Sample]:
        """Samples in the network's frame, from the cache or the pack where they are there; masks in training only."""
        images = np.empty((len(rows), 3, *self.geometry.size), np.uint8)
        for out, row in zip(images, rows, strict=True):
            self.images.copy_into(out, self.number[row.image_id], self._image)
        samples = []
        for image, row in zip(images, rows, strict=True):
            placed = np.empty((len(row.queries) if self.training else 0, *self.geometry.size), np.uint8)
            for out, (at, _) in zip(placed, row.queries, strict=False):
                if self.pack is None:
                    self.masks.copy_into(out, at, self._mask)
                else:
                    self.pack.mask_into(out, self.references[at].ref_id)
            samples.append(Sample(image.transpose(1, 2, 0), placed, self._texts(row)))
        return samples

    def _original(self, row: Row) -> Sample:
        """A picture and its masks as files hold them."""
        picture = self.store.read(self.records[self.number[row.image_id]])
        targets = [masks.decode(self.targets[at]) * np.uint8(255) for at, _ in row.queries]
        return Sample(picture, np.stack(targets), self._texts(row))
