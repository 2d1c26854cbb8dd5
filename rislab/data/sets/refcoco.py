"""RefCOCO (Yu et al., ECCV 2016): short sentences from a two-player game, absolute positions allowed.

testA asks for people, testB for everything else. The google partition divides objects, not images: one image may be in
several of its splits.
"""

from rislab.data.published import Counts, DataSet

DATA_SET = DataSet(
    folder="refcoco",
    title="RefCOCO",
    partitions={
        "unc": {
            "train": Counts(42404, 16994, 120624),
            "val": Counts(3811, 1500, 10834),
            "testA": Counts(1975, 750, 5657),
            "testB": Counts(1810, 750, 5095),
        },
        "google": {"train": Counts(40000, 19213), "val": Counts(5000, 4559), "test": Counts(5000, 4527)},
    },
    annotations="github.com/lichengunc/refer",
    sources="ref_coco in tensorflow/datasets (references, images); CRIS utils/dataset.py; published split table (sentences)",
)
