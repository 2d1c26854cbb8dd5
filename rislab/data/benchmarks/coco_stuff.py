"""COCO-Stuff: 171 classes on COCO val2017. Unlabelled pixels are ignored."""

from rislab.data.benchmark_trees import Benchmark

ABSENT = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
"""Raw values that no class has: gaps in COCO's category ids, less one."""

RAW = {raw: label for label, raw in enumerate(sorted(set(range(182)) - ABSENT))}
"""Value in the released maps (category id - 1) -> label; mmsegmentation's coco_stuff164k converter."""

BENCHMARK = Benchmark(
    title="COCO-Stuff (171)",
    folders=("coco_stuff164k", "coco"),
    images="images/{split}2017/{}.jpg",
    labels="annotations/{split}2017/{}_labelTrainIds.png",
    names="coco_stuff",
    raw="annotations/{split}2017/{}.png",
    raw_labels=RAW | {255: 255},
    counts={"val": 5000},
    get="cocodataset.org, val2017; stuffthingmaps_trainval2017.zip, github.com/nightrome/cocostuff",
)
