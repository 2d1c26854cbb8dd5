"""gRefCOCO (Liu et al., CVPR 2023): one, several or no referent, on RefCOCO's images and unc splits.

`ann_id` is a list, [-1] for no target. The paper counts 278232 sentences, the released file has 259859 (about 6 % are kept back
for a challenge: henghuiding/gRefCOCO issue 6), and its ids were renumbered on 2023-08-29: the file's hash goes with a result.
"""

from rislab.data.published import Counts, DataSet

DATA_SET = DataSet(
    folder="grefcoco",
    title="gRefCOCO",
    partitions={"unc": {split: Counts() for split in ("train", "val", "testA", "testB")}},
    files=("grefs({}).json", "grefs({}).p"),
    annotations="github.com/henghuiding/gRefCOCO",
    sources="counts of its splits were found in no source",
)
