"""COCO-Stuff in 27 groups: 171 names are the queries, answers and labels count by group; the pictures of a curated list."""

from dataclasses import replace

from rislab.data.benchmarks.coco_stuff import BENCHMARK as FINE

BENCHMARK = replace(
    FINE,
    title="COCO-Stuff (27)",
    folders=("cocostuff", "coco_stuff164k", "coco"),
    list_file="curated/{split}2017/Coco164kFull_Stuff_Coarse.txt",
    groups="coco_stuff27",
    is_variant=True,
    counts={},
    get=(
        "cocodataset.org, val2017; stuffthingmaps_trainval2017.zip, github.com/nightrome/cocostuff; "
        "the curated lists of github.com/mhamilton723/STEGO"
    ),
)
