from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.data.annotations import Expression, Reference
from rislab.data.sampling import Holdout, Plan, evaluation_plan, sentence_plan, shuffled_sentences, training_plan
from rislab.errors import DataError


def references(per_image: list[int], sentences: int = 3) -> list[Reference]:
    """Interleaved over the images, as files are: the references of an image need not be neighbours."""
    order = sorted((turn, image) for image, count in enumerate(per_image) for turn in range(count))
    return [
        Reference(r, image, (r,), "train", tuple(Expression(10 * r + s, f"{r}.{s}", "") for s in range(sentences)))
        for r, (_, image) in enumerate(order)
    ]


def queries(plan: Plan) -> list[tuple[int, int]]:
    return [pair for batch in plan for row in batch for pair in row.queries]


PER_IMAGE = st.lists(st.integers(1, 4), min_size=4, max_size=14)


@settings(max_examples=40)
@given(PER_IMAGE, st.integers(1, 5), st.integers(1, 4))
def test_evaluation_asks_every_sentence_once_whatever_the_shards(
    per_image: list[int], images: int, world_size: int
) -> None:
    refs = references(per_image)
    shards = [evaluation_plan(refs, images, rank, world_size) for rank in range(world_size)]
    everything = Counter(pair for shard in shards for pair in queries(shard))
    assert everything == Counter((r, s) for r in range(len(refs)) for s in range(3))
    of_image = [row.image_id for shard in shards for batch in shard for row in batch]
    assert sorted(of_image) == list(range(len(per_image)))
    assert all(len(batch) <= images for shard in shards for batch in shard)


@settings(max_examples=40)
@given(PER_IMAGE, st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
def test_training_shares_out_equal_disjoint_batches(per_image: list[int], k: int, world_size: int, epoch: int) -> None:
    refs = references(per_image)
    shards = [training_plan(refs, k, k, 7, epoch, rank, world_size) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    together = queries([batch for shard in shards for batch in shard])
    assert len({r for r, _ in together}) == len(together)
    for shard in shards:
        assert shard == training_plan(refs, k, k, 7, epoch, shards.index(shard), world_size)
        for batch in shard:
            assert len(batch) == 1
            assert {refs[r].image_id for r, _ in batch[0].queries} == {batch[0].image_id}
            assert len(batch[0].queries) <= k
    if k == 1:
        rows = sum(len(shard) for shard in shards)
        assert rows == len(refs) // world_size * world_size
    elif world_size == 1:
        assert [len(row.queries) for row in sorted((b[0] for b in shards[0]), key=lambda row: row.image_id)] == [
            min(k, count) for count in per_image
        ]


def test_sentences_are_drawn_uniformly_and_anew_each_epoch() -> None:
    refs = references([2] * 100)
    drawn = Counter(s for epoch in range(10) for _, s in queries(training_plan(refs, 4, 1, 0, epoch)))
    assert sum(drawn.values()) == 2000
    assert all(abs(count - 2000 / 3) < 5 * (2000 * 2 / 9) ** 0.5 for count in drawn.values())
    assert training_plan(refs, 4, 1, 0, 0) != training_plan(refs, 4, 1, 0, 1)
    assert training_plan(refs, 4, 1, 0, 0) != training_plan(refs, 4, 1, 1, 0)


def test_several_sentences_of_a_reference_share_its_image_and_none_comes_twice() -> None:
    refs = references([3, 1, 4, 2, 2, 3])
    plan = training_plan(refs, 8, 2, 0, 5, sentences_per_reference=2)
    assert [len(batch) for batch in plan] == [2, 2, 2], "8 queries are 2 images with 2 references of 2 sentences"
    for row in (row for batch in plan for row in batch):
        of = Counter(at for at, _ in row.queries)
        assert {refs[at].image_id for at in of} == {row.image_id}
        assert len(set(row.queries)) == len(row.queries)
        assert set(of.values()) == {2}
        assert len(of) <= 2
    everything = queries(training_plan(refs, 3, 1, 0, 0, sentences_per_reference=3))
    assert Counter(everything) == Counter((r, s) for r in range(len(refs)) for s in range(3))
    few = queries(training_plan(references([1] * 4, sentences=2), 3, 1, 0, 0, sentences_per_reference=3))
    assert len(few) == 8, "who has fewer sentences gives all of them"


def test_too_little_for_the_devices_is_said() -> None:
    refs = references([1, 1, 1])
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluation_plan([], 8, 0, 1)
    with pytest.raises(DataError, match=r"3 training rows do not fill one batch of 2 on each of 2 .* data.batch_size"):
        training_plan(refs, 2, 1, 0, 0, 0, 2)


def test_a_process_without_an_image_gets_the_first_one_again() -> None:
    refs = references([1, 2])
    plans = [evaluation_plan(refs, 1, rank, 4) for rank in range(4)]
    assert [[row.image_id for batch in plan for row in batch] for plan in plans] == [
        [refs[0].image_id],
        [refs[-1].image_id],
        [refs[0].image_id],
        [refs[0].image_id],
    ]


@given(st.integers(2, 30), st.integers(0, 5))
def test_shuffled_sentences_leave_none_its_own(count: int, seed: int) -> None:
    refs = references([1] * count)
    dealt = shuffled_sentences(refs, seed)
    assert [(r.ref_id, r.image_id, r.ann_ids) for r in dealt] == [(r.ref_id, r.image_id, r.ann_ids) for r in refs]
    assert all(ours.expressions != theirs.expressions for ours, theirs in zip(dealt, refs, strict=True))
    assert sorted(e.sent_id for r in dealt for e in r.expressions) == sorted(
        e.sent_id for r in refs for e in r.expressions
    )
    assert dealt == shuffled_sentences(refs, seed)


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=8, max_size=30), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_each_sentence_is_an_item_shared_out_equally(zeros: list[bool], size: int, world: int, epoch: int) -> None:
    refs = [
        replace(ref, ann_ids=() if zero else (1,))
        for ref, zero in zip(references([1] * len(zeros)), zeros, strict=True)
    ]
    for interleaved in (False, True):
        shards = [sentence_plan(refs, size, interleaved, 7, epoch, rank, world) for rank in range(world)]
        assert len({len(shard) for shard in shards}) == 1
        assert all(len(batch) == size for shard in shards for batch in shard)
        together = [pair for shard in shards for pair in queries(shard)]
        assert len(set(together)) == len(together) == 3 * len(refs) // (size * world) * size * world
        assert shards == [sentence_plan(refs, size, interleaved, 7, epoch, rank, world) for rank in range(world)]


def test_zero_targets_come_at_a_constant_rate_on_every_process() -> None:
    refs = [replace(ref, ann_ids=() if number % 5 == 0 else (1,)) for number, ref in enumerate(references([1] * 100))]
    for rank in range(2):
        for batch in sentence_plan(refs, 10, True, 0, 3, rank, 2):
            assert sum(not refs[row.queries[0][0]].ann_ids for row in batch) == 2, "a fifth of ten, in each batch"
    plain = [
        sum(not refs[row.queries[0][0]].ann_ids for row in batch) for batch in sentence_plan(refs, 10, False, 0, 3)
    ]
    assert len(set(plain)) > 1, "without interleaving it is chance"


def test_held_out_images_are_a_function_of_the_split_and_the_seed() -> None:
    refs = references([2] * 40)
    held = Holdout(images=0.1).image_ids(refs)
    assert len(held) == 4
    assert held == Holdout(images=0.1).image_ids(refs[::-1])
    assert held != Holdout(images=0.1, seed=1).image_ids(refs)
