"""A constructor a method, small and random: all that a new method adds to the contract suite."""

from collections.abc import Callable

from rislab.clip.trunk import CLIPSpec
from rislab.methods.base import TextSegmenter
from rislab.methods.cris.task import CRISTask

METHODS: dict[str, Callable[[], TextSegmenter]] = {
    "cris": lambda: CRISTask(
        CLIPSpec("rislab-tiny-RN"),
        image_size=64,
        word_len=8,
        fpn_out=(16, 32, 16),
        decoder_layers=1,
        num_head=2,
        dim_ffn=32,
        dropout=0.0,
        base_lr=3e-3,
        lr_multi=1.0,
    ),
}
