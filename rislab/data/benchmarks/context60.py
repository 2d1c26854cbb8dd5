"""PASCAL Context with background: 60 classes, labels in alphabetical order, as mmsegmentation's converter writes them."""

from rislab.data.benchmark_trees import Benchmark

BENCHMARK = Benchmark(
    title="PASCAL Context (60)",
    folders=("VOCdevkit/VOC2010", "VOC2010"),
    images="JPEGImages/{}.jpg",
    labels="SegmentationClassContext/{}.png",
    list_file="ImageSets/SegmentationContext/{split}.txt",
    names="context",
    has_background=True,
    counts={"val": 5104},
    get="VOC2010, host.robots.ox.ac.uk/pascal/VOC; label maps by mmsegmentation's converter of PASCAL Context",
)
