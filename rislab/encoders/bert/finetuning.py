"""BERT inside a method: which of its layers are trained, and each sentence encoded once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rislab.encoders.bert.model import BERT
from rislab.errors import ConfigError


def train_first_layers(bert: BERT, layers: int, embeddings: bool) -> None:
    """Leave a gradient to the first layers alone.

    LAVT and DMMI train layers 0 to 9 of 12, without the embeddings; the author of LAVT took this over without a study
    (yz93/LAVT-RIS, issue 26).

    Args:
        bert: Changed in place.
        layers: How many are trained.
        embeddings: Whether the embeddings are.

    Raises:
        ConfigError: More layers than there are.
    """
    there = len(bert.encoder.layer)
    if not 0 <= layers <= there:
        raise ConfigError(f"model.bert_train_layers is {layers}: this BERT has {there} layers, expected 0 to {there}")
    bert.requires_grad_(False)
    for layer in bert.encoder.layer[:layers]:
        layer.requires_grad_(True)
    bert.embeddings.requires_grad_(embeddings)


def distinct(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different texts in the order in which they first come, and int64 [N], which of them each text is."""
    found = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return list(found), torch.tensor([found[text] for text in texts], dtype=torch.int64)
