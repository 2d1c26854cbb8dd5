"""Few-shot folds as a LightningDataModule: trained on classes of other folds, scored on those of one."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rislab.data.batch import Episodes
from rislab.data.episodes import OTHERS, EpisodeFiles, Pair, files_of, numbers_of, stretched
from rislab.data.geometry import Geometry
from rislab.data.loader import PlannedLoader, ResumableLoader
from rislab.data.roots import data_root
from rislab.data.sampling import Plan, Row, parts_of
from rislab.data.toy.folds import ToyFolds
from rislab.data.transforms import Sample, Transform
from rislab.datamodules.base import EvaluatedData
from rislab.errors import ConfigError, DataError
from rislab.evaluation.episodes import EpisodeEvaluation
from rislab.paths import contents, user_path


class EpisodesData(EvaluatedData):
    """PASCAL-5i, COCO-20i or FSS-1000 with no support picture, as LSeg uses them.

    Training sees single pairs of a picture and a class; the official code's batches hold two pairs of a class, query and support.
    In the protocol, classes of the fold are validation and test at once; `val_split` gives others (FSS-1000 has its own).

    Args:
        root: Holds VOC2012, COCO2014 or FSS-1000.
        name: Of the set.
        fold: Whose classes are tested; 0 for FSS-1000.
        split_files: Folder of `pascal`, `coco` and `fss`; None: `splits` below the root.
        size: Side of the square at which masks are compared.
        episodes: Of a test; FSS-1000 has a fixed list.
        limit_val_episodes: Validation sees the first so many; None all.
        batch_size: Pairs a training batch and process.
        eval_batch: Episodes a batch.
        num_workers: Loader processes.
        seed: Of the order of pairs and of the method's transform.
        generate: A world to write into `root` when it is not there.
        permuted_names: In the test, each class of the fold goes by the name of the next one: a control in which language says
            nothing. Training and validation are the same, so that the same network is tested.
        without_tested: Training leaves out pictures that hold a class that the fold tests. In the protocol they stay, and what
            is of such a class is trained on as the rest, whatever name it has.
        val_split: `val`: validation as in the protocol. `other_folds`: classes of the other folds, which are trained on, in
            pictures that are not; so the checkpoint is chosen without a look at the classes that are tested.

    Raises:
        ConfigError: An unknown set; numbers below 1; a fold, or other folds, of a set without folds.
    """

    gives: ClassVar[type[Episodes]] = Episodes
    root_option: ClassVar[str] = "root"
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_episodes.episodes"
    truth: ClassVar[str] = "rislab.data.truth.episodes"
    below_root: ClassVar[tuple[str, ...]] = ("split_files",)
    neutral: ClassVar[tuple[str, ...]] = ("root", "num_workers", "eval_batch")
    absent_means: ClassVar[dict[str, Any]] = {"val_split": "val", "without_tested": False}

    def __init__(
        self,
        root: str,
        name: Literal["pascal5i", "coco20i", "fss1000"] = "pascal5i",
        fold: Literal[0, 1, 2, 3] = 0,
        split_files: str | None = None,
        size: int = 480,
        episodes: int = 1000,
        limit_val_episodes: int | None = None,
        batch_size: int = 20,
        eval_batch: int = 4,
        num_workers: int = 0,
        seed: int = 0,
        generate: ToyFolds | None = None,
        permuted_names: bool = False,
        val_split: Literal["val", "other_folds"] = "val",
        without_tested: bool = False,
    ) -> None:
        super().__init__()
        counts = {"size": size, "episodes": episodes, "batch_size": batch_size, "eval_batch": eval_batch}
        for option, value in (counts | {"limit_val_episodes": limit_val_episodes or 1}).items():
            if value < 1:
                raise ConfigError(f"data.init_args.{option} is {value}, expected 1 or more")
        self.root = data_root(root, generate is not None)
        names = None if generate is None or name == "fss1000" else generate.names(name)
        self.files = files_of(name, self.root, None if split_files is None else user_path(split_files), names)
        if fold and not self.files.has_folds:
            raise ConfigError(f"data.init_args.fold is {fold}: {self.files.title} has no folds, leave it 0")
        self.fold, self.size, self.episodes, self.generate = fold, size, episodes, generate
        self.limit_val_episodes, self.batch_size, self.eval_batch = limit_val_episodes, batch_size, eval_batch
        self.num_workers, self.seed, self.permuted_names = num_workers, seed, permuted_names
        if val_split == OTHERS and not self.files.has_folds:
            raise ConfigError(f"data.init_args.val_split is {OTHERS}: {self.files.title} has no folds, leave it val")
        if without_tested and not self.files.has_folds:
            raise ConfigError(f"data.init_args.without_tested: {self.files.title} has no folds, leave it false")
        self.without_tested = without_tested
        self.val_split = OTHERS if val_split == OTHERS else self.files.val
        self._train: ResumableLoader | None = None

    @property
    def benchmark(self) -> str:
        title = f"{self.files.title}, fold {self.fold}" if self.files.has_folds else self.files.title
        return title if self.generate is None else f"toy world, {title}"

    @property
    def evaluation(self) -> EpisodeEvaluation:
        return self._evaluation(self.files.test)

    @property
    def validation(self) -> EpisodeEvaluation:
        return self._evaluation(self.val_split)

    def _evaluation(self, split: str) -> EpisodeEvaluation:
        return EpisodeEvaluation(self.benchmark, self.size, self.files.classes(self.fold, split), self.files.names)

    @property
    def test_splits(self) -> list[str]:
        return [self.files.test]

    def prepare_data(self) -> None:
        if self.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                self.generate.write(self.root)

    def setup(self, stage: str) -> None:
        """Look at everything that the run will need, before anything is computed."""
        for split in dict.fromkeys((self.val_split, *self.test_splits) if stage == "fit" else self.test_splits):
            found = self.files.drawn(self.fold, split, self.episodes)
            self.files.check(found)
            drawn = {pair.class_id for pair in found}
            absent = [self.files.names[n] for n in self.files.classes(self.fold, split) if n not in drawn]
            if absent:
                warnings.warn(
                    f"{self.benchmark}, {split}: no episode of {', '.join(absent)}; such a class counts 0", stacklevel=2
                )
        if stage == "fit":
            self.files.check(self._training())

    def _training(self) -> list[Pair]:
        left_out = self.files.tested(self.fold) if self.without_tested else set()
        return [pair for pair in self.files.training(self.fold) if pair.picture not in left_out]

    def teardown(self, stage: str) -> None:
        if self._train is not None:
            self._train.close()

    def picture(self, image_id: int) -> tuple[str, bytes]:
        """A picture of the test, as stored: its suffix and its bytes."""
        name = list(numbers_of(self.files.episodes(self.fold, self.files.test, self.episodes)))[image_id]
        return Path(name).suffix, contents(self.files.root / name)

    def train_dataloader(self) -> ResumableLoader:
        pairs = self._training()
        rank, world = self.rank_and_world_size
        whole = len(self.files.order(pairs, np.random.default_rng(0))) // (self.batch_size * world)
        if not whole:
            raise DataError(
                f"{len(pairs)} training pairs do not fill one batch of {self.batch_size} on each of {world} processes; "
                "lower data.batch_size"
            )

        def plan(epoch: int) -> Plan:
            order = self.files.order(pairs, np.random.default_rng([self.seed, epoch]))
            mine = order[: whole * self.batch_size * world][rank::world].tolist()
            rows = [Row(number, (), epoch) for number in mine]
            batches = [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
            return parts_of(batches, self.parts)

        dataset = EpisodeBatches(self.files, pairs, self.geometry, None, self.method.train_transform(), self.seed)
        self._train = ResumableLoader(
            dataset, plan, num_workers=self.num_workers, persistent=True, pin_memory=self.is_on_gpu
        )
        return self._train

    def _evaluated(self, split: str, limit: int | None = None, permuted: bool = False) -> PlannedLoader:
        pairs = self.files.drawn(self.fold, split, self.episodes)[:limit]
        rank, world = self.rank_and_world_size
        # A process without an episode gets the first one again, since all take part in every collective; it counts once.
        mine = [Row(number, ()) for number in range(rank, len(pairs), world)] or [Row(0, ())]
        plan = [mine[at : at + self.eval_batch] for at in range(0, len(mine), self.eval_batch)]
        dataset = EpisodeBatches(self.files, pairs, self.geometry, self.size, None, self.seed)
        if permuted:
            classes = self.files.classes(self.fold, split)
            names = list(self.files.names)
            for number, other in zip(classes, (*classes[1:], classes[0]), strict=True):
                names[number] = self.files.names[other]
            dataset.names = tuple(names)
        return PlannedLoader(dataset, plan, num_workers=self.num_workers, pin_memory=self.is_on_gpu)

    def val_dataloader(self) -> PlannedLoader:
        return self._evaluated(self.val_split, self.limit_val_episodes)

    def test_dataloader(self) -> list[PlannedLoader]:
        return [self._evaluated(split, permuted=self.permuted_names) for split in self.test_splits]


class EpisodeBatches(Dataset[Episodes]):
    """Batches of planned rows, whose image id is the number of a pair.

    Args:
        files: Of the set.
        pairs: Pictures with their class.
        geometry: The network's frame.
        size: Side of the square that masks are stretched to; None for the network's frame, as training wants them.
        transform: Of the method; None puts pictures into the frame as evaluation does.
        seed: Of the transform's draws.
    """

    def __init__(
        self,
        files: EpisodeFiles,
        pairs: Sequence[Pair],
        geometry: Geometry,
        size: int | None,
        transform: Transform | None,
        seed: int,
    ) -> None:
        self.files, self.pairs, self.geometry, self.size = files, pairs, geometry, size
        self.transform, self.seed = transform, seed
        self.names = files.names
        self.numbers = numbers_of(pairs)

    def __getitem__(self, rows: list[Row]) -> Episodes:
        pairs = [self.pairs[row.image_id] for row in rows]
        stored = [self.files.sample(pair) for pair in pairs]
        made = [self._made(*sample, row) for sample, row in zip(stored, rows, strict=True)]
        return Episodes(
            images=torch.from_numpy(np.stack([picture for picture, _ in made]).transpose(0, 3, 1, 2).copy()),
            image_ids=[self.numbers[pair.picture] for pair in pairs],
            placements=[self.geometry.place(*mask.shape) for _, mask in stored],
            class_index=torch.tensor([pair.class_id for pair in pairs]),
            names=self.names,
            masks=torch.from_numpy(np.stack([mask for _, mask in made])),
            numbers=[row.image_id for row in rows],
        )

    def _made(
        self, picture: NDArray[np.uint8], mask: NDArray[np.uint8], row: Row
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self.transform is not None:
            moved = self.transform(Sample(picture, mask[None]), (self.seed, row.epoch, row.image_id))
            return moved.picture, moved.masks[0]
        frame = self.geometry.image(picture, self.geometry.place(*mask.shape))
        return frame, stretched(mask, self.geometry.size if self.size is None else (self.size, self.size))
