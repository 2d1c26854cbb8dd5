"""MaskCLIP as a method: what the contract suite builds."""

from rislab.encoders.clip.trunk import CLIPSpec
from rislab.methods.maskclip.task import MaskCLIPTask


def tiny() -> MaskCLIPTask:
    """The method small and with random weights, for the contract suite."""
    return MaskCLIPTask(CLIPSpec("rislab-tiny-ViT"), image_size=64, templates="photo")
