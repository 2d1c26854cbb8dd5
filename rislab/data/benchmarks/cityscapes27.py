"""Cityscapes, its 27 classes of label id 7 and above, on val; ids below are ignored."""

from dataclasses import replace

from rislab.data.benchmarks.cityscapes import BENCHMARK as EVALUATED

FIRST = 7
"""Label id of the first class. Source: NoelShin/reco, datasets/cityscapes.py."""

BENCHMARK = replace(
    EVALUATED,
    title="Cityscapes (27)",
    labels="gtFine/{split}/{}_gtFine_labelIds.png",
    names="cityscapes27",
    raw="gtFine/{split}/{}_gtFine_labelIds.png",
    raw_labels=dict.fromkeys(range(256), 255) | {FIRST + label: label for label in range(27)},
    is_variant=True,
)
