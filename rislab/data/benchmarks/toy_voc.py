"""The toy world as a VOC tree: 16 kinds of things and background."""

from dataclasses import replace

from rislab.data.benchmarks.voc21 import BENCHMARK as VOC

BENCHMARK = replace(VOC, title="toy VOC (17)", names="toy", counts={}, get="", listed_splits=("train", "val", "test"))
