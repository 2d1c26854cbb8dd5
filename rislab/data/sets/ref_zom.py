"""Ref-ZOM (Hu et al., ICCV 2023): one, many or no referent.

`ann_id` is a list, empty for zero-target sentences, whose `source` says "zero". Pictures come from train2014 and val2014.
There is no validation split. Counts are those of images; how many sentences a split has was found in no source.
"""

from rislab.data.published import Counts, DataSet

DATA_SET = DataSet(
    folder="ref-zom",
    title="Ref-ZOM",
    partitions={"final": {"train": Counts(images=43749), "test": Counts(images=11329)}},
    files=("refs({}).p", "Ref-ZOM({}).p"),
    annotations="github.com/toggle1995/RIS-DMMI",
    pictures="cocodataset.org, train2014 and val2014",
    sources="the paper, by way of a later one",
    no_validation=True,
)
