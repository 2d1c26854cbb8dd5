"""CLIP and MaskCLIP on a small benchmark, with one prompt a name: numbers to look at, not to set beside a paper's."""

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.encoders.clip.check import is_decided, read
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.methods.base import TextSegmenter
from rislab.methods.clip.task import CLIPTask
from rislab.methods.maskclip.task import MaskCLIPTask

METHODS: dict[str, type[CLIPTask] | type[MaskCLIPTask]] = {"CLIP": CLIPTask, "MaskCLIP": MaskCLIPTask}


@torch.inference_mode()
def score(method: str, name: str, weights: Path, quick: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of a training-free method on `options.benchmark`, as `rislab test` computes them.

    Args:
        method: one of `METHODS`.
        name: of an open_clip model.
        weights: its file.
        quick: whether it is read with QuickGELU.
        options: of the command line.
    """
    began = time.monotonic()
    protocol = SemanticProtocol.toy if options.benchmark_name.startswith("toy") else SemanticProtocol.tcl
    data = SemanticData(str(options.benchmark), options.benchmark_name, protocol)
    given = None if is_decided(read(weights), name) else quick
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter: TextSegmenter = METHODS[method](CLIPSpec(name, str(weights), given), templates="photo").eval().to(device)
    evaluation, rows, pictures = data.evaluation, [], 0
    for batch in islice(data.pictures_of(options.split), options.pictures):
        outputs = evaluation.predict(segmenter, batch)
        rows.append(evaluation.rows(batch, evaluation.answers(segmenter, batch, outputs)))
        pictures += len(batch.ids)
    columns = np.concatenate(rows).T
    found = evaluation.arithmetic.scores(dict(zip(evaluation.arithmetic.columns, columns, strict=True)))
    return {
        "miou_class": float(found["miou_class"]),
        "aacc": float(found["aacc"]),
        "pictures": pictures,
        "benchmark": data.benchmark,
        "protocol": protocol.name,
        "seconds": time.monotonic() - began,
    }
