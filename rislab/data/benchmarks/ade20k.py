"""ADE20K of the 2016 scene parsing challenge: 150 classes; label 0, everything else, is ignored."""

from rislab.data.benchmark_trees import Benchmark

BENCHMARK = Benchmark(
    title="ADE20K (150)",
    folders=("ade/ADEChallengeData2016", "ADEChallengeData2016"),
    images="images/{split}/{}.jpg",
    labels="annotations/{split}/{}.png",
    names="ade20k",
    reduce_zero_label=True,
    split_folders={"val": "validation", "train": "training"},
    counts={"val": 2000},
    get="ADEChallengeData2016.zip, sceneparsing.csail.mit.edu",
)
