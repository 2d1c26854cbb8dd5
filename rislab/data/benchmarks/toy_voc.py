"""The toy world as a VOC tree: 16 kinds of things, background, and a class that never occurs."""

from dataclasses import replace

from rislab.data.benchmarks.voc21 import BENCHMARK as VOC

BENCHMARK = replace(VOC, title="toy VOC (18)", names="toy", counts={}, get="")
