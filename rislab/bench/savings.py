"""What a method's savings bring: a training step, or the sentences of a picture, as it is and in the plain ways."""

from typing import Any, Literal, cast

import torch

from rislab.bench.plain_ways import computing_plainly
from rislab.bench.random_weights import with_random_weights
from rislab.bench.timed import timed
from rislab.data.batch import MaskQueries
from rislab.data.geometry import Stretch
from rislab.data.synthetic import batch_of
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter

Work = Literal["step", "sentences"]


def measure(
    recipe: dict[str, Any],
    work: Work,
    images: int,
    sentences: int,
    plain: list[str],
    one_by_one: bool,
    counts: bool = False,
) -> dict[str, float]:
    """One run in this process on the CPU, with random weights and pictures of noise, after a small one.

    The result: see `timed`. What memory is there before is weights and, of a step, their gradients: the small run has made them.

    Args:
        recipe: Class and options of a method.
        work: A forward and backward pass of training with one sentence a picture, or the masks of one picture's sentences.
        images: Of the training step.
        sentences: Of the picture.
        plain: Names of `PLAIN_WAYS`.
        one_by_one: Whether sentences come one at a time, so that nothing of the picture is shared.
        counts: Whether operations are counted, in a second run.

    Raises:
        ConfigError: A method that is not trained on masks of sentences, or without such a saving.
    """
    torch.manual_seed(0)
    method = with_random_weights(recipe).train(work == "step")
    if method.trains_on is not MaskQueries:
        raise ConfigError(f"{type(method).__name__} is not trained on masks of sentences")
    count, each = (images, 1) if work == "step" else (1, sentences)
    batch = cast(MaskQueries, batch_of(MaskQueries, method.geometry, count, each))
    small = cast(MaskQueries, batch_of(MaskQueries, Stretch(96), 1, 1))
    with computing_plainly(tuple(plain), method):
        _run(method, small, work, one_by_one)
        _, cost = timed(lambda: _run(method, batch, work, one_by_one), counts, None if plain or one_by_one else method)
    return cost


def _run(method: TextSegmenter, batch: MaskQueries, work: Work, one_by_one: bool) -> None:
    if work == "step":
        torch.stack(list(method.losses(batch).values())).sum().backward()
        return
    with torch.inference_mode():
        groups = [[text] for text in batch.texts] if one_by_one else [batch.texts]
        for texts in groups:
            method.segment(batch.images, texts, torch.zeros(len(texts), dtype=torch.int64))
