"""Referring segmentation as a LightningDataModule: REFER files in, images-and-queries batches out."""

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rislab.data import masks, sampling
from rislab.data.batch import Batch
from rislab.data.geometry import Letterbox
from rislab.data.loader import ResumableLoader
from rislab.data.refer import Refer, Reference, required_files
from rislab.data.toy.world import ToyWorld
from rislab.errors import DataError
from rislab.files import cache_dir
from rislab.metrics.protocols import Protocol

TITLES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
ORDER = ("val", "testA", "testB", "test")  # as papers print them


class _Cache:
    """Keeps what was decoded last, up to a number of bytes."""

    def __init__(self, megabytes: int) -> None:
        self.room = megabytes << 20
        self.held: OrderedDict[tuple[str, int], NDArray[np.uint8]] = OrderedDict()

    def get(self, key: tuple[str, int]) -> NDArray[np.uint8] | None:
        found = self.held.get(key)
        if found is not None:
            self.held.move_to_end(key)
        return found

    def put(self, key: tuple[str, int], value: NDArray[np.uint8]) -> None:
        self.held[key] = value
        self.room -= value.nbytes
        while self.room < 0 and self.held:
            self.room += self.held.popitem(last=False)[1].nbytes


class Queries(Dataset[Batch]):
    """Turns planned rows into a batch.

    training: with letterboxed targets (`masks`), else with targets at the original size (`targets`).
    """

    def __init__(
        self,
        refer: Refer,
        references: Sequence[Reference],
        geometry: Letterbox,
        protocol: Protocol,
        training: bool,
        cache_mb: int,
    ) -> None:
        self.refer, self.references, self.geometry = refer, references, geometry
        self.text_field = protocol.convention.text_field
        self.training = training
        self.cache = _Cache(cache_mb)

    def _image(self, image_id: int) -> NDArray[np.uint8]:
        """uint8 [3, H, W], letterboxed."""
        key = ("image", image_id)
        found = self.cache.get(key)
        if found is None:
            image = self.refer.image(image_id)
            placed = self.geometry.image(image, self.geometry.place(*image.shape[:2]))
            found = np.ascontiguousarray(placed.transpose(2, 0, 1))
            self.cache.put(key, found)
        return found

    def _mask(self, reference: Reference) -> NDArray[np.uint8]:
        """uint8 [H, W], letterboxed; 255 is foreground, edges are soft."""
        key = ("mask", reference.ref_id)
        found = self.cache.get(key)
        if found is None:
            target = masks.decode(self.refer.target(reference))
            placed = self.geometry.mask(target, self.geometry.place(*target.shape))
            found = np.round(placed * 255).astype(np.uint8)
            self.cache.put(key, found)
        return found

    def __getitem__(self, rows: list[sampling.Row]) -> Batch:
        index, texts, ref_ids, sent_ids = [], [], [], []
        placed, targets = [], []
        for number, row in enumerate(rows):
            for at, sentence in row.asked:
                reference = self.references[at]
                expression = reference.expressions[sentence]
                index.append(number)
                texts.append(str(getattr(expression, self.text_field)))
                ref_ids.append(reference.ref_id)
                sent_ids.append(expression.sent_id)
                if self.training:
                    placed.append(self._mask(reference))
                else:
                    targets.append(self.refer.target(reference))
        records = [self.refer.images[row.image_id] for row in rows]
        return Batch(
            images=torch.from_numpy(np.stack([self._image(row.image_id) for row in rows])),
            texts=texts,
            image_index=torch.tensor(index, dtype=torch.int64),
            masks=torch.from_numpy(np.stack(placed)).float().div_(255) if self.training else None,
            targets=None if self.training else targets,
            placements=[self.geometry.place(record.height, record.width) for record in records],
            image_ids=[row.image_id for row in rows],
            ref_ids=ref_ids,
            sent_ids=sent_ids,
        )


class ReferringData(L.LightningDataModule):
    """RefCOCO, RefCOCO+ or RefCOCOg in the REFER layout.

    root: folder that holds the data set's folder and the images. With `generate`, a relative root lies in the user's
        cache folder.
    dataset, split_by: which files, `ROOT/<dataset>/refs(<split_by>).p`.
    protocol: the evaluation convention; it also says which text of the file is read.
    generate: a world to write into `root` when it is not there.
    train_split, val_split: names in the file; test_splits: those to score at the end, None for all but training.
    batch_size: queries a training batch and process.
    references_per_image: how many references share one image of a batch; 1 as CRIS does, see `training_plan`.
    eval_images: images an evaluation batch; all their expressions come along.
    num_workers: loader processes.
    seed: of the order of samples and of the sentences drawn.
    cache_mb: memory for decoded images and masks, a process.
    shuffle_sentences: deal the sentences out to other references, in training and in evaluation: what a model scores
        then, it scores without language.
    limit_val_images: validate on the first so many images only; tests are always whole.
    """

    def __init__(
        self,
        root: str,
        dataset: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco",
        split_by: Literal["unc", "umd", "google"] = "unc",
        protocol: Protocol = Protocol.cris,
        generate: ToyWorld | None = None,
        train_split: str = "train",
        val_split: str = "val",
        test_splits: list[str] | None = None,
        batch_size: int = 8,
        references_per_image: int = 1,
        eval_images: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        cache_mb: int = 0,
        shuffle_sentences: bool = False,
        limit_val_images: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < references_per_image or references_per_image < 1:
            raise DataError(
                f"batch_size {batch_size} (queries) must hold references_per_image {references_per_image} (at least 1)"
            )
        self.root = cache_dir() / root if generate is not None else Path(root)
        self.dataset, self.split_by = dataset, split_by
        self.protocol = protocol
        self.generate = generate
        self.train_split, self.val_split, self._test_splits = train_split, val_split, test_splits
        self.batch_size, self.references_per_image, self.eval_images = batch_size, references_per_image, eval_images
        self.num_workers, self.seed, self.cache_mb = num_workers, seed, cache_mb
        self.shuffle_sentences, self.limit_val_images = shuffle_sentences, limit_val_images
        self._refer: Refer | None = None

    @property
    def benchmark(self) -> str:
        """What a report calls it."""
        name = f"{TITLES[self.dataset]} ({self.split_by})"
        return f"toy world, {name}-like" if self.generate is not None else name

    @property
    def refer(self) -> Refer:
        """The data set in memory, read on first use."""
        if self._refer is None:
            self._refer = Refer(self.root, self.dataset, self.split_by)
        return self._refer

    @property
    def test_splits(self) -> list[str]:
        if self._test_splits is not None:
            return self._test_splits
        there = [split for split in self.refer.splits if split != self.train_split]
        return sorted(there, key=lambda split: (ORDER.index(split) if split in ORDER else len(ORDER), split))

    def image_file(self, image_id: int) -> Path:
        return self.refer.image_file(image_id)

    def prepare_data(self) -> None:
        """Write the generated world, once, whoever asks first; say what is missing of a real data set."""
        if self.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                self.generate.write(self.root)
        elif not self.root.is_dir():
            wanted = "\n  ".join(str(path) for path in required_files(self.root, self.dataset, self.split_by))
            raise DataError(f"{self.root}: no such folder (data.init_args.root). Put there:\n  {wanted}")

    @property
    def _place(self) -> tuple[int, int]:
        """(rank, world size)."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    @property
    def _geometry(self) -> Letterbox:
        assert self.trainer is not None
        geometry: Letterbox = self.trainer.lightning_module.geometry
        return geometry

    def _references(self, split: str) -> list[Reference]:
        references = self.refer.split(split)
        return sampling.shuffled_sentences(references, self.seed) if self.shuffle_sentences else references

    def train_dataloader(self) -> ResumableLoader:
        references = self._references(self.train_split)
        usable = [ref for ref in references if masks.area(self.refer.target(ref))]
        if len(usable) < len(references):
            empty = len(references) - len(usable)
            warnings.warn(f"{empty} of {len(references)} training references have empty masks: left out", stacklevel=2)
        rank, world_size = self._place

        def plan(epoch: int) -> sampling.Plan:
            return sampling.training_plan(
                usable, self.batch_size, self.references_per_image, self.seed, epoch, rank, world_size
            )

        return self._loader(usable, plan, training=True)

    def _evaluation_loader(self, split: str, limit: int | None = None) -> ResumableLoader:
        references = self._references(split)
        if limit is not None:
            kept = set(list(dict.fromkeys(ref.image_id for ref in references))[:limit])
            references = [ref for ref in references if ref.image_id in kept]
        plan = sampling.evaluation_plan(references, self.eval_images, *self._place)
        return self._loader(references, lambda _: plan, training=False)

    def _loader(self, references: Sequence[Reference], plan: sampling.Planner, training: bool) -> ResumableLoader:
        data = Queries(self.refer, references, self._geometry, self.protocol, training, self.cache_mb)
        return ResumableLoader(
            data,
            plan,
            num_workers=self.num_workers,
            persistent_workers=training and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> ResumableLoader:
        return self._evaluation_loader(self.val_split, self.limit_val_images)

    def test_dataloader(self) -> list[ResumableLoader]:
        return [self._evaluation_loader(split) for split in self.test_splits]

    def predict_dataloader(self) -> list[ResumableLoader]:
        return self.test_dataloader()
