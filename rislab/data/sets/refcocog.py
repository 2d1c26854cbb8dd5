"""RefCOCOg (Mao et al., CVPR 2016): long sentences written without a game.

umd divides images, google objects. The two number their references differently: 9093 of umd is 9531 of google. Sentence
counts of single splits were found in no source that could be checked; the sum is 95010 in both partitions.
"""

from rislab.data.published import Counts, DataSet

DATA_SET = DataSet(
    folder="refcocog",
    title="RefCOCOg",
    partitions={
        "umd": {"train": Counts(42226, 21899), "val": Counts(2573, 1300), "test": Counts(5023, 2600)},
        "google": {"train": Counts(44822, 24698), "val": Counts(5000, 4650)},
    },
    annotations="github.com/lichengunc/refer",
    sources="ref_coco in tensorflow/datasets (references, images)",
)
