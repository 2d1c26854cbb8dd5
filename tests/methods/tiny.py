"""A constructor a method, small and random: all that a new method adds to the contract suite."""

from collections.abc import Callable

from rislab.encoders.clip.trunk import CLIPSpec
from rislab.methods.base import TextSegmenter
from rislab.methods.clip.task import CLIPTask
from rislab.methods.cris.task import CRISTask
from rislab.methods.maskclip.task import MaskCLIPTask
from rislab.methods.risclip.task import RISCLIPTask
from rislab.methods.tcl.task import TCLTask

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
    "clip": lambda: CLIPTask(CLIPSpec("rislab-tiny-ViT"), image_size=64),
    "maskclip": lambda: MaskCLIPTask(CLIPSpec("rislab-tiny-ViT"), image_size=64, templates="photo"),
    "risclip": lambda: RISCLIPTask(
        CLIPSpec("rislab-tiny-ViT"),
        image_size=64,
        word_len=12,
        stage="joint",
        ske_layers=1,
        ske_mlp=32,
        heads=4,
        decoder_levels=(1, 2),
        decoder_width=(16, 8),
        base_lr=3e-3,
    ),
    "tcl": lambda: TCLTask(
        CLIPSpec("rislab-tiny-ViT"),
        image_size=48,
        binarise="soft",  # deterministic, and with a gradient: what the suite asks for
        warmup_steps=0,
        ust_steps=0,
        base_lr=3e-3,
        pamr_iter=2,
    ),
}
