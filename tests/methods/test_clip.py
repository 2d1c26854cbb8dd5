"""CLIP as a method: what the contract suite builds."""

from rislab.encoders.clip.trunk import CLIPSpec
from rislab.methods.clip.task import CLIPTask


def tiny() -> CLIPTask:
    """The method small and with random weights, for the contract suite."""
    return CLIPTask(CLIPSpec("rislab-tiny-ViT"), image_size=64)
