"""PASCAL VOC 2012 with its background as class 0: 21 classes. Void borders are ignored."""

from rislab.data.benchmark_trees import Benchmark

BENCHMARK = Benchmark(
    title="PASCAL VOC (21)",
    folders=("VOCdevkit/VOC2012", "VOC2012"),
    images="JPEGImages/{}.jpg",
    labels="SegmentationClass/{}.png",
    list_file="ImageSets/Segmentation/{split}.txt",
    names="voc",
    has_background=True,
    counts={"val": 1449},
    get="VOC2012, host.robots.ox.ac.uk/pascal/VOC",
)
