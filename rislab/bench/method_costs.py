"""What a method's work costs as it is and as a plain loop, in one process and in turn: time, memory, operations, answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal
from unittest.mock import patch

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from rislab.bench.operations import counted, matrix_rate
from rislab.bench.random_weights import with_random_weights
from rislab.bench.resident_memory import peak, start_of_peak
from rislab.data.batch import Images, MaskQueries, members
from rislab.data.synthetic import batch_of
from rislab.encoders.clip.dense import Prompts, averaged
from rislab.encoders.clip.text import encode
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.nn.matrix_products import fast_products

Work = Literal["sentences", "classes", "train"]
Answer = dict[str, Tensor]
"""What was computed, by name."""


@dataclass(frozen=True)
class Piece:
    """A piece of work, done in two ways that give the same answer."""

    ours: Callable[[], Answer]
    plain: Callable[[], Answer]


def measure(recipe: dict[str, Any], work: Work, count: int, repeats: int, side: int | None = None) -> dict[str, Any]:
    """One piece of work on noise with random weights on the CPU, in both ways, in turn.

    Args:
        recipe: Class and options of a method.
        work: `sentences`: the masks of a picture's sentences; plainly one at a time. `classes`: the scores of class names in a
            picture; plainly one at a time. `train`: loss and gradients of a picture with its sentences, or of two pictures for
            a method that does not train on sentences; plainly each sentence with a picture of its own, and gradients of all
            weights, frozen or not, those of the tower that reads class names too.
        count: Of sentences or of class names.
        repeats: Of each way. The least time counts.
        side: Of the pictures in pixels, where it is not the method's.

    Returns:
        `rislab`, `plain`: `seconds`; `cpu_seconds` of all threads; `grown_mb`, MiB of resident memory at the peak over what was
        there before, gradients included; `gflop`. `ratio`: plain over ours. `bound`: of the operations, what sharing can bring
        at most at an equal rate. `difference`: largest of the answers, over the largest value. `matrix_rate`: GFLOP a CPU
        second of this machine. `share_of_rate`: what part of it our way reaches.

    Raises:
        ConfigError: A method without such work.
    """
    torch.manual_seed(0)
    options = recipe.get("init_args", {}) | ({} if side is None else {"image_size": side})
    method = with_random_weights({**recipe, "init_args": options})
    piece = trained(method, count) if work == "train" else answered(method, work, count)
    ways = {"rislab": piece.ours, "plain": piece.plain}
    operations = {way: counted(run) for way, run in ways.items()}
    found: dict[str, dict[str, float]] = {}
    answers: dict[str, Answer] = {}
    for _ in range(repeats):
        for way, run in ways.items():
            answers.pop(way, None)
            cleared(method)
            before = start_of_peak()
            began, worked = time.perf_counter(), time.process_time()
            answers[way] = run()
            cost = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
            cost["grown_mb"] = peak() - before
            earlier = found.get(way, cost)
            found[way] = {name: min(value, earlier[name]) for name, value in cost.items()}
    for way in ways:
        found[way]["gflop"] = operations[way]
    rate = matrix_rate()
    return found | {
        "ratio": {
            name: found["plain"][name] / max(found["rislab"][name], 1e-9) for name in ("cpu_seconds", "grown_mb")
        },
        "bound": operations["plain"] / max(operations["rislab"], 1e-9),
        "difference": difference(answers["rislab"], answers["plain"]),
        "matrix_rate": rate,
        "share_of_rate": operations["rislab"] / found["rislab"]["cpu_seconds"] / rate,
    }


def difference(one: Answer, other: Answer) -> float:
    """Largest difference of two answers, each tensor as a share of its own largest value.

    Some gradients are nothing but rounding, such as that of a bias before a batch norm: shares are of a thousandth of the largest
    value of all at least.
    """
    least = 1e-3 * max(float(value.abs().max()) for value in one.values())
    return max(
        float((value - other[name]).abs().max()) / max(float(value.abs().max()), least, 1e-12)
        for name, value in one.items()
    )


def cleared(method: nn.Module) -> None:
    """Drop the embeddings of class names that are kept, and gradients, so that each run begins alike."""
    for module in method.modules():
        if isinstance(module, Prompts):
            module.clear()
    method.zero_grad(set_to_none=True)


def answered(method: TextSegmenter, work: Work, count: int) -> Piece:
    """The masks of `count` sentences of a picture, or the scores of `count` class names, without gradients.

    Raises:
        ConfigError: A method that answers its own class names only has fewer of them; sentences are no class names.
    """
    method.eval()
    known = method.vocabulary
    if known is not None and (work == "sentences" or count > len(known)):
        raise ConfigError(
            f"{type(method).__name__} answers its own class names only; expected --classes of at most {len(known)}"
        )
    image = torch.randint(0, 256, (1, 3, *method.geometry.size), dtype=torch.uint8)
    texts = [f"the second red thing left of number {n}" for n in range(count)]
    if work == "classes":
        texts = list(known[:count]) if known is not None else [f"thing number {n}" for n in range(count)]

    def scores(some: Sequence[str]) -> Tensor:
        if work == "classes":
            return method.segment_vocabulary(image, some)[0]
        return method.segment(image, some, torch.zeros(len(some), dtype=torch.int64))

    @torch.inference_mode()
    def ours() -> Answer:
        with fast_products(method):
            return {"scores": scores(texts)}

    @torch.inference_mode()
    def plain() -> Answer:
        found = []
        for text in texts:
            found.append(scores([text]))
            for module in method.modules():
                if isinstance(module, Prompts):
                    module.clear()
        return {"scores": torch.cat(found)}

    return Piece(ours, plain)


def trained(method: TextSegmenter, count: int) -> Piece:
    """Loss and gradients of what is trained.

    Raises:
        ConfigError: A method without training.
    """
    kinds = members(method.trains_on)
    if not kinds or not method.is_trained:
        raise ConfigError(f"{type(method).__name__} has nothing to train")
    method.train()
    for module in method.modules():  # both ways have to draw the same, which is nothing
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # of attention, here and in torch
            vars(module)["dropout"] = 0.0
    pictures = 1 if kinds[0] is MaskQueries else 2
    batch = batch_of(kinds[0], method.geometry, pictures, count, vocabulary=method.vocabulary)
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}

    def step(shown: Images) -> Answer:
        torch.manual_seed(1)
        loss = torch.stack(list(method.losses(shown).values())).sum()
        loss.backward()
        found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        return {"loss": loss.detach()} | found

    def plain() -> Answer:
        with everything_trained(method):
            return step(with_own_pictures(batch))

    def ours() -> Answer:
        with fast_products(method):
            return step(batch)

    return Piece(ours, plain)


def with_own_pictures(batch: Images) -> Images:
    """The batch with a copy of its picture for each sentence; other batches as they are."""
    if not isinstance(batch, MaskQueries):
        return batch
    index = batch.image_index.tolist()
    return replace(
        batch,
        images=batch.images[batch.image_index],
        image_ids=[batch.image_ids[i] for i in index],
        placements=[batch.placements[i] for i in index],
        image_index=torch.arange(len(index)),
    )


def embedded(self: Prompts, texts: Sequence[str]) -> Tensor:
    """`Prompts.raw` with all positions of the context, and with gradients."""
    tokens = self.tokenizer(texts, self.context_length)
    return encode(self.clip, tokens)[1].float()


def embedded_names(
    self: Prompts, texts: Sequence[str], templates: Sequence[str] = ("{}",), unit_first: bool = True
) -> Tensor:
    """`Prompts.forward` with gradients, and nothing kept."""
    each = embedded(self, [form.format(text) for text in texts for form in templates])
    return averaged(each.view(len(texts), len(templates), -1), unit_first)


@contextmanager
def everything_trained(method: nn.Module) -> Iterator[None]:
    """Every weight takes a gradient inside, those of CLIP's text tower too, which reads class names anew."""
    frozen = [parameter for parameter in method.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    with patch.multiple(Prompts, raw=embedded, forward=embedded_names):
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
