"""What a data folder holds, what is missing, and what is wrong with it: everything counted, nothing repaired.

Faults looked for are those that the official files and readers are known to have: docs/data.md lists them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rislab.data import annotations, masks
from rislab.data.annotations import Annotation, Fault, Faults, Reference
from rislab.data.check.benchmarks import TreeCheck, absent, check_trees
from rislab.data.check.report import EXAMPLES, FaultCount, PictureCheck, Progress
from rislab.data.check.shards import ShardCheck, check_shards
from rislab.data.images import ImageRecord
from rislab.data.locate import DataFolder, search
from rislab.data.published import Counts, count, data_set, deviation, known
from rislab.data.refer import Refer
from rislab.errors import DataError, brief
from rislab.paths import contents, is_file


@dataclass
class SplitCheck:
    """zero_area: references whose annotation has no pixel. deviates: how counts differ from the published ones, "" if not."""

    images: int
    references: int
    expressions: int
    zero_target: int
    zero_area: int
    published: dict[str, int | None] | None
    deviates: str


@dataclass
class SetCheck:
    """One partition of one data set.

    Attributes:
        sha256: of its references file, to go with results.
        notes: what is legal, but treated differently by the official codes.
    """

    dataset: str
    title: str
    split_by: str
    references_file: str
    sha256: str
    splits: dict[str, SplitCheck]
    missing_splits: list[str]
    faults: list[FaultCount]
    notes: dict[str, int]
    pictures: PictureCheck


@dataclass
class Check:
    """`data_sets` (referring), `benchmarks` (label maps) and `shards` that are there.

    Attributes:
        absent: known ones that are not, of the kinds of which there are some, with the files that they need and where to get
            them.
    """

    folder: str
    data_sets: list[SetCheck] = field(default_factory=list)
    benchmarks: list[TreeCheck] = field(default_factory=list)
    shards: list[ShardCheck] = field(default_factory=list)
    absent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing that is there is wrong: no fault, no missing or unreadable picture, no deviating count."""
        checked: list[SetCheck | TreeCheck] = [*self.data_sets, *self.benchmarks]
        return all(
            not (s.faults or s.missing_splits or s.pictures.missing or s.pictures.unreadable)
            and not any(split.deviates for split in s.splits.values())
            for s in checked
        ) and all(one.is_sound for one in self.shards)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_sound": self.is_sound}


def check(folder: Path, decode: bool = True, progress: Progress | None = None) -> Check:
    """Look at every data set, benchmark and shard in `folder` (a data root, or one data set's own folder).

    Args:
        decode: also decode every picture that is referred to, which takes minutes for a real set.
        progress: called with (done, in all), data set by data set.

    Raises:
        DataError: When nothing is there, or a file cannot be read at all.
    """
    there = search(folder)
    result = Check(
        str(folder),
        [_check_set(data_folder, decode, progress) for data_folder in there],
        check_trees(folder, decode, progress),
        check_shards(folder, decode, progress),
    )
    if not (result.data_sets or result.benchmarks or result.shards):
        raise DataError(
            f"{folder}: holds no referring data set, no benchmark of label maps and no image-text shards; expected "
            "refcoco/instances.json and refcoco/refs(unc).p in it, VOCdevkit/VOC2012, NAME-000000.tar or alike"
        )
    if there and not is_file(folder / "instances.json"):
        result.absent += sorted(_absent(there), key=lambda entry: str(entry["dataset"]))
    if result.benchmarks and not _is_one_folder(folder, result.benchmarks):
        result.absent += absent(folder)
    return result


def _absent(there: Sequence[DataFolder]) -> Iterator[dict[str, Any]]:
    for name in known().keys() - {data_folder.dataset for data_folder in there}:
        missing = known()[name]
        split_by = next(iter(missing.partitions), "unc")
        files = [f"{name}/instances.json", f"{name}/{missing.file_names(split_by)[0]}"]
        get = {"annotations": missing.annotations, "pictures": missing.pictures}
        yield {"dataset": name, "title": missing.title, "files": files, "get": get}


def _is_one_folder(folder: Path, found: Sequence[TreeCheck]) -> bool:
    """Whether a benchmark's own folder was given, or a generated world: then the others are not missing."""
    return any(Path(tree.folder) == folder or "toy_voc" in tree.benchmarks for tree in found)


def _check_set(data_folder: DataFolder, decode: bool, progress: Progress | None) -> SetCheck:
    faults = Faults(collect=True)
    refer = Refer(data_folder.root, data_folder.dataset, data_folder.split_by, faults)
    areas = _areas(refer, faults)
    _check_boxes(refer, faults)
    is_toy = data_folder.title.startswith("toy")
    splits = {name: _check_split(refer, data_folder, name, areas, is_toy) for name in refer.splits}
    expected = data_set(data_folder.dataset).partitions.get(data_folder.split_by, {})
    return SetCheck(
        dataset=data_folder.dataset,
        title=data_folder.title,
        split_by=data_folder.split_by,
        references_file=str(refer.refs_file),
        sha256=hashlib.sha256(contents(refer.refs_file)).hexdigest(),
        splits=splits,
        missing_splits=[name for name in expected if name not in splits],
        faults=_counted(faults.found),
        notes={name: n for name, n in _notes(refer).items() if n},
        pictures=_check_pictures(refer, decode, progress),
    )


def _areas(refer: Refer, faults: Faults) -> dict[int, int]:
    """Pixels of each reference, by ref_id; a reference whose annotation cannot be drawn is a fault, and absent."""
    areas = {}
    for reference in refer.references:
        try:
            areas[reference.ref_id] = masks.area(refer.target(reference))
        except DataError as error:
            what = str(error).removeprefix(f"{refer.instances_file}: ")
            faults.add("unreadable mask", refer.instances_file, f"ref_id {reference.ref_id}", what)
            continue
        if reference.ann_ids and not areas[reference.ref_id]:
            ids = ", ".join(map(str, reference.ann_ids))
            what = f"annotation {ids} has no pixel: left out of training, scored in evaluation"
            faults.add("zero-area mask", refer.instances_file, f"ref_id {reference.ref_id}", what)
    return areas


def _check_boxes(refer: Refer, faults: Faults) -> None:
    for record in annotations.parsed(refer.instances_file)["annotations"]:
        wrong = annotations.bad_box(record) if isinstance(record, dict) else ""
        if wrong:
            faults.add("bad box", refer.instances_file, f"annotation {brief(record.get('id'))}", wrong)


def _check_split(refer: Refer, data_folder: DataFolder, name: str, areas: dict[int, int], is_toy: bool) -> SplitCheck:
    references = refer.split(name)
    found = count(references)
    published = data_set(data_folder.dataset).partitions.get(data_folder.split_by, {}).get(name, Counts())
    return SplitCheck(
        images=found.images or 0,
        references=found.references or 0,
        expressions=found.sentences or 0,
        zero_target=sum(len(ref.expressions) for ref in references if not ref.ann_ids),
        zero_area=sum(bool(ref.ann_ids) and areas.get(ref.ref_id) == 0 for ref in references),
        published=None if is_toy or not any(published) else published._asdict(),
        deviates="" if is_toy else deviation(data_folder.dataset, data_folder.split_by, name, references),
    )


def _notes(refer: Refer) -> dict[str, int]:
    """Counts of what is legal, but treated differently by the official codes."""
    used = list(refer.annotations.values())
    expressions = [expression for reference in refer.references for expression in reference.expressions]
    return {
        "references without a sentence, left out of every split": refer.without_sentences.total(),
        "several annotations in one reference": sum(len(ref.ann_ids) > 1 for ref in refer.references),
        "zero-target references": sum(not ref.ann_ids for ref in refer.references),
        "crowd annotations referred to": sum(annotation.is_crowd for annotation in used),
        "masks given as run lengths": sum(not _is_polygons(annotation) for annotation in used),
        "masks of several polygons": sum(_is_polygons(a) and len(a.segmentation) > 1 for a in used),
        "polygons dropped (fewer than three points, or an odd number of coordinates)": sum(map(_dropped, used)),
        "empty sentences": sum(not expression.sent for expression in expressions),
        "sentences that are not ASCII": sum(not expression.raw.isascii() for expression in expressions),
        "sentences given twice in one reference": sum(map(_repeated, refer.references)),
        "sentences of more than 20 words": sum(len(expression.sent.split()) > 20 for expression in expressions),
        "images in several splits": _shared_between_splits(refer),
    }


def _is_polygons(annotation: Annotation) -> bool:
    parts = annotation.segmentation
    return isinstance(parts, list) and all(isinstance(part, list) for part in parts)


def _dropped(annotation: Annotation) -> int:
    if not _is_polygons(annotation):
        return 0
    return sum(len(part) < 6 or len(part) % 2 == 1 for part in annotation.segmentation)


def _repeated(reference: Reference) -> int:
    return len(reference.expressions) - len({expression.sent for expression in reference.expressions})


def _shared_between_splits(refer: Refer) -> int:
    """The google partitions divide objects, not images."""
    splits: Counter[int] = Counter()
    for image_id, _ in {(reference.image_id, reference.split) for reference in refer.references}:
        splits[image_id] += 1
    return sum(n > 1 for n in splits.values())


def _counted(found: Sequence[Fault]) -> list[FaultCount]:
    kinds: dict[str, list[Fault]] = {}
    for fault in found:
        kinds.setdefault(fault.kind, []).append(fault)
    return [FaultCount(kind, len(each), [str(f) for f in each[:EXAMPLES]]) for kind, each in sorted(kinds.items())]


def _check_pictures(refer: Refer, decode: bool, progress: Progress | None) -> PictureCheck:
    used = list(dict.fromkeys(reference.image_id for reference in refer.references))
    records = [refer.images[image_id] for image_id in used]
    found = [refer.store.find(record) is not None for record in records]
    there = [record for record, is_there in zip(records, found, strict=True) if is_there]
    missing = [record.file_name for record, is_there in zip(records, found, strict=True) if not is_there]
    problems: list[str] = []
    if decode:

        def problem(record: ImageRecord) -> str:
            try:
                refer.store.read(record)
            except DataError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor() as pool:  # decoding gives the interpreter free
            for number, what in enumerate(pool.map(problem, there)):
                problems += [what] if what else []
                if progress is not None:
                    progress(number + 1, len(there))
    return PictureCheck(
        expected=len(records),
        missing=len(missing),
        unreadable=len(problems) if decode else None,
        examples=[f"{name}: not found" for name in missing[:EXAMPLES]] + problems[:EXAMPLES],
    )
