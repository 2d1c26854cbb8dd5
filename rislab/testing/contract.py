"""Checks of one method, each a function of a factory that builds it small and with random weights."""

import io
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from rislab.data.batch import Captions, Images, LabelledPictures, MaskQueries, Viewing, members
from rislab.data.synthetic import batch_of
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.nn import matrix_products
from rislab.nn.multi_scale import MultiScale

Factory = Callable[[], TextSegmenter]
"""Builds the method anew, with random weights, in a second or less."""

TEXTS = ["red circle", "the blue square left of it", "red circle", "", "ünïcödé 🙂 שלום"]
INDEX = torch.tensor([0, 0, 1, 1, 1])
STEPS = 60
"""Of the check that a method overfits two samples."""


def texts_of(method: TextSegmenter) -> list[str]:
    """Five sentences, or class names of a method that answers no others; the first and the third are the same."""
    if method.vocabulary is None:
        return TEXTS
    return [method.vocabulary[number] for number in (0, 1, 0, 2, 1)]


def names_of(method: TextSegmenter) -> tuple[str, ...]:
    """Three class names."""
    return ("dog", "cat", "sky") if method.vocabulary is None else method.vocabulary[:3]


def check_method(factory: Factory) -> None:
    """Run every check that applies to a method.

    Args:
        factory: builds the method anew, small and with random weights.

    Raises:
        AssertionError: A promise is broken; the message names the check.
    """
    for check in CHECKS:
        if applies(check, factory):
            torch.manual_seed(0)
            try:
                check(factory)
            except AssertionError as error:
                raise AssertionError(f"{check.__name__}: {error}") from error


def pictures_of(method: TextSegmenter, count: int = 2) -> Tensor:
    """Noise in the method's frame, uint8 [count, 3, H, W]."""
    return torch.randint(0, 256, (count, 3, *method.geometry.size), dtype=torch.uint8)


def training_batch(method: TextSegmenter) -> Images:
    """A batch of what the method trains on; of mask queries, one with odd texts, soft and empty masks."""
    assert method.trains_on is not None, "a method that is trained declares trains_on"
    kind = members(method.trains_on)[0]
    if kind is not MaskQueries:
        return batch_of(kind, method.geometry, images=3, vocabulary=method.vocabulary)
    height, width = method.geometry.size
    masks = torch.zeros(len(TEXTS), height, width, dtype=torch.uint8)
    masks[0, : height // 2] = 255
    masks[1, :, : width // 2] = 255
    masks[3] = 128  # and masks[4] stays empty
    ids = list(range(len(TEXTS)))
    return MaskQueries(
        images=pictures_of(method),
        image_ids=[1, 2],
        placements=[method.geometry.place(height, width)] * 2,
        texts=TEXTS,
        image_index=INDEX,
        mask_bytes=masks,
        ref_ids=ids,
        sent_ids=ids,
        no_target=[False] * len(ids),
    )


def total(method: TextSegmenter, batch: Images) -> Tensor:
    """The sum of the loss terms."""
    return torch.stack(list(method.losses(batch).values())).sum()


def optimiser_of(method: TextSegmenter) -> torch.optim.Optimizer:
    configured: Any = method.configure_optimizers()
    found = configured["optimizer"] if isinstance(configured, dict) else configured
    assert isinstance(found, torch.optim.Optimizer), "configure_optimizers gives one optimiser"
    return found


def step_is_finite_and_no_parameter_is_dead(factory: Factory) -> None:
    method = factory().train()
    with torch.no_grad():  # a gain that starts at zero shuts its whole branch off
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    terms = method.losses(training_batch(method))
    assert terms, "no loss term"
    torch.stack(list(terms.values())).sum().backward()
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    dead = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not dead, f"parameters without a gradient: {dead}"
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None), (
        "a gradient is not finite"
    )


def unused_weights_stay_out_of_training(factory: Factory) -> None:
    """What official weights hold and nothing reads is loaded and exported, and is in no optimiser and no DDP bucket."""
    method = factory()
    for prefix in method.unused:
        assert any(key.startswith(prefix) for key in method.state_dict()), f"unused: no weight begins with {prefix!r}"
    read = [
        name
        for name, p in method.named_parameters()
        if p.requires_grad and method.unused and name.startswith(method.unused)
    ]
    assert not read, f"unused, but trained: {read}"


def segment_answers_each_query_alike_in_any_company(factory: Factory) -> None:
    method = factory().eval()
    pictures, texts = pictures_of(method), texts_of(method)
    with torch.no_grad():
        together = method.segment(pictures, texts, INDEX)
        again = method.segment(pictures, texts, INDEX)
        alone = torch.cat(
            [
                method.segment(pictures[i : i + 1], [text], torch.zeros(1, dtype=torch.int64))
                for text, i in zip(texts, INDEX, strict=True)
            ]
        )
    assert together.shape[0] == len(texts)
    assert together.ndim == 3, "one map [h, w] a query"
    assert torch.equal(together, again), "two calls, two answers"
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(together[0], together[1]), "two sentences, one image, one answer: the text is not read"


def vocabulary_gives_each_name_a_map(factory: Factory) -> None:
    method = factory().eval()
    pictures, names = pictures_of(method), names_of(method)
    with torch.no_grad():
        logits = method.segment_vocabulary(pictures, names)
        backwards = method.segment_vocabulary(pictures, names[::-1])
        second = method.segment_vocabulary(pictures[1:], names)
        one = method.segment(pictures, [names[1], names[1]], torch.tensor([0, 1]))
    assert logits.shape[:2] == (2, 3)
    torch.testing.assert_close(backwards.flip(1), logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(second[0], logits[1], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(logits[:, 0], logits[:, 1]), "two names, one answer"
    if type(method).segment_vocabulary is TextSegmenter.segment_vocabulary:
        torch.testing.assert_close(logits[:, 1], one, atol=1e-4, rtol=1e-3)


def a_closed_vocabulary_refuses_other_names(factory: Factory) -> None:
    method = factory().eval()
    if method.vocabulary is None:
        return
    strange = "no class of any vocabulary"
    refusals = [
        _refusal(lambda: method.segment(pictures_of(method, 1), [strange], torch.zeros(1, dtype=torch.int64))),
        _refusal(lambda: method.segment_vocabulary(pictures_of(method, 1), [strange])),
    ]
    assert all(strange in refusal for refusal in refusals), "a name that the method does not know is answered"


def pictures_are_labelled_at_several_scales(factory: Factory) -> None:
    method = factory().eval()
    if not method.multi_scale:
        return
    scales = MultiScale(52, (0.5, 1.0, 1.5), 48, 32)
    picture = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    blank, view = np.zeros((40, 60), np.uint8), Viewing(48, 200, 48, 32, "given", scales)
    with torch.no_grad():
        (found,) = method.label(LabelledPictures([picture], [blank], names_of(method), False, view, [0]))
        (mirrored,) = method.label(LabelledPictures([picture.flip(-1)], [blank], names_of(method), False, view, [0]))
    assert found.shape == (40, 60)
    assert set(found.unique().tolist()) <= {0, 1, 2}
    assert mirrored.shape == found.shape


def pictures_of_any_size_are_labelled_by_windows(factory: Factory) -> None:
    method = factory().eval()
    sizes, original = [(48, 48), (48, 100), (70, 48)], [(30, 31), (61, 150), (80, 55)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    labels = [np.zeros(size, np.uint8) for size in original]
    names = names_of(method)
    for background in (True, False):
        pack = LabelledPictures(pictures, labels, names, background, Viewing(48, 200, 48, 24, "mmseg"), [0, 1, 2])
        with torch.no_grad():
            found, again = method.label(pack), method.label(pack)
        assert [tuple(label.shape) for label in found] == original
        assert all(int(label.max()) < len(names) + background for label in found)
        assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), "two calls, two answers"


def a_method_without_training_refuses_it(factory: Factory) -> None:
    method = factory()
    assert method.configure_optimizers() is None
    refusal = _refusal(lambda: method.losses(batch_of(MaskQueries, method.geometry)))
    assert "has nothing to train; `rislab test` scores it" in refusal, "losses of a method without training"


def frozen_weights_do_not_move_by_a_bit(factory: Factory) -> None:
    method = factory().train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    optimiser = optimiser_of(method)
    for _ in range(2):
        total(method, training_batch(method)).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
    fixed = {key for key, parameter in method.named_parameters() if not parameter.requires_grad}
    assert all(parameter.grad is None for key, parameter in method.named_parameters() if key in fixed)
    after = method.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in fixed), "a frozen weight has moved"
    assert all(torch.equal(after[key], before[key]) for key in after if method.is_frozen(key)), (
        "a frozen weight has moved"
    )
    optimised = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in method.parameters() if p.requires_grad}, (
        "the optimiser has others than the trained"
    )


def checkpoints_leave_a_frozen_trunk_out_and_require_it(factory: Factory) -> None:
    method, other = factory().eval(), factory().eval()
    checkpoint = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    assert not any(method.is_frozen(key) for key in checkpoint["state_dict"])
    if not method.frozen:
        return
    refusal = _refusal(lambda: other.on_load_checkpoint(dict(checkpoint)))  # random weights of its own
    assert "was trained on a trunk with sha256" in refusal, "a checkpoint was loaded onto another trunk"
    for key, value in other.state_dict().items():
        if other.is_frozen(key):
            value.copy_(method.state_dict()[key])
    del other.trunk
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    _assert_same_answers(method, other)


def _refusal(action: Callable[[], object]) -> str:
    """What the ConfigError of an action says; "" where it raises none."""
    try:
        action()
    except ConfigError as error:
        return str(error)
    return ""


def save_and_load_gives_the_same_answers(factory: Factory) -> None:
    method, other = factory().eval(), factory().eval()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    _assert_same_answers(method, other)


def _assert_same_answers(method: TextSegmenter, other: TextSegmenter) -> None:
    pictures = pictures_of(method)
    with torch.no_grad():
        texts = texts_of(method)
        same = torch.equal(method.segment(pictures, texts, INDEX), other.segment(pictures, texts, INDEX))
    assert same, "the same weights give other answers"


def bfloat16_autocast_trains(factory: Factory) -> None:
    method = factory().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = total(method, training_batch(method))
    loss.backward()
    assert torch.isfinite(loss), "the loss is not finite"


def trains_alike_through_onednn(factory: Factory) -> None:
    """What a network of 20 million parameters meets on a CPU: other products, the same loss and gradients."""
    if not matrix_products.is_available():
        return
    method = factory().eval()  # nothing is drawn
    batch = training_batch(method)
    found = []
    for least in (matrix_products.LARGE, 1):
        with patch.multiple(matrix_products, LARGE=least, LEAST=1), matrix_products.fast_products(method):
            found.append(loss_and_gradients(method, batch))
    plain, through = found
    require_alike(plain, through, most=1e-2)


def loss_and_gradients(method: TextSegmenter, batch: Any) -> dict[str, Tensor]:
    """`loss`, and the gradients by the names of their weights."""
    method.zero_grad()
    loss = total(method, batch)
    loss.backward()
    return {"loss": loss.detach()} | {
        name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None
    }


def require_alike(plain: dict[str, Tensor], other: dict[str, Tensor], most: float) -> None:
    """Raises AssertionError where a value differs by more than `most` of its largest, or of a thousandth of the largest."""
    largest = max(float(value.abs().max()) for value in plain.values())
    for name, value in plain.items():
        scale = max(float(value.abs().max()), 1e-3 * largest)
        difference = float((other[name] - value).abs().max()) / scale
        assert difference < most, f"{name} differs by {difference:.1e} of its largest value"


def overfits_two_samples(factory: Factory) -> None:
    """Masks are learnt by heart; without masks, the texts of two pictures must come to be told apart."""
    method = factory().train()
    kind, *_ = members(method.trains_on)
    batch = _two_halves(method) if kind is MaskQueries else training_batch(method)
    left = {MaskQueries: 0.1, Captions: 0.8}.get(kind, 0.5)
    optimiser = optimiser_of(method)
    losses = []
    for _ in range(STEPS):
        loss = total(method, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all(), "a loss is not finite"
    assert losses[-1] < left * losses[0], f"after {STEPS} steps {losses[-1]:.4f} of {losses[0]:.4f} is left"


def _two_halves(method: TextSegmenter) -> MaskQueries:
    """One picture with two sentences, one for its left half and one for its lower half."""
    height, width = method.geometry.size
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, :, : width // 2] = 255
    masks[1, height // 2 :] = 255
    return MaskQueries(
        images=pictures_of(method, 1),
        image_ids=[1],
        placements=[method.geometry.place(height, width)],
        texts=["left half", "lower part"],
        image_index=torch.zeros(2, dtype=torch.int64),
        mask_bytes=masks,
        ref_ids=[1, 2],
        sent_ids=[1, 2],
        no_target=[False, False],
    )


Check = Callable[[Factory], None]

OF_TRAINED: tuple[Check, ...] = (
    step_is_finite_and_no_parameter_is_dead,
    frozen_weights_do_not_move_by_a_bit,
    bfloat16_autocast_trains,
    trains_alike_through_onednn,
    overfits_two_samples,
)
OF_UNTRAINED: tuple[Check, ...] = (a_method_without_training_refuses_it,)
OF_ALL: tuple[Check, ...] = (
    unused_weights_stay_out_of_training,
    segment_answers_each_query_alike_in_any_company,
    vocabulary_gives_each_name_a_map,
    a_closed_vocabulary_refuses_other_names,
    pictures_of_any_size_are_labelled_by_windows,
    pictures_are_labelled_at_several_scales,
    checkpoints_leave_a_frozen_trunk_out_and_require_it,
    save_and_load_gives_the_same_answers,
)
CHECKS = (*OF_ALL, *OF_TRAINED, *OF_UNTRAINED)


def applies(check: Check, factory: Factory) -> bool:
    """Whether a check is about a method such as this one: trained, or without training."""
    is_trained = factory().is_trained
    return not (check in OF_TRAINED and not is_trained) and not (check in OF_UNTRAINED and is_trained)
