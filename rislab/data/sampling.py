"""Which samples, in which order: pure functions of (seed, epoch, rank, world size).

A plan is a list of batches; a batch is a list of rows; a row is one image with the (reference, sentence) pairs of
its queries, as indices. Nothing depends on what was drawn before, so a plan can be entered anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rislab.data.annotations import Reference
from rislab.data.refer import by_image
from rislab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Row:
    """One image and its queries: pairs of (index of the reference, index of its sentence).

    Attributes:
        epoch: of training, which a transform is drawn from.
    """

    image_id: int
    queries: tuple[tuple[int, int], ...]
    epoch: int = 0


Plan = list[list[Row]]
Planner = Callable[[int], Plan]
"""Epoch -> plan."""


def training_plan(
    references: Sequence[Reference],
    batch_size: int,
    references_per_image: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    sentences_per_reference: int = 1,
) -> Plan:
    """Uniformly random sentences of every reference, shuffled (CRIS: one each; an epoch has as many items as references).

    Args:
        batch_size: queries a batch and process; whole batches only, the same number for every process.
        references_per_image: how many references of an image share one row of `images`. 1 is official: every reference brings its
            own copy of the image. With k, a batch holds batch_size // k images, and an epoch asks up to k references of every
            image, so that the trunk runs once for k queries.
        sentences_per_reference: sentences drawn of a reference, at most, none twice; they share its image. With s, a batch holds
            batch_size // (k * s) images.
    """
    rng = np.random.default_rng([seed, epoch])
    sentences = [_drawn(rng, len(ref.expressions), sentences_per_reference) for ref in references]
    rows: list[Row] = []
    if references_per_image == 1:
        rows = [
            Row(references[i].image_id, tuple((i, s) for s in sentences[i]), epoch)
            for i in rng.permutation(len(references)).tolist()
        ]
    else:
        index = {ref.ref_id: i for i, ref in enumerate(references)}
        for image_id, refs in by_image(references).items():
            chosen = rng.permutation(len(refs))[:references_per_image].tolist()
            chosen_refs = [index[refs[j].ref_id] for j in chosen]
            rows.append(Row(image_id, tuple((i, s) for i in chosen_refs for s in sentences[i]), epoch))
        rows = [rows[i] for i in rng.permutation(len(rows)).tolist()]
    size = max(1, batch_size // (references_per_image * sentences_per_reference))
    whole = len(rows) // (size * world_size)
    if not whole:
        raise DataError(
            f"{len(rows)} training rows do not fill one batch of {size} on each of {world_size} processes; "
            "lower data.batch_size"
        )
    rows = rows[: whole * size * world_size]
    mine = rows[rank::world_size]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


def sentence_plan(
    references: Sequence[Reference],
    batch_size: int,
    interleaved: bool,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> Plan:
    """Every sentence of every reference is an item of its own, with its own copy of the image (LAVT's and DMMI's Ref-ZOM).

    Args:
        interleaved: spread sentences of references without a referent evenly among the others, so that (nearly) every batch of
            every process has some. DMMI's sampler has this aim: it puts one after every N_other // N_zero others and the rest at
            the end, once for all epochs, and its ranks overlap. Here the order is drawn anew for each epoch, and ranks share it
            out.
    """
    rng = np.random.default_rng([seed, epoch])
    items = [(i, s) for i, ref in enumerate(references) for s in range(len(ref.expressions))]
    order = rng.permutation(len(items)).tolist()
    if interleaved:
        is_zero = [not references[items[at][0]].ann_ids for at in order]
        kinds = [[at for at, zero in zip(order, is_zero, strict=True) if zero is kind] for kind in (False, True)]
        placed = [((turn + 0.5) / len(kind), at) for kind in kinds for turn, at in enumerate(kind)]
        order = [at for _, at in sorted(placed)]
    whole = len(order) // (batch_size * world_size)
    if not whole:
        raise DataError(
            f"{len(order)} training sentences do not fill one batch of {batch_size} on each of {world_size} processes; "
            "lower data.batch_size"
        )
    rows = [Row(references[items[at][0]].image_id, (items[at],), epoch) for at in order]
    # Neighbours go into one batch, and neighbouring batches to the processes in turn: a constant rate is kept on each.
    starts = range(rank * batch_size, whole * world_size * batch_size, world_size * batch_size)
    return [rows[start : start + batch_size] for start in starts]


@dataclass(frozen=True)
class Holdout:
    """Images of a split that are kept from training and stand in for a validation split.

    Attributes:
        split: which split gives them.
        images: share of its images, more than 0 and less than 1.
        seed: of the choice.
    """

    split: str = "train"
    images: float = 0.05
    seed: int = 0

    def image_ids(self, references: Sequence[Reference]) -> frozenset[int]:
        """Ids of the images that are held out, at least one; a function of the split's images and the seed alone."""
        ids = sorted({reference.image_id for reference in references})
        order = np.random.default_rng([self.seed, 11]).permutation(len(ids)).tolist()
        return frozenset(ids[at] for at in order[: max(1, round(self.images * len(ids)))])


def _drawn(rng: np.random.Generator, count: int, wanted: int) -> list[int]:
    """Indices of up to `wanted` of `count` sentences, each at most once."""
    if wanted == 1:
        return [int(rng.integers(count))]
    return [int(i) for i in rng.permutation(count)[:wanted]]


def parts_of(plan: Plan, parts: int) -> Plan:
    """Each batch as so many smaller ones, in order and as equal as can be. Raises ConfigError when a batch has fewer rows."""
    smallest = min(map(len, plan), default=parts)
    if smallest < parts:
        raise ConfigError(f"a batch of {smallest} rows cannot be computed in {parts} parts")
    return [rows[i * len(rows) // parts : (i + 1) * len(rows) // parts] for rows in plan for i in range(parts)]


def evaluation_plan(references: Sequence[Reference], images: int, rank: int = 0, world_size: int = 1) -> Plan:
    """Every sentence of every reference once; all sentences of an image in one row; `images` rows a batch.

    Processes get every world_size-th image: nothing is padded, nothing repeated. Where there are fewer images than processes,
    one that would have none gets the first image again, since all take part in every collective; scores count a sentence once.

    Raises:
        DataError: There is no image.
    """
    index = {ref.ref_id: i for i, ref in enumerate(references)}
    rows = [
        Row(image_id, tuple((index[ref.ref_id], s) for ref in refs for s in range(len(ref.expressions))))
        for image_id, refs in by_image(references).items()
    ]
    if not rows:
        raise DataError("no images to evaluate on: the split has none")
    mine = rows[rank::world_size] or rows[:1]
    return [mine[start : start + images] for start in range(0, len(mine), images)]


def shuffled_sentences(references: Sequence[Reference], seed: int) -> list[Reference]:
    """The same references with their sentence lists dealt out anew: a control in which language says nothing.

    Sentence ids move with the sentences, so that every id still occurs once.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(references)).tolist()
    # Handing on along one ring: none keeps its own, as one in a few would in a free permutation of few references.
    giver = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [replace(ref, expressions=references[giver[i]].expressions) for i, ref in enumerate(references)]
