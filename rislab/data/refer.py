"""One referring data set in memory, from the files of its release: ``ROOT/<dataset>/`` and COCO's pictures."""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rislab.data import annotations, targets
from rislab.data.annotations import Annotation, Faults, Reference
from rislab.data.images import IMAGE_FOLDERS, ImageStore
from rislab.data.masks import RLE
from rislab.data.published import DataSet, data_set, known
from rislab.errors import DataError, nearest
from rislab.metrics.protocols import Convention
from rislab.paths import contents


def required_files(root: Path, dataset: str, split_by: str) -> list[Path]:
    """What must lie where for a data set to be read; the first image folder stands for all that are searched."""
    folder = root / dataset
    return [folder / "instances.json", folder / data_set(dataset).file_names(split_by)[0], root / IMAGE_FOLDERS[0]]


class Refer:
    """Images, annotations that are referred to, references in file order.

    Args:
        root: the folder that holds `dataset`.
        dataset: its folder there.
        split_by: the partition (unc, umd, google, final).
        faults: where contradictions are said; by default the first raises.

    Attributes:
        without_sentences: references without any sentence, by split; they ask nothing and are in no split.

    Raises:
        DataError: With the file and record for whatever contradicts itself.
    """

    def __init__(self, root: Path, dataset: str, split_by: str, faults: Faults | None = None) -> None:
        faults = faults or Faults()
        self.known = data_set(dataset)
        folder = root / dataset
        if not folder.is_dir():
            _refuse_missing(root, dataset, split_by)
        self.refs_file = _refs_file(folder, self.known, split_by)
        self.instances_file = folder / "instances.json"
        with _no_collection():
            instances = annotations.read_instances(self.instances_file, faults)
            self.images = instances.images
            records = annotations.read_refs(self.refs_file)
            read = (annotations.reference(record, self.refs_file, instances, faults) for record in records)
            whole = [reference for reference in read if reference is not None]
            asking = [reference for reference in whole if reference.expressions]
            self.without_sentences = Counter(reference.split for reference in whole if not reference.expressions)
            self.references = tuple(annotations.without_duplicates(asking, self.refs_file, faults))
            self.objects: Counter[tuple[int, int]] = Counter(
                (a.image_id, a.category_id) for a in instances.annotations.values() if not a.is_crowd
            )
            """How many objects of a category an image has, by (image_id, category_id)."""
            # The file describes every object of its images; keeping only those that are used saves most of the memory.
            used = {ann_id for reference in self.references for ann_id in reference.ann_ids}
            self.annotations = {ann_id: instances.annotations[ann_id] for ann_id in sorted(used)}
        self.store = ImageStore(root)

    @property
    def splits(self) -> list[str]:
        """Split names in file order."""
        return list(dict.fromkeys(ref.split for ref in self.references))

    def split(self, name: str) -> list[Reference]:
        """References of one split, in file order. Raises DataError for an unknown name."""
        if name not in self.splits:
            hint = nearest(name, self.splits)
            if not hint and name == "val" and self.known.no_validation:
                hint = f"; {self.known.title} has no validation split: hold out images of train"
            hint += f" ({self.left_out(name)})" if self.left_out(name) else ""
            raise DataError(f"{self.refs_file}: no split {name!r}, it has {self.splits}{hint}")
        return [ref for ref in self.references if ref.split == name]

    def left_out(self, split: str | None = None) -> str:
        """What of a split, or of all, is in no list of references, in words; "" for nothing."""
        return annotations.words_of_left_out(self.without_sentences, split)

    def annotations_of(self, reference: Reference) -> list[Annotation]:
        return [self.annotations[ann_id] for ann_id in reference.ann_ids]

    def target(self, reference: Reference, convention: Convention | None = None) -> RLE:
        """The mask of a reference at the original size, empty for a zero target; with a convention, what that one scores."""
        image = self.images[reference.image_id]
        parts = self.annotations_of(reference)
        try:
            if convention is None:
                return targets.union(parts, image.height, image.width)
            return targets.scored(parts, image.height, image.width, convention)
        except DataError as error:
            ids = ", ".join(map(str, reference.ann_ids))
            raise DataError(f"{self.instances_file}: annotation {ids}: {error}") from None

    def distractors(self, reference: Reference) -> int:
        """Other objects in the image of the categories referred to; -1 for a zero target."""
        if not reference.ann_ids:
            return -1
        meant = self.annotations_of(reference)
        there = sum(self.objects[reference.image_id, category] for category in {a.category_id for a in meant})
        return there - sum(not a.is_crowd for a in meant)

    def check_images(self, references: Iterable[Reference]) -> None:
        """Raises DataError when the picture of any of them is missing."""
        self.store.check([self.images[image_id] for image_id in dict.fromkeys(ref.image_id for ref in references)])

    def image_file(self, image_id: int) -> Path:
        """Raises DataError naming the folders that were searched."""
        return self.store.path(self.images[image_id])

    def picture(self, image_id: int) -> tuple[str, bytes]:
        """(file suffix, encoded bytes). Raises DataError."""
        path = self.image_file(image_id)
        return path.suffix, contents(path)

    def image(self, image_id: int) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3]; see `ImageStore.read`."""
        return self.store.read(self.images[image_id])


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small objects are made and none is garbage: looking for cycles among them doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_missing(root: Path, dataset: str, split_by: str) -> None:
    there = [path.parent.name for path in sorted(root.glob("*/instances.json"))]
    held = f"{root} holds {there}{nearest(dataset, there)}" if there else f"{root} holds no data set"
    held += "" if there else nearest(dataset, known())
    wanted = "\n  ".join(str(path) for path in required_files(root, dataset, split_by))
    get = data_set(dataset)
    raise DataError(
        f"{root / dataset}: no such folder; {held}. Put there:\n  {wanted}\n"
        f"Annotations: {get.annotations}. Pictures: {get.pictures}"
    )


def partitions(folder: Path) -> dict[str, Path]:
    """Refs files of a data set's folder, by partition."""
    found: dict[str, Path] = {}
    for name in data_set(folder.name).files:
        before, _, after = name.partition("{}")
        for path in sorted(folder.glob(name.replace("{}", "*"))):
            found.setdefault(path.name[len(before) : len(path.name) - len(after)], path)
    return found


def _refs_file(folder: Path, what: DataSet, split_by: str) -> Path:
    names = what.file_names(split_by)
    for name in names:
        if (folder / name).exists():
            return folder / name
    there = sorted(path.name for path in partitions(folder).values())
    or_so = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
    raise DataError(f"{folder / names[0]}: no such file{or_so}; found {there or 'no references'} in {folder}")


def by_image(references: Sequence[Reference]) -> dict[int, list[Reference]]:
    """References of each image, in file order."""
    grouped: dict[int, list[Reference]] = {}
    for ref in references:
        grouped.setdefault(ref.image_id, []).append(ref)
    return grouped
