"""Open-vocabulary segmentation as a LightningDataModule: evaluation only, one picture at a time."""

import warnings
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset

from rislab.data.batch import LabelledPictures, Viewing
from rislab.data.benchmark_trees import Item, Tree, benchmark, class_names, fitted, group_of_name, scored_classes
from rislab.data.roots import data_root
from rislab.data.square import square
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.datamodules.base import EvaluatedData
from rislab.errors import ConfigError, DataError
from rislab.evaluation.base import Precision
from rislab.evaluation.semantic import Grouping, SemanticEvaluation
from rislab.nn.multi_scale import MultiScale


class SemanticProtocol(Enum):
    """How a benchmark is scored. Sources: kakaobrain/tcl and NVlabs/GroupViT, segmentation/configs; MaskCLIP's VOC config.

    tcl and groupvit differ in class names only. maskclip: the whole picture at once. toy: as tcl, at the toy world's size.

    Attributes:
        lseg: six scales with mirror images (isl-org/lang-seg, test_lseg.py).
        toy_scales: the same at the toy world's size.
        reco: the square in the middle, 320 pixels, pictures bilinear and labels nearest (NoelShin/reco, its Pascal Context).
        reco_nearest: the same, pictures nearest, too (its COCO-Stuff and Cityscapes).
        reco_full: the whole picture at its own size (its KITTI-STEP).
    """

    tcl = Viewing(448, 2048, 448, 224, "mmseg")
    groupvit = Viewing(448, 2048, 448, 224, "groupvit")
    maskclip = Viewing(512, 2048, 2048, 2048, "maskclip")
    toy = Viewing(96, 432, 96, 48, "mmseg")
    lseg = Viewing(480, 2048, 480, 320, "lseg", MultiScale(520, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), 480, 320))
    toy_scales = Viewing(96, 432, 96, 64, "mmseg", MultiScale(104, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), 96, 64))
    reco = Viewing(320, 320, 320, 320, "mmseg", crop=320)
    reco_nearest = Viewing(320, 320, 320, 320, "reco", crop=320, resampling="nearest")
    reco_full = Viewing(2048, 2048, 2048, 2048, "mmseg", as_stored=True)


class SemanticData(EvaluatedData):
    """A benchmark of open-vocabulary segmentation in its official tree.

    Args:
        root: folder that holds the benchmark's folder. With `generate`, a relative root lies in the user's cache folder.
        name: voc21, voc20, context60, context59, coco_object, coco_stuff, coco_stuff27, cityscapes, cityscapes27, kitti_step,
            ade20k, or toy_voc.
        protocol: size, windows and class names.
        generate: a world to write into `root` when it is not there.
        val_split: scored while a method is trained.
        limit_val_images: the first so many of its pictures.
        test_splits: scored at the end; None: `val_split` alone.
        num_workers: loader processes.
        precision: of the network while it is scored, training's validation included; reports say it where it is not float32.
    """

    root_option: ClassVar[str] = "root"
    required_files: ClassVar[str] = "rislab.data.required_files.benchmark"
    truth: ClassVar[str] = "rislab.data.truth.label_maps"
    neutral: ClassVar[tuple[str, ...]] = ("root", "num_workers")
    absent_means: ClassVar[dict[str, Any]] = {"test_splits": None, "precision": "float32"}

    def __init__(
        self,
        root: str,
        name: str = "voc21",
        protocol: SemanticProtocol = SemanticProtocol.tcl,
        generate: ToyVocabulary | None = None,
        val_split: str = "val",
        limit_val_images: int | None = None,
        num_workers: int = 0,
        test_splits: list[str] | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if limit_val_images is not None and limit_val_images < 1:
            raise ConfigError(f"data.init_args.limit_val_images is {limit_val_images}, expected 1 or more")
        self.root = data_root(root, generate is not None)
        self.of = benchmark(name)
        self.protocol, self.generate = protocol, generate
        self.val_split, self.limit_val_images, self.num_workers = val_split, limit_val_images, num_workers
        self._test_splits = test_splits
        self.precision: Precision = precision
        self.names = class_names(self.of.names, protocol.value.names)

    @property
    def benchmark(self) -> str:
        return f"toy world, {self.of.title}" if self.generate is not None else self.of.title

    @property
    def evaluation(self) -> SemanticEvaluation:
        protocol = self.protocol
        has_scales = protocol.value.multi_scale is not None
        grouping = Grouping(self.names, groups) if (groups := group_of_name(self.of, for_answers=True)) else None
        found = SemanticEvaluation(protocol.name, protocol.value.names, self.classes, has_scales, grouping)
        found.precision = self.precision
        return found

    @property
    def test_splits(self) -> list[str]:
        return [self.val_split] if self._test_splits is None else self._test_splits

    @property
    def classes(self) -> tuple[str, ...]:
        """By label: the names of the queries, or groups of them."""
        return scored_classes(self.of, self.protocol.value.names)

    def require_own_labels(self) -> None:
        """Raises ConfigError for a benchmark whose labels are groups of its names: nothing can be trained on them."""
        if self.of.groups is not None:
            raise ConfigError(
                f"{self.of.title} is for scoring alone: its labels are groups of the names of its queries"
            )

    def prepare_data(self) -> None:
        if self.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                self.generate.write(self.root)

    def items(self, split: str) -> list[Item]:
        """Raises DataError for whatever is missing, before anything is computed."""
        return Tree(self.root, self.of).items(split)

    def setup(self, stage: str) -> None:
        used = self.test_splits if stage == "test" else [self.val_split, *self.test_splits]
        for split in dict.fromkeys(used):
            found, published = len(self.items(split)), self.of.counts.get(split)
            if published is not None and found != published and self.generate is None:
                warnings.warn(f"{self.benchmark}, {split}: {found} pictures, published: {published}", stacklevel=2)

    def _loader(self, split: str, limit: int | None = None) -> "DataLoader[LabelledPictures]":
        items = self.items(split)[:limit]
        if not items:
            raise DataError(f"{self.benchmark}, {split}: no pictures to evaluate on")
        rank, world = self.rank_and_world_size
        mine = range(rank, len(items), world)  # every picture once: no process gets one twice
        return DataLoader(
            _Labelled(self, items, mine), batch_size=None, num_workers=self.num_workers, generator=torch.Generator()
        )

    def pictures_of(self, split: str) -> "DataLoader[LabelledPictures]":
        """All pictures of a split, each once over all processes."""
        return self._loader(split)

    def val_dataloader(self) -> "DataLoader[LabelledPictures]":
        return self._loader(self.val_split, self.limit_val_images)

    def test_dataloader(self) -> "list[DataLoader[LabelledPictures]]":
        return [self._loader(split) for split in self.test_splits]


class _Labelled(Dataset[LabelledPictures]):
    def __init__(self, data: SemanticData, items: Sequence[Item], mine: Sequence[int]) -> None:
        self.tree, self.items, self.mine = Tree(data.root, data.of), items, mine
        self.names, self.has_background, self.classes = data.names, data.of.has_background, len(data.classes)
        self.viewing = data.protocol.value

    def __len__(self) -> int:
        return max(
            1, len(self.mine)
        )  # one batch without a picture for a process without: all take part in every collective

    def __getitem__(self, at: int) -> LabelledPictures:
        if at >= len(self):
            raise IndexError(at)
        if not self.mine:
            return LabelledPictures([], [], self.names, self.has_background, self.viewing, [])
        number = self.mine[at]
        item = self.items[number]
        picture, label = self.tree.sample(item, self.classes)
        side, has_scales = self.viewing.crop, self.viewing.multi_scale is not None
        if side is not None:
            image, label = square(picture, side, self.viewing.resampling), square(label, side, "nearest")
        else:
            is_whole = has_scales or self.viewing.as_stored
            image = picture if is_whole else fitted(picture, self.viewing.short, self.viewing.long)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return LabelledPictures([pixels], [label], self.names, self.has_background, self.viewing, [number])
