"""Training on image-level labels, scored by activation maps on the same benchmark."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from rislab.data.batch import IGNORED, ImageLabels, Viewing
from rislab.data.benchmark_trees import Item, Tree, benchmark, class_names, read_picture
from rislab.data.geometry import Geometry
from rislab.data.image_labels import Present, WeakPictures, from_npy, from_xml
from rislab.data.loader import ResumableLoader
from rislab.data.roots import data_root
from rislab.data.sampling import Row
from rislab.data.toy.image_labels import ToyImageLabels
from rislab.data.transforms import Sample, Transform
from rislab.datamodules.shuffled import ShuffledPictures
from rislab.errors import ConfigError, DataError
from rislab.evaluation.activation_maps import ActivationMapEvaluation, PseudoMaskEvaluation
from rislab.paths import user_path


class ImageLabelsData(ShuffledPictures):
    """Pictures of a VOC tree with the classes that they show; label maps are read where maps are scored, and nowhere else.

    Args:
        root: Folder that holds the benchmark's folder. With `generate`, a relative root lies in the user's cache folder.
        name: Benchmark with background, voc21 or toy_voc.
        labels: Where labels come from: None for the annotations of the tree, else a `cls_labels.npy`.
        generate: A world to write into `root` when it is not there.
        train_split: Pictures that are trained on.
        val_split: Pictures that are scored during training.
        limit_val_images: The first so many of these.
        test_splits: Scored at the end; None: `val_split` alone.
        threshold: Value of the background beside the maps that are scored, 0 to 1.
        sweep: Others that are tried; the best is reported beside it.
        scored_as: What of a method is scored: its activation maps, or the masks that it makes for a later stage.
        batch_size: Pictures a training batch and process.
        num_workers: Loader processes.
        seed: Of the order of pictures and of the method's transform.

    Raises:
        ConfigError: A batch of no picture, a benchmark without background, a threshold that is none.
    """

    gives: ClassVar[type[ImageLabels]] = ImageLabels
    root_option: ClassVar[str] = "root"
    below_root: ClassVar[tuple[str, ...]] = ("labels",)
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_files.benchmark"
    truth: ClassVar[str] = "rislab.data.truth.label_maps"
    neutral: ClassVar[tuple[str, ...]] = ("root", "num_workers")
    absent_means: ClassVar[dict[str, Any]] = {"scored_as": "activation_maps"}

    def __init__(
        self,
        root: str,
        name: str = "voc21",
        labels: str | None = None,
        generate: ToyImageLabels | None = None,
        train_split: str = "train_aug",
        val_split: str = "train",
        limit_val_images: int | None = None,
        test_splits: list[str] | None = None,
        threshold: float = 0.15,
        sweep: tuple[float, ...] = (
            0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
        ),
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        scored_as: Literal["activation_maps", "pseudo_masks"] = "activation_maps",
    ) -> None:  # fmt: skip
        super().__init__()
        for option, value in (("batch_size", batch_size), ("limit_val_images", limit_val_images)):
            if value is not None and value < 1:
                raise ConfigError(f"data.init_args.{option} is {value}, expected 1 or more")
        if not all(0 <= each < 1 for each in (threshold, *sweep)):
            raise ConfigError("data.init_args.threshold and sweep: expected numbers from 0 to 1, 1 excluded")
        self.of = benchmark(name)
        if not self.of.has_background:
            raise ConfigError(f"data.init_args.name {name!r} has no background, which activation maps are scored with")
        self.root = data_root(root, generate is not None)
        self.labels, self.generate = labels, generate
        self.train_split, self.val_split, self._test_splits = train_split, val_split, test_splits
        self.limit_val_images, self.threshold, self.sweep = limit_val_images, threshold, sweep
        self.batch_size, self.num_workers, self.seed, self.scored_as = batch_size, num_workers, seed, scored_as
        self.names = class_names(self.of.names, "mmseg")

    @property
    def benchmark(self) -> str:
        return f"toy world, {self.of.title}" if self.generate is not None else self.of.title

    @property
    def evaluation(self) -> ActivationMapEvaluation | PseudoMaskEvaluation:
        classes = ("background", *self.names)
        if self.scored_as == "pseudo_masks":
            # The Trainer gets its data after they have been looked at once.
            crf = getattr(self.method, "crf_title", "none") if self.trainer is not None else "none"
            return PseudoMaskEvaluation(classes, crf)
        return ActivationMapEvaluation(classes, self.threshold, self.sweep)

    @property
    def test_splits(self) -> list[str]:
        return [self.val_split] if self._test_splits is None else self._test_splits

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"train_split": self.train_split}

    def prepare_data(self) -> None:
        if self.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                self.generate.write(self.root)

    def tree(self) -> Tree:
        """The files."""
        return Tree(self.root, self.of)

    def present(self, items: Sequence[Item]) -> Present:
        """Labels of pictures, bool [N, K]. Raises DataError: a file that is missing or damaged, labels that name no class."""
        pictures = [item.name for item in items]
        if self.labels is None:
            found = from_xml(self.tree().folder, pictures, self.names)
        else:
            found = from_npy(user_path(self.labels), pictures, len(self.names))
        if len(items) and not found.any():
            raise DataError(
                f"{self.benchmark}: none of {len(items)} pictures has a label among {', '.join(self.names)}"
            )
        return found

    def setup(self, stage: str) -> None:
        """Look at everything that the run will need, and at no label map of the training split."""
        scored = self.test_splits if stage == "test" else [self.val_split, *self.test_splits]
        for split in dict.fromkeys(scored):
            self.present(self.tree().items(split))
        if stage == "fit":
            self._pictures(self.train_split)

    def _pictures(self, split: str) -> list[Item]:
        """Pictures of a split whose label maps need not be there. Raises DataError for those that are not there."""
        found = self.tree().listed(split)
        missing = [item.image for item in found if not item.image.is_file()]
        if missing:
            raise DataError(f"{self.benchmark}, {split}: {len(missing)} files are missing, the first is {missing[0]}")
        return found

    def train_dataloader(self) -> ResumableLoader:
        items = self._pictures(self.train_split)
        dataset = ImageLabelBatches(
            items, self.present(items), self.names, self.geometry, self.method.train_transform(), self.seed
        )
        return self.shuffled(dataset, len(items))

    def _scored(
        self, split: str, limit: int | None = None, has_labels: bool = True
    ) -> "DataLoader[WeakPictures]":  # fmt: skip
        items = (self.tree().items(split) if has_labels else self._pictures(split))[:limit]
        if not items:
            raise DataError(f"{self.benchmark}, {split}: no pictures to evaluate on")
        rank, world = self.rank_and_world_size
        mine = range(rank, len(items), world)  # every picture once: no process gets one twice
        dataset = _Scored(self.tree(), items, self.present(items), self.names, mine, has_labels)
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers, generator=torch.Generator())

    def val_dataloader(self) -> "DataLoader[WeakPictures]":
        return self._scored(self.val_split, self.limit_val_images)

    def test_dataloader(self) -> "list[DataLoader[WeakPictures]]":
        return [self._scored(split) for split in self.test_splits]

    def predict_dataloader(self) -> "DataLoader[WeakPictures]":
        """Pictures of the training split with what they show, and without label maps: what a stage makes files of."""
        return self._scored(self.train_split, has_labels=False)


class ImageLabelBatches(Dataset[ImageLabels]):
    """Batches of planned rows, whose image id is the number of an item.

    Args:
        items: Pictures.
        present: Their labels, bool [N, K].
        names: K class names.
        geometry: The network's frame.
        transform: Of the method; None puts pictures into the frame as evaluation does.
        seed: Of the transform's draws.
    """

    def __init__(
        self,
        items: Sequence[Item],
        present: Present,
        names: tuple[str, ...],
        geometry: Geometry,
        transform: Transform | None,
        seed: int,
    ) -> None:
        self.items, self.names, self.labels = items, names, torch.from_numpy(present)
        self.geometry, self.transform, self.seed = geometry, transform, seed

    def __getitem__(self, rows: list[Row]) -> ImageLabels:
        numbers = [row.image_id for row in rows]
        pictures = np.stack([self._sample(row).picture for row in rows]).transpose(0, 3, 1, 2)
        return ImageLabels(
            images=torch.from_numpy(np.ascontiguousarray(pictures)),
            image_ids=numbers,
            placements=[self.geometry.place(*self.geometry.size)] * len(rows),
            present=self.labels[numbers],
            names=self.names,
        )

    def _sample(self, row: Row) -> Sample:
        picture = read_picture(self.items[row.image_id].image)
        if self.transform is None or self.transform.in_frame:
            picture = self.geometry.image(picture, self.geometry.place(*picture.shape[:2]))
        sample = Sample(picture, np.zeros((0, *picture.shape[:2]), np.uint8))
        return sample if self.transform is None else self.transform(sample, (self.seed, row.epoch, row.image_id))


class _Scored(Dataset[WeakPictures]):
    """One picture a batch, with what it shows, and with its label map or one that is ignored everywhere."""

    VIEWING: ClassVar[Viewing] = Viewing(
        0, 0, 0, 0, "mmseg"
    )  # not read: a method shows the picture to itself at its scales

    def __init__(
        self,
        tree: Tree,
        items: Sequence[Item],
        present: Present,
        names: tuple[str, ...],
        mine: Sequence[int],
        has_labels: bool = True,
    ) -> None:
        self.tree, self.items, self.present, self.names, self.mine = tree, items, present, names, mine
        self.has_labels = has_labels

    def __len__(self) -> int:
        return max(1, len(self.mine))  # one batch without a picture for a process without: all take part in collectives

    def __getitem__(self, at: int) -> WeakPictures:
        if at >= len(self):
            raise IndexError(at)
        numbers = [self.mine[at]] if self.mine else []
        found = [self._sample(self.items[number]) for number in numbers]
        return WeakPictures(
            [torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))) for picture, _ in found],
            [label for _, label in found],
            self.names,
            True,
            self.VIEWING,
            numbers,
            present=[tuple(np.flatnonzero(self.present[number]).tolist()) for number in numbers],
        )

    def _sample(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A picture and its label map."""
        if self.has_labels:
            return self.tree.sample(item, len(self.names) + 1)
        picture = read_picture(item.image)
        return picture, np.full(picture.shape[:2], IGNORED, np.uint8)
