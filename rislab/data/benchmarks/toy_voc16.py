"""The toy world's VOC tree without background: 16 kinds of things, ground is ignored."""

from dataclasses import replace

from rislab.data.benchmarks.toy_voc import BENCHMARK as WITH_BACKGROUND

BENCHMARK = replace(WITH_BACKGROUND, title="toy VOC (16)", has_background=False, reduce_zero_label=True)
