"""TCL: where it starts, what each switch takes away, what trains in which stage."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rislab.data.batch import LabelledPictures, Viewing
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.errors import ConfigError
from rislab.methods.tcl.model import binarise
from rislab.methods.tcl.task import TCLTask
from rislab.nn.pamr import pamr
from rislab.nn.sliding import boxes, mean_of_windows


def tiny() -> TCLTask:
    """The method small and with random weights, for the contract suite."""
    return TCLTask(
        CLIPSpec("rislab-tiny-ViT"),
        image_size=48,
        binarise="soft",  # deterministic, and with a gradient: what the suite asks for
        warmup_steps=0,
        ust_steps=0,
        base_lr=3e-3,
        pamr_iter=2,
    )


TERMS = {"tcl_v", "tcl_f", "area_pos", "area_neg", "tv_mask", "tv_img"}


def method(**switches: Any) -> TCLTask:
    torch.manual_seed(0)
    return TCLTask(CLIPSpec("rislab-tiny-ViT"), image_size=48, **{"warmup_steps": 0, "base_lr": 1e-2, **switches})


def pairs(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 48, 48), torch.randn(count, 64)


def step(model: TCLTask) -> dict[str, torch.Tensor]:
    model.train()
    pixels, _ = pairs()
    texts = model.prompts.raw(["a", "b c", "d"])
    terms = model.losses_of(pixels, texts)
    torch.stack(list(terms.values())).sum().backward()
    return terms


def test_starts_as_maskclip_four_times_enlarged() -> None:
    model = method().eval()
    pixels, _ = pairs()
    tokens, grid = model.model.frozen(pixels)
    with torch.no_grad():
        found = model.model.grounder(tokens, grid)
        plain = model.model.clip_features(tokens, grid)
        direct, _ = model.model.tower(pixels)
    torch.testing.assert_close(plain, direct)
    torch.testing.assert_close(found, F.interpolate(plain, scale_factor=4, mode="nearest"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("weight", "term"),
    [("tcl_v_w", "tcl_v"), ("tcl_f_w", "tcl_f"), ("area_pos_w", "area_pos"), ("area_neg_w", "area_neg"),
     ("tv_mask_w", "tv_mask"), ("tv_img_w", "tv_img")],
)  # fmt: skip
def test_a_weight_of_zero_takes_away_one_term(weight: str, term: str) -> None:
    whole, without = step(method(binarise="soft")), step(method(binarise="soft", **{weight: 0.0}))
    assert whole.keys() == TERMS
    assert without.keys() == TERMS - {term}


def test_texts_in_parts_give_the_same_losses_and_gradients() -> None:
    one, parts = method(binarise="soft"), method(binarise="soft", texts_at_once=2)
    torch.manual_seed(1)
    a = step(one)
    torch.manual_seed(1)
    b = step(parts)
    for name in TERMS:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-5)
    for (name, p), (_, q) in zip(one.named_parameters(), parts.named_parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("ust_steps", "moves"), [(1, False), (0, True), (None, False)])
def test_copied_blocks_wait_for_their_stage(ust_steps: int | None, moves: bool) -> None:
    model = method(ust_steps=ust_steps)
    before = {name: value.clone() for name, value in model.model.grounder.blocks.state_dict().items()}
    optimiser = model.configure_optimizers()["optimizer"]  # type: ignore[index]
    step(model)
    gradients = [p.grad is not None for p in model.model.grounder.blocks.parameters()]
    assert all(gradients) if ust_steps is not None else not any(gradients), "DDP averages what it finds"
    model.on_before_optimizer_step(optimiser)
    optimiser.step()
    after = model.model.grounder.blocks.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before) == moves
    gates = [p for name, p in model.model.grounder.named_parameters() if name.endswith("gate")]
    assert all(gate.abs() > 0 for gate in gates), "the decoder has begun"


def test_untrained_it_has_nothing_to_train() -> None:
    assert not method(trained=False).is_trained
    assert method(decoder=False).model.grounder.decoder is None
    with pytest.raises(ConfigError, match=r"model\.ie_freeze 9: rislab-tiny-ViT has blocks 1 to"):
        method(ie_freeze=9)


def test_binarised_masks() -> None:
    logits = torch.randn(1000, requires_grad=True)
    hard = binarise(logits, "gumbel", torch.rand(1000))
    assert set(hard.round(decimals=4).tolist()) == {0.0, 1.0}
    hard.sum().backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all(), "straight through"
    assert torch.equal(binarise(logits, "gumbel", torch.full((1000,), 0.5)).round(), binarise(logits, "deterministic"))
    shares = binarise(torch.full((20_000,), 1.0), "gumbel").mean()
    assert float(shares.detach()) == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.02)


def test_refinement_keeps_what_is_flat_and_follows_edges() -> None:
    image = torch.zeros(1, 3, 40, 40)
    image[..., 20:] = 1.0
    flat = torch.full((1, 2, 40, 40), 0.3)
    torch.testing.assert_close(pamr(image, flat), flat, atol=1e-5, rtol=0)
    blurred = torch.linspace(0, 1, 40).expand(1, 1, 40, 40).contiguous()
    refined = pamr(image, blurred)
    within = refined[0, 0, 20, :20].std() + refined[0, 0, 20, 20:].std()
    assert within < blurred[0, 0, 20, :20].std() + blurred[0, 0, 20, 20:].std()
    assert refined[0, 0, 20, 25] - refined[0, 0, 20, 14] > 0.2


@torch.no_grad()
def test_windows_that_are_padded_are_not_cut_at_full_size_for_all_classes() -> None:
    model, names = method(pamr_iter=1).eval(), ["dog", "cat", "sky", "car", "red"]
    image = torch.randint(0, 256, (3, 38, 75), dtype=torch.uint8)
    whole = model.segment_vocabulary(image[None, :, :, :48], names)
    assert whole.shape[-2:] == (38, 48), "the answer of a picture is the picture's"
    scores, margins = model.window_scores(image[None, :, :, :48], names)
    assert scores.shape[-2:] == (16, 16), "a window's is at the decoder's stride"
    assert margins == (5, 5, 0, 0)
    where = boxes(38, 75, 48, 24)
    cut = [model.segment_vocabulary(image[None, :, y1:y2, x1:x2], names)[0] for y1, y2, x1, x2 in where]
    expected = mean_of_windows(cut, where, (38, 75)).argmax(0)
    batch = LabelledPictures(
        [image], [np.zeros((38, 75), np.uint8)], tuple(names), False, Viewing(38, 75, 48, 24, "x"), [0]
    )
    assert torch.equal(model.label(batch)[0], expected)


def test_refinement_of_many_classes_is_that_of_each() -> None:
    image, masks = torch.rand(1, 3, 30, 40), torch.rand(1, 21, 30, 40)
    alone = torch.cat([pamr(image, masks[:, i : i + 1], 3) for i in range(21)], dim=1)
    torch.testing.assert_close(pamr(image, masks, 3), alone, rtol=0, atol=1e-6)  # sums in another order
