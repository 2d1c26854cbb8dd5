"""Methods with random weights, for measurements: nothing is fetched, and no file is needed."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.bert import tiny
from rislab.encoders.bert.tokens import SPECIAL
from rislab.methods.base import TextSegmenter
from rislab.methods.reco.task import ReCoTask
from rislab.training.inference import build, without_pretraining

PIECES = 30522
"""Of Google's BERTs."""


def with_random_weights(recipe: dict[str, Any]) -> TextSegmenter:
    """The method of a recipe, without pretrained weights.

    A BERT without a named vocabulary gets one of single characters and placeholders. Its sentences are cut or padded to a fixed
    number of tokens, and weights are random, so which pieces there are changes neither work nor time. ReCo gets random references
    instead of those of an archive, which are made once for all pictures.

    Args:
        recipe: Class and options.
    """
    recipe = without_pretraining(recipe)
    options = recipe.get("init_args", {})
    bert = options.get("bert")
    if not isinstance(bert, dict) or bert.get("vocabulary") is not None or bert.get("name") == tiny.NAME:
        return _with_references(build(recipe))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text("".join(f"{piece}\n" for piece in _pieces()))
        return build(recipe | {"init_args": options | {"bert": bert | {"vocabulary": str(file)}}})


def _with_references(method: TextSegmenter) -> TextSegmenter:
    if isinstance(method, ReCoTask):
        width = method.model.encoder.width

        def references(names: Sequence[str]) -> Tensor:
            draws = (torch.Generator().manual_seed(crc32(name.encode())) for name in names)
            return F.normalize(torch.stack([torch.randn(width, generator=draw) for draw in draws]), dim=-1)

        vars(method)["references"] = references
    return method


def _pieces() -> list[str]:
    characters = ascii_lowercase + digits
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    return pieces + [f"[unused{number}]" for number in range(PIECES - len(pieces))]
