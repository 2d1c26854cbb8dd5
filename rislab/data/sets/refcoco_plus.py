"""RefCOCO+ (Yu et al., ECCV 2016): as RefCOCO, without words of location.

Sentence counts of its splits were found in no source that could be checked; only their sum, 141564, was.
"""

from rislab.data.published import Counts, DataSet

DATA_SET = DataSet(
    folder="refcoco+",
    title="RefCOCO+",
    partitions={
        "unc": {
            "train": Counts(42278, 16992),
            "val": Counts(3805, 1500),
            "testA": Counts(1975, 750),
            "testB": Counts(1798, 750),
        },
    },
    annotations="github.com/lichengunc/refer",
    sources="ref_coco in tensorflow/datasets (references, images); CRIS utils/dataset.py",
)
