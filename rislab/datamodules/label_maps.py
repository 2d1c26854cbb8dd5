"""Training on label maps with one vocabulary, scored on the same benchmark."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from rislab.data import decoding
from rislab.data.batch import IGNORED, LabelledPictures, LabelMaps
from rislab.data.benchmark_trees import Item, Tree, read_picture
from rislab.data.geometry import Geometry, InverseGeometry
from rislab.data.loader import ResumableLoader
from rislab.data.sampling import Row
from rislab.data.stage_outputs import Outputs
from rislab.data.transforms import Sample, Transform
from rislab.datamodules.base import BenchmarkedData
from rislab.datamodules.semantic import SemanticData
from rislab.datamodules.shuffled import ShuffledPictures
from rislab.errors import ConfigError, DataError
from rislab.paths import contents, user_path


class LabelMapsData(BenchmarkedData, ShuffledPictures):
    """Label maps of a benchmark's training split, and the benchmark itself for validation and test.

    Args:
        benchmark_data: what is read, and what the method is scored on.
        train_split: split of the benchmark that training reads.
        batch_size: pictures a training batch and process.
        num_workers: loader processes.
        seed: of the order of pictures and of the method's transform.
        labels_from: outputs of an earlier stage, which stand in for the label maps of the training split: `N.png`, labels of
            picture number N of the split, of its size.

    Raises:
        ConfigError: A batch of no picture.
    """

    gives: ClassVar[type[LabelMaps]] = LabelMaps
    root_option: ClassVar[str] = "benchmark_data.root"
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_files.label_maps"
    neutral: ClassVar[tuple[str, ...]] = ("num_workers",)
    from_stage: ClassVar[str] = "labels_from"
    absent_means: ClassVar[dict[str, Any]] = {"labels_from": None}
    scored: SemanticData

    def __init__(
        self,
        benchmark_data: SemanticData,
        train_split: str = "train",
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        labels_from: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"data.init_args.batch_size is {batch_size}, expected 1 or more")
        benchmark_data.require_own_labels()
        self.scored, self.train_split = benchmark_data, train_split
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.val_split = benchmark_data.val_split
        self.stage_outputs = Outputs(user_path(labels_from)) if labels_from is not None else None

    def facts(self) -> dict[str, Any]:
        return self.scored.facts() | {"train_split": self.train_split}

    def setup(self, stage: str) -> None:
        """Look at everything that the run will need, the training split among it."""
        super().setup(stage)
        if stage == "fit":
            if self.stage_outputs is not None:
                self.stage_outputs.require()
            found, published = len(self._items()), self.scored.of.counts.get(self.train_split)
            if published is not None and found != published and self.scored.generate is None:
                warnings.warn(
                    f"{self.benchmark}, {self.train_split}: {found} pictures, published: {published}", stacklevel=2
                )

    def _items(self) -> list[Item]:
        """Pictures of the training split. Raises DataError where a file that is read is not there."""
        if self.stage_outputs is None:
            return self.scored.items(self.train_split)
        found = Tree(self.scored.root, self.scored.of).listed(self.train_split)
        missing = [item.image for item in found if not item.image.is_file()]
        missing += [path for n in range(len(found)) if not (path := self.stage_outputs.path(f"{n}.png")).is_file()]
        if missing:
            raise DataError(
                f"{self.benchmark}, {self.train_split}: {len(missing)} files are missing, the first is {missing[0]}"
            )
        return found

    def train_dataloader(self) -> ResumableLoader:
        items = self._items()
        dataset = LabelMapBatches(
            self.scored, items, self.geometry, self.method.train_transform(), self.seed, self.stage_outputs
        )
        return self.shuffled(dataset, len(items))

    def predict_dataloader(self) -> "DataLoader[LabelledPictures]":
        """Pictures of the training split as evaluation shows them: what a stage makes files of."""
        return self.scored.pictures_of(self.train_split)


class LabelMapBatches(Dataset[LabelMaps]):
    """Batches of planned rows, whose image id is the number of an item.

    Args:
        data: benchmark that the items belong to.
        items: pictures with their label maps.
        geometry: the network's frame.
        transform: of the method; None puts pictures into the frame as evaluation does.
        seed: of the transform's draws.
        outputs: label maps that an earlier stage has made; None: those of the benchmark.
    """

    def __init__(
        self,
        data: SemanticData,
        items: Sequence[Item],
        geometry: Geometry,
        transform: Transform | None,
        seed: int,
        outputs: Outputs | None = None,
    ) -> None:
        self.tree, self.items = Tree(data.root, data.of), items
        self.names, self.has_background, self.classes = data.names, data.of.has_background, len(data.classes)
        self.geometry, self.transform, self.seed = geometry, transform, seed
        self.outputs = outputs

    def __getitem__(self, rows: list[Row]) -> LabelMaps:
        samples = [self._sample(row) for row in rows]
        pictures = np.stack([sample.picture for sample in samples]).transpose(0, 3, 1, 2)
        return LabelMaps(
            images=torch.from_numpy(np.ascontiguousarray(pictures)),
            image_ids=[row.image_id for row in rows],
            placements=[self.geometry.place(*self.geometry.size)] * len(rows),
            labels=torch.from_numpy(np.ascontiguousarray(np.stack([sample.masks[0] for sample in samples]))),
            names=self.names,
            has_background=self.has_background,
        )

    def _sample(self, row: Row) -> Sample:
        item = self.items[row.image_id]
        if self.outputs is not None:
            picture = read_picture(item.image)
            label = self._made(row.image_id, picture.shape[:2])
        else:
            picture, label = self.tree.sample(item, self.classes)
        key = (self.seed, row.epoch, row.image_id)
        if self.transform is not None and not self.transform.in_frame:
            return self.transform(Sample(picture, label[None]), key)
        placement = self.geometry.place(*label.shape)
        sample = Sample(self.geometry.image(picture, placement), placed_labels(label, placement)[None])
        return sample if self.transform is None else self.transform(sample, key)

    def _made(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The label map that the earlier stage has made of a picture, uint8 [h, w].

        Raises:
            DataError: It is not there, has another size, or holds a value that is no label.
        """
        assert self.outputs is not None
        path = self.outputs.path(f"{number}.png")
        label = decoding.label_map(contents(path), str(path))
        if label.shape != shape:
            raise DataError(
                f"{path}: {label.shape[1]} x {label.shape[0]} pixels, its picture has {shape[1]} x {shape[0]}"
            )
        wrong = [value for value in np.unique(label).tolist() if value >= self.classes and value != IGNORED]
        if wrong:
            raise DataError(f"{path}: value {wrong[0]} is no label ({self.classes} classes)")
        return label


def placed_labels(label: NDArray[np.uint8], placement: InverseGeometry) -> NDArray[np.uint8]:
    """A label map [h, w] in the network's frame: the nearest pixel's label, and 255 where the picture does not reach."""
    height, width = placement.input_size
    return np.asarray(
        cv2.warpAffine(
            label,
            placement.matrix,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE if placement.is_stretched else cv2.BORDER_CONSTANT,
            borderValue=float(IGNORED),
        ),
        np.uint8,
    )
