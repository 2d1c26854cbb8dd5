"""Cityscapes, the 19 classes of its evaluation, on val."""

from rislab.data.benchmark_trees import Benchmark

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the classes, in order; all others are ignored. Source: cityscapesScripts, helpers/labels.py."""

BENCHMARK = Benchmark(
    title="Cityscapes (19)",
    folders=("cityscapes",),
    images="leftImg8bit/{split}/{}_leftImg8bit.png",
    labels="gtFine/{split}/{}_gtFine_labelTrainIds.png",
    names="cityscapes",
    raw="gtFine/{split}/{}_gtFine_labelIds.png",
    raw_labels=dict.fromkeys(range(256), 255) | {value: label for label, value in enumerate(TRAIN_IDS)},
    counts={"val": 500},
    get="cityscapes-dataset.com, leftImg8bit and gtFine",
)
