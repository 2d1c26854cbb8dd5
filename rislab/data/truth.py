"""What a method was to answer, read again from a config's data without torch: for pages that show answers beside it.

A data class names its function here in `truth`; the function takes the class's options, defaults filled in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from rislab.data import decoding
from rislab.data.annotations import Expression, Reference
from rislab.data.benchmark_trees import Item, Tree, benchmark, scored_classes
from rislab.data.episodes import EpisodeFiles, Pair, files_of, numbers_of, stretched
from rislab.data.lmdb_layout import LmdbRefer
from rislab.data.masks import RLE
from rislab.data.refer import Refer
from rislab.data.roots import data_root
from rislab.data.sampling import shuffled_sentences
from rislab.data.toy.folds import ToyFolds
from rislab.data.toy.world import ToyWorld
from rislab.errors import DataError
from rislab.metrics.protocols import Convention
from rislab.paths import contents, user_path

DECIDES = {
    "rislab.data.truth.expressions": ("root", "dataset", "split_by", "layout", "generate", "shuffle_sentences"),
    "rislab.data.truth.label_maps": ("root", "name", "generate"),
    "rislab.data.truth.episodes": ("root", "name", "split_files", "size", "episodes", "generate"),
}
"""By function, the options that decide what was to be answered: trials that differ in none can be shown side by side."""


@dataclass(frozen=True)
class Expressions:
    """A referring data set, by sentence.

    Attributes:
        refer: the files.
        by_sent_id: each sentence with the reference that it was scored with.
    """

    refer: Refer | LmdbRefer
    by_sent_id: Mapping[int, tuple[Expression, Reference]]

    @classmethod
    def over(cls, refer: Refer | LmdbRefer, references: Iterable[Reference]) -> "Expressions":
        """All sentences of some references."""
        return cls(refer, {e.sent_id: (e, reference) for reference in references for e in reference.expressions})

    def of(self, sent_id: int) -> tuple[Expression, Reference]:
        """Raises DataError for a sentence that the data set has not."""
        if sent_id not in self.by_sent_id:
            raise DataError(f"{self.refer.refs_file}: no sentence {sent_id}, which was scored: these are other data")
        return self.by_sent_id[sent_id]

    def target(self, reference: Reference, convention: Convention) -> RLE:
        """The mask that the convention compares with."""
        return self.refer.target(reference, convention)

    def distractors(self, reference: Reference) -> int | None:
        """Other objects of the same category; -1 for a zero target, None where the files do not say."""
        return self.refer.distractors(reference) if isinstance(self.refer, Refer) else None

    def size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of a picture in pixels."""
        record = self.refer.images[image_id]
        return record.height, record.width

    def file(self, image_id: int) -> Path | None:
        """The picture's own file; None where it lies inside of another one. Raises DataError where it is missing."""
        return self.refer.image_file(image_id) if isinstance(self.refer, Refer) else None

    def picture(self, image_id: int) -> tuple[str, bytes]:
        """(file suffix, encoded bytes). Raises DataError."""
        return self.refer.picture(image_id)


def expressions(options: Mapping[str, Any]) -> Expressions:
    """The data set of `ReferringData`. A generated world that is gone is written again. Raises DataError."""
    generate = options["generate"]
    root = data_root(str(options["root"]), generate is not None)
    if generate is not None:
        world = ToyWorld(**generate.get("init_args", generate))
        if not world.matches(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_name(f"{root.name}.lock")):
                world.write(root)
    dataset = str(options["dataset"])
    is_lmdb = options["layout"] == "lmdb"
    refer = LmdbRefer(root, dataset) if is_lmdb else Refer(root, dataset, str(options["split_by"]))
    references = list(refer.references)
    if options["shuffle_sentences"]:
        # They were dealt out within a split.
        seed = int(options["seed"])
        references = [ref for split in refer.splits for ref in shuffled_sentences(refer.split(split), seed)]
    return Expressions.over(refer, references)


@dataclass(frozen=True)
class LabelMaps:
    """A benchmark of label maps.

    Attributes:
        tree: the files.
    """

    tree: Tree

    def names(self, name_set: str) -> tuple[str, ...]:
        """Classes by label, background first where there is one. Raises ConfigError for a set that is not there."""
        return scored_classes(self.tree.of, name_set)

    def items(self, split: str) -> list[Item]:
        """Pictures with their label maps; the number of a picture is its place. Raises DataError for what is missing."""
        return self.tree.items(split)

    def label(self, item: Item, classes: int) -> NDArray[np.uint8]:
        """uint8 [h, w], 255 where nothing is scored. Raises DataError."""
        return self.tree.label(item, classes)


def label_maps(options: Mapping[str, Any]) -> LabelMaps:
    """The benchmark of `SemanticData` or `ImageLabelsData`. Raises DataError where it is not there."""
    return LabelMaps(Tree(data_root(str(options["root"]), options["generate"] is not None), benchmark(options["name"])))


@dataclass(frozen=True)
class Episodes:
    """The test episodes of a fold.

    Attributes:
        files: of the set.
        fold: whose classes are tested; 0 without folds.
        pairs: picture and class of each episode, by its number.
        image_ids: number of each picture, by its name.
        side: of the square at which masks are compared.
    """

    files: EpisodeFiles
    fold: int
    pairs: tuple[Pair, ...]
    image_ids: Mapping[str, int]
    side: int

    def mask(self, pair: Pair) -> NDArray[np.uint8]:
        """uint8 [side, side]: 1 the class, 0 the rest, 255 where nothing is scored. Raises DataError."""
        return stretched(self.files.mask(pair), (self.side, self.side))

    def size(self, pair: Pair) -> tuple[int, int]:
        """(height, width) of the picture as stored. Raises DataError."""
        found = decoding.header(contents(self.file(pair)), str(self.file(pair)))
        return found.height, found.width

    def file(self, pair: Pair) -> Path:
        """The picture's."""
        return self.files.root / pair.picture


def episodes(options: Mapping[str, Any]) -> Episodes:
    """The test of `EpisodesData`. A generated world that is gone is written again. Raises DataError."""
    generate, name, fold = options["generate"], str(options["name"]), int(options["fold"])
    root = data_root(str(options["root"]), generate is not None)
    names = None
    if generate is not None:
        world = ToyFolds(**generate.get("init_args", generate))
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f"{root.name}.lock")):
            world.write(root)
        names = None if name == "fss1000" else world.names(name)
    split_files = options["split_files"]
    files = files_of(name, root, None if split_files is None else user_path(split_files), names)
    pairs = tuple(files.episodes(fold, files.test, int(options["episodes"])))
    return Episodes(files, fold, pairs, numbers_of(pairs), int(options["size"]))
