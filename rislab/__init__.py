"""rislab: text-driven segmentation under one data layer, one evaluation protocol and one ablation engine."""

__version__ = "0.1.0"
