"""PASCAL VOC 2012 without background: 20 classes, background pixels are ignored. Not comparable with voc21."""

from dataclasses import replace

from rislab.data.benchmarks.voc21 import BENCHMARK as WITH_BACKGROUND

BENCHMARK = replace(WITH_BACKGROUND, title="PASCAL VOC (20)", has_background=False, reduce_zero_label=True)
