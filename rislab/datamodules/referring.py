"""Referring segmentation as a LightningDataModule: REFER files in, images-and-queries batches out."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from filelock import FileLock

from rislab.data import masks
from rislab.data.annotations import Reference
from rislab.data.batch import MaskQueries
from rislab.data.lmdb_layout import LmdbRefer
from rislab.data.loader import PlannedLoader, ResumableLoader
from rislab.data.own.version import require_version
from rislab.data.pack import Pack, pack_path
from rislab.data.published import data_set, deviation
from rislab.data.queries import Queries
from rislab.data.refer import Refer, required_files
from rislab.data.roots import data_root
from rislab.data.sampling import (
    Holdout,
    Plan,
    evaluation_plan,
    parts_of,
    sentence_plan,
    shuffled_sentences,
    training_plan,
)
from rislab.data.toy.world import RECIPE, ToyWorld
from rislab.datamodules.base import EvaluatedData
from rislab.errors import ConfigError, DataError
from rislab.evaluation.base import Precision
from rislab.evaluation.referring import ReferringEvaluation
from rislab.metrics.protocols import Convention, Protocol

ORDER = ("val", "testA", "testB", "test")  # as papers print them


class ReferringData(EvaluatedData):
    """A referring data set in the layout of its release: RefCOCO, RefCOCO+, RefCOCOg, Ref-ZOM, gRefCOCO, or one alike.

    Empty and overlong sentences are queries like any other. A reference whose annotated mask has no pixel is left out
    of training, with a warning, and scored in evaluation.

    Args:
        root: folder that holds the data set's folder and the images. With `generate`, a relative root lies in the user's cache
            folder.
        dataset, split_by: which files, `ROOT/<dataset>/refs(<split_by>).p`, or what the release calls them.
        protocol: the evaluation convention; it also says which text of the file is read.
        generate: a world to write into `root` when it is not there.
        train_split, val_split: names in the file.
        test_splits: those to score at the end, None for all but training.
        batch_size: queries a training batch and process, at most.
        references_per_image: how many references share one image of a batch; 1 as CRIS does, see `training_plan`.
        sentences_per_reference: how many sentences of a reference one epoch uses, at most; 1 as CRIS does. They share the image.
        eval_images: images an evaluation batch; all their expressions come along.
        num_workers: loader processes.
        seed: of the order of samples and of the sentences drawn.
        cache_mb: memory for decoded images and masks, of a process and its loader processes together: training's images first,
            then its masks, then what validation reads.
        shuffle_sentences: deal the sentences out to other references, in training and in evaluation: what a model scores then, it
            scores without language.
        limit_val_images: validate on the first so many images only; tests are always whole.
        sampling: what is an item of an epoch: one sentence of each reference (`per_reference`: CRIS, LAVT), each sentence
            (`per_sentence`), or each sentence with zero targets spread evenly (`interleaved_zero_targets`: DMMI on Ref-ZOM).
        holdout: images of a split that training leaves out and `val_split` consists of, for a set without a validation split.
        no_target_min_pixels: a mask of fewer pixels says "nothing there", where sentences may have no referent.
        layout: files as released, or the LMDB files that CRIS's tools make, `ROOT/lmdb/<dataset>/<split>.lmdb`.
        version: of an imported set, from its `import.json`; other files are refused. Tables fill it in, so that results of one
            import never stand for those of another.
        packed: use what `rislab data pack` has made, where it is still of these files; the batches are the same.
        precision: of the network while it is scored, training's validation included; reports say it where it is not float32.
    """

    gives: ClassVar[type[MaskQueries]] = MaskQueries
    root_option: ClassVar[str] = "root"
    seed_option: ClassVar[str] = "seed"
    required_files: ClassVar[str] = "rislab.data.required_files.referring"
    folder_options: ClassVar[str] = "rislab.data.required_files.own_set"
    truth: ClassVar[str] = "rislab.data.truth.expressions"
    neutral: ClassVar[tuple[str, ...]] = ("root", "num_workers", "cache_mb", "packed", "eval_images")
    absent_means: ClassVar[dict[str, Any]] = {
        "no_target_min_pixels": 1,
        "layout": "refer",
        "packed": True,
        "sentences_per_reference": 1,
        "sampling": "per_reference",
        "holdout": None,
        "version": None,
        "precision": "float32",
    }

    def __init__(
        self,
        root: str,
        dataset: str = "refcoco",
        split_by: str = "unc",
        protocol: Protocol = Protocol.native,
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
        no_target_min_pixels: int = 1,
        layout: Literal["refer", "lmdb"] = "refer",
        packed: bool = True,
        sentences_per_reference: int = 1,
        sampling: Literal["per_reference", "per_sentence", "interleaved_zero_targets"] = "per_reference",
        holdout: Holdout | None = None,
        version: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, references_per_image * sentences_per_reference),
            ("references_per_image", references_per_image, 1),
            ("sentences_per_reference", sentences_per_reference, 1),
            ("eval_images", eval_images, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
            ("cache_mb", cache_mb, 0),
            ("no_target_min_pixels", no_target_min_pixels, 1),
            ("limit_val_images", 1 if limit_val_images is None else limit_val_images, 1),
        ):
            if value < least:
                reason = " (references_per_image)" if name == "batch_size" else ""
                raise ConfigError(f"data.init_args.{name} is {value}, expected {least}{reason} or more")
        if sampling != "per_reference" and references_per_image * sentences_per_reference != 1:
            raise ConfigError(
                f"data.init_args.sampling {sampling}: every sentence brings its image, so references_per_image and "
                "sentences_per_reference are 1"
            )
        if holdout is not None and not 0 < holdout.images < 1:
            raise ConfigError(
                f"data.init_args.holdout.images is {holdout.images}, expected more than 0 and less than 1"
            )
        self.sampling, self.holdout = sampling, holdout
        self.root = data_root(root, generate is not None)
        self.dataset, self.split_by = dataset, split_by
        self.protocol = protocol
        self.generate = generate
        self.train_split, self.val_split, self._test_splits = train_split, val_split, test_splits
        self.batch_size, self.references_per_image, self.eval_images = batch_size, references_per_image, eval_images
        self.num_workers, self.seed, self.cache_mb = num_workers, seed, cache_mb
        self.shuffle_sentences, self.limit_val_images = shuffle_sentences, limit_val_images
        self.no_target_min_pixels = no_target_min_pixels
        self.layout, self.packed = layout, packed
        self.sentences_per_reference = sentences_per_reference
        self.version = version
        self.precision: Precision = precision
        self._refer: Refer | LmdbRefer | None = None
        self._loaders: list[PlannedLoader] = []
        self._capacity = cache_mb << 20
        self._gave_tokens = False

    @property
    def _is_toy(self) -> bool:
        return self.generate is not None or (self.root / RECIPE).exists()

    @property
    def benchmark(self) -> str:
        """What a report calls it; a generated world is never passed off as the real set, wherever it lies."""
        name = f"{data_set(self.dataset).title} ({self.split_by})"
        return f"toy world, {name}-like" if self._is_toy else name

    @property
    def evaluation(self) -> ReferringEvaluation:
        found = ReferringEvaluation(self.protocol, self.no_target_min_pixels)
        found.precision = self.precision
        return found

    @property
    def convention(self) -> Convention:
        """The protocol's rules, with this data's own choice where they leave one."""
        return self.evaluation.convention

    @property
    def refer(self) -> Refer | LmdbRefer:
        """The data set in memory, read on first use."""
        if self._refer is None:
            if self.version is not None:
                require_version(self.root / self.dataset, self.version)
            is_lmdb = self.layout == "lmdb"
            self._refer = (
                LmdbRefer(self.root, self.dataset) if is_lmdb else Refer(self.root, self.dataset, self.split_by)
            )
        return self._refer

    @property
    def test_splits(self) -> list[str]:
        """In the order of `test_dataloader`."""
        if self._test_splits is not None:
            return self._test_splits
        there = [split for split in self.refer.splits if split != self.train_split]
        return sorted(there, key=lambda split: (ORDER.index(split) if split in ORDER else len(ORDER), split))

    def picture(self, image_id: int) -> tuple[str, bytes]:
        """(file suffix, encoded bytes). Raises DataError naming the folders that were searched."""
        return self.refer.picture(image_id)

    def prepare_data(self) -> None:
        """Write the generated world, once, by the first process; say what is missing of a real data set."""
        if self.generate is not None:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                self.generate.write(self.root)
        elif not self.root.is_dir():
            wanted = "\n  ".join(str(path) for path in required_files(self.root, self.dataset, self.split_by))
            raise DataError(f"{self.root}: no such folder (data.init_args.root). Put there:\n  {wanted}")

    def setup(self, stage: str) -> None:
        """Look at everything that the whole run will need: a test split that is not there must not cost a training.

        Raises:
            ConfigError: Training would choose its checkpoint on a test split.
        """
        if stage == "fit":
            self._refuse_selection_on_test()
        splits = {
            "fit": [self.train_split, self.val_split, *self.test_splits],
            "validate": [self.val_split],
        }.get(stage, self.test_splits)
        for split in dict.fromkeys(map(self._file_split, splits)):
            references = self.refer.split(split)
            self.refer.check_images(references)
            if self.refer.left_out(split):
                warnings.warn(f"{self.refer.refs_file}: split {split}: {self.refer.left_out(split)}", stacklevel=2)
            deviates = "" if self._is_toy else deviation(self.dataset, self.split_by, split, references)
            if deviates:
                warnings.warn(f"{self.refer.refs_file}: split {split} has {deviates}", stacklevel=2)

    def _refuse_selection_on_test(self) -> None:
        """The README of DMMI's code validates Ref-ZOM on test every epoch: what is best there says nothing of other pictures."""
        if self._file_split(self.val_split).lower().startswith("test"):
            option = "holdout.split" if self.holdout is not None else "val_split"
            raise ConfigError(
                f"data.init_args.{option} is {self._file_split(self.val_split)!r}: checkpoints would be chosen on what is "
                "reported. Choose on val, or, where a set has no such split, on images held out of train: "
                "data.init_args.holdout: {split: train, images: 0.05, seed: 0}"
            )

    def teardown(self, stage: str) -> None:
        """End the loader processes and give back what was cached."""
        for loader in self._loaders:
            loader.close()
        self._loaders = []
        self._capacity = self.cache_mb << 20

    def _references(self, split: str) -> list[Reference]:
        references = self.refer.split(self._file_split(split))
        if self.holdout is not None and split in (self.val_split, self.holdout.split):
            held = self.holdout.image_ids(references)
            references = [ref for ref in references if (ref.image_id in held) is (split == self.val_split)]
        return shuffled_sentences(references, self.seed) if self.shuffle_sentences else references

    def _file_split(self, split: str) -> str:
        """The split of the files that a split of ours is taken from."""
        return self.holdout.split if self.holdout is not None and split == self.val_split else split

    def train_dataloader(self) -> ResumableLoader:
        references = self._references(self.train_split)
        # A zero-target reference says that there is nothing to find; an annotation without a pixel is a fault.
        usable = [ref for ref in references if not ref.ann_ids or masks.area(self.refer.target(ref))]
        if len(usable) < len(references):
            empty = len(references) - len(usable)
            warnings.warn(f"{empty} of {len(references)} training references have empty masks: left out", stacklevel=2)
        rank, world_size = self.rank_and_world_size

        def plan(epoch: int) -> Plan:
            if self.sampling == "per_reference":
                batches = training_plan(
                    usable,
                    self.batch_size,
                    self.references_per_image,
                    self.seed,
                    epoch,
                    rank,
                    world_size,
                    self.sentences_per_reference,
                )
            else:
                interleaved = self.sampling == "interleaved_zero_targets"
                batches = sentence_plan(usable, self.batch_size, interleaved, self.seed, epoch, rank, world_size)
            return parts_of(batches, self.parts)

        loader = ResumableLoader(self._queries(usable, training=True, cached=True), plan, **self._options(cached=True))
        self._loaders.append(loader)
        return loader

    def _evaluation_loader(self, split: str, limit: int | None = None, cached: bool = False) -> PlannedLoader:
        references = self._references(split)
        if limit is not None:
            kept = set(list(dict.fromkeys(ref.image_id for ref in references))[:limit])
            references = [ref for ref in references if ref.image_id in kept]
        plan = evaluation_plan(references, self.eval_images, *self.rank_and_world_size)
        loader = PlannedLoader(self._queries(references, False, cached), plan, **self._options(cached))
        self._loaders.append(loader)
        return loader

    def _queries(self, references: Sequence[Reference], training: bool, cached: bool) -> Queries:
        capacity = self._capacity if cached else 0
        transform = self.method.train_transform() if training else None
        pack = self._pack() if transform is None or transform.in_frame else None
        queries = Queries(
            self.refer, references, self.geometry, self.convention, training, capacity, pack, transform, self.seed
        )
        self._capacity -= queries.size
        return queries

    def _pack(self) -> Pack | None:
        """The pack of this data and the method's geometry; its token ids go to the method."""
        if not self.packed or not isinstance(self.refer, Refer):
            return None
        found = Pack.open(self.refer, self.dataset, self.split_by, self.geometry)
        folder = pack_path(self.root, self.dataset, self.split_by, self.geometry)
        if found is None:
            if folder.exists():
                warnings.warn(f"{folder} is damaged or of other files: not used (rislab data pack)", stacklevel=2)
            return None
        if found.changed:
            warnings.warn(
                f"{len(found.changed)} pictures have changed since {folder} was made: read anew", stacklevel=2
            )
        method: Any = self.trainer.lightning_module if self.trainer is not None else None
        if not self._gave_tokens and self.convention.text_field == "sent" and hasattr(method, "take_tokens"):
            ids = found.tokens()
            texts = {e.sent: ids[e.sent_id] for ref in self.refer.references for e in ref.expressions}
            method.take_tokens(found.tokenizer, texts)
            self._gave_tokens = True
        return found

    def _options(self, cached: bool) -> dict[str, Any]:
        """What is read once needs no workers afterwards."""
        return {"num_workers": self.num_workers, "persistent": cached, "pin_memory": self.is_on_gpu}

    def val_dataloader(self) -> PlannedLoader:
        return self._evaluation_loader(self.val_split, self.limit_val_images, cached=True)

    def test_dataloader(self) -> list[PlannedLoader]:
        return [self._evaluation_loader(split) for split in self.test_splits]

    def predict_dataloader(self) -> list[PlannedLoader]:
        return self.test_dataloader()
