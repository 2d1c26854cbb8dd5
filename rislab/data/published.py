"""How many references, images and sentences the published partitions have: a wrong or cut file shows at once.

Sources: README of `ref_coco` in tensorflow/datasets (references, images); CRIS `utils/dataset.py` (references); sentence
counts of RefCOCO from its published split table. Sentence counts that were only found as totals are left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rislab.data.refer import Reference


class Counts(NamedTuple):
    references: int
    images: int
    sentences: int | None = None


PUBLISHED: dict[tuple[str, str], dict[str, Counts]] = {
    ("refcoco", "unc"): {
        "train": Counts(42404, 16994, 120624),
        "val": Counts(3811, 1500, 10834),
        "testA": Counts(1975, 750, 5657),
        "testB": Counts(1810, 750, 5095),
    },
    ("refcoco", "google"): {
        "train": Counts(40000, 19213),
        "val": Counts(5000, 4559),
        "test": Counts(5000, 4527),
    },
    ("refcoco+", "unc"): {
        "train": Counts(42278, 16992),
        "val": Counts(3805, 1500),
        "testA": Counts(1975, 750),
        "testB": Counts(1798, 750),
    },
    ("refcocog", "umd"): {
        "train": Counts(42226, 21899),
        "val": Counts(2573, 1300),
        "test": Counts(5023, 2600),
    },
    ("refcocog", "google"): {
        "train": Counts(44822, 24698),
        "val": Counts(5000, 4650),
    },
}


def deviation(dataset: str, split_by: str, split: str, references: Sequence[Reference]) -> str:
    """What differs from the published counts, as ``"3810 references (published: 3811)"``; "" when nothing does."""
    published = PUBLISHED.get((dataset, split_by), {}).get(split)
    if published is None:
        return ""
    found = Counts(
        len(references),
        len({reference.image_id for reference in references}),
        sum(len(reference.expressions) for reference in references),
    )
    return ", ".join(
        f"{have} {name} (published: {want})"
        for name, have, want in zip(Counts._fields, found, published, strict=True)
        if want is not None and have != want
    )
