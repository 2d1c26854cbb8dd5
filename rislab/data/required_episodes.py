"""What few-shot sets need on the disk, and where to get it. Imports nothing heavy: a plan asks."""

from collections.abc import Iterator, Mapping
from typing import Any

from rislab.data.required_files import Missing
from rislab.paths import user_path

SPLITS = "Split files: fewshot_data/data/splits of github.com/isl-org/lang-seg, or data/splits of github.com/juhongm999/hsnet."
FOLDS = 4
PLACES = {
    "pascal5i": (
        ("VOC2012/JPEGImages", "VOC2012/SegmentationClassAug"),
        "pascal/{split}/fold{fold}.txt",
        "Pictures: VOC2012, host.robots.ox.ac.uk/pascal/VOC; SegmentationClassAug as github.com/juhongm999/hsnet links it.",
    ),
    "coco20i": (
        ("COCO2014/train2014", "COCO2014/val2014", "COCO2014/annotations"),
        "coco/{split}/fold{fold}.pkl",
        "Pictures: COCO 2014 (cocodataset.org); masks as github.com/juhongm999/hsnet links them.",
    ),
    "fss1000": (("FSS-1000",), "fss/{split}.txt", "FSS-1000: github.com/HKUSTCV/FSS-1000."),
}


def episodes(options: Mapping[str, Any]) -> Iterator[Missing]:
    """Folders of a set, and its split files."""
    if options.get("generate") is not None or options["name"] not in PLACES:
        return
    root = user_path(options["root"])
    folders, pattern, get = PLACES[options["name"]]
    for name in folders:
        if not (root / name).is_dir():
            yield Missing(str(root / name), get)
    given = options.get("split_files")
    splits = root / "splits" if given is None else user_path(given)
    for split, fold in _lists(options):
        path = splits / pattern.format(split=split, fold=fold)
        if not path.is_file():
            yield Missing(str(path), SPLITS)


def _lists(options: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(split, fold) of the lists that a run reads."""
    own = int(options["fold"])
    others = [fold for fold in range(FOLDS) if fold != own]
    if options["name"] == "fss1000":
        yield from ((split, own) for split in ("trn", "val", "test"))
        return
    # PASCAL-5i has a list of each fold's classes; COCO-20i has one of all classes that are trained on for a fold.
    trained, others_of_all = (others, [own]) if options["name"] == "pascal5i" else ([own], [(own + 1) % FOLDS])
    yield from (("trn", fold) for fold in (*trained, *(others_of_all if options.get("without_tested") else ())))
    yield from (("val", fold) for fold in ([own, *others] if options.get("val_split") == "other_folds" else [own]))
