"""COCO-Object: 80 things and background on COCO val2017. Nothing is ignored: stuff and unlabelled pixels are background."""

from dataclasses import replace

from rislab.data.benchmarks.coco_stuff import BENCHMARK as STUFF
from rislab.data.benchmarks.coco_stuff import RAW

BENCHMARK = replace(
    STUFF,
    title="COCO-Object (81)",
    labels="annotations/{split}2017/{}_instanceTrainIds.png",
    names="coco_things",
    has_background=True,
    raw_labels={raw: label + 1 if label < 80 else 0 for raw, label in RAW.items()} | {255: 0},
)
