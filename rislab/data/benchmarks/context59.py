"""PASCAL Context without background: 59 classes, background pixels are ignored."""

from dataclasses import replace

from rislab.data.benchmarks.context60 import BENCHMARK as WITH_BACKGROUND

BENCHMARK = replace(WITH_BACKGROUND, title="PASCAL Context (59)", has_background=False, reduce_zero_label=True)
