"""RISCLIP's own promises: every module is the identity at the start, costs nothing when it is off, and trains when it is on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rislab.data.batch import MaskQueries
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.errors import ConfigError
from rislab.methods.risclip.modules import Adapter, Conditioning, Exchange
from rislab.methods.risclip.task import RISCLIPTask


def tiny() -> RISCLIPTask:
    """The method small and with random weights, for the contract suite."""
    return RISCLIPTask(
        CLIPSpec("rislab-tiny-ViT"),
        image_size=64,
        word_len=12,
        stage="joint",
        ske_layers=1,
        ske_mlp=32,
        heads=4,
        decoder_levels=(1, 2),
        decoder_width=(16, 8),
        base_lr=3e-3,
    )


TEXTS = ["red circle", "the blue square left of it", "a"]
INDEX = torch.tensor([1, 0, 1])
OFF = {"adapters": False, "cfe": False, "ske": False}


def task(**options: Any) -> RISCLIPTask:
    """With the same frozen CLIP each time."""
    torch.manual_seed(0)
    small = {"image_size": 64, "word_len": 12, "ske_layers": 2, "ske_mlp": 32, "heads": 4}
    levels = {"decoder_levels": (1, 2), "decoder_width": (16, 8)}
    made = RISCLIPTask(CLIPSpec("rislab-tiny-ViT"), **(small | levels | options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.model.towers.clip.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
        for parameter in made.model.towers.image.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    return made.eval()


def pictures() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batch() -> MaskQueries:
    masks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    masks[0, :20, :30] = masks[1, 30:, 30:] = 255
    places = [task().geometry.place(64, 64)] * 2
    return MaskQueries(
        images=pictures(),
        image_ids=[1, 2],
        placements=places,
        texts=TEXTS,
        image_index=INDEX,
        mask_bytes=masks,
        ref_ids=[1, 2, 3],
        sent_ids=[1, 2, 3],
        no_target=[False] * 3,
    )


def cosine(made: RISCLIPTask) -> Tensor:
    tokens = made.tokenizer(TEXTS, made.word_len)
    with torch.no_grad():
        return made.model.patch_map(made.normalise(pictures()), tokens, INDEX)[0]


CHAIN = [OFF, OFF | {"adapters": True}, OFF | {"adapters": True, "cfe": True}, {}]


@pytest.mark.parametrize("later", [1, 2, 3], ids=["adapters", "cfe", "ske"])
def test_before_training_every_row_of_the_chain_is_frozen_clip_to_the_bit(later: int) -> None:
    assert torch.equal(cosine(task(**CHAIN[later])), cosine(task(**CHAIN[0])))


@pytest.mark.parametrize(
    "options",
    [{"cfe_norms": 3}, {"adapter_input": "branch"}, {"cfe_direction": "text"}, {"ske_parts": "intra"}],
    ids=str,
)
def test_variants_start_as_the_identity_too(options: dict[str, Any]) -> None:
    assert torch.equal(cosine(task(**options)), cosine(task(**OFF)))


def names(made: RISCLIPTask) -> set[str]:
    return {name for name, parameter in made.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("switch", "prefixes"),
    [
        ({"adapters": False}, ("towers.image_adapters.", "towers.text_adapters.")),
        ({"adapter_towers": "image"}, ("towers.text_adapters.",)),
        ({"cfe": False}, ("towers.exchanges.",)),
        ({"ske": False}, ("conditioning.",)),
        ({"map_scale": "none"}, ("head.",)),
    ],
    ids=str,
)
def test_a_switch_removes_exactly_what_it_names(switch: dict[str, Any], prefixes: tuple[str, ...]) -> None:
    whole, without = names(task()), names(task(**switch))
    assert whole - without == {name for name in whole if name.startswith(prefixes)} != set()
    assert not without - whole


def test_a_directed_exchange_has_no_other_way() -> None:
    whole, text = names(task()), names(task(cfe_direction="text"))
    assert all(".to_image." in name for name in whole - text)
    assert any(".to_image." in name for name in whole)


@contextmanager
def counted(kind: type[nn.Module]) -> Iterator[list[int]]:
    calls: list[int] = []
    before = kind.forward
    kind.forward = lambda self, *a: (calls.append(1), before(self, *a))[1]  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        kind.forward = before  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("switch", "kind"),
    [("adapters", Adapter), ("cfe", Exchange), ("ske", Conditioning)],
    ids=["adapters", "cfe", "ske"],
)
def test_what_is_off_is_never_called(switch: str, kind: type[nn.Module]) -> None:
    for on in (True, False):
        made = task(**{switch: on})
        with counted(kind) as calls:
            cosine(made)
        assert bool(calls) == on


@pytest.mark.parametrize("options", [{}, {"cfe_norms": 3}, {"stage": "joint"}], ids=str)
def test_everything_that_is_trained_moves(options: dict[str, Any]) -> None:
    made = task(**options).train()
    before = {name: parameter.clone() for name, parameter in made.model.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    for _ in range(8):
        torch.stack(list(made.losses(batch()).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    still = {name for name, parameter in made.model.named_parameters() if torch.equal(parameter, before[name])}
    assert still == {name for name, parameter in made.model.named_parameters() if not parameter.requires_grad}


def test_with_both_ends_at_zero_an_exchange_is_dead() -> None:
    """Why only the projections back start at zero."""
    torch.manual_seed(0)
    exchange = Exchange((24, 16), 16, 2, 1, True, True)
    for end in (exchange.v2s, exchange.t2s):
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
    v, t, padding = torch.randn(2, 5, 24), torch.randn(2, 4, 16), torch.zeros(2, 4, dtype=torch.bool)
    target_v, target_t = torch.randn(2, 5, 24), torch.randn(2, 4, 16)
    optimiser = torch.optim.AdamW(exchange.parameters(), lr=1e-2, weight_decay=0.0)
    before = {name: parameter.clone() for name, parameter in exchange.named_parameters()}
    for _ in range(50):
        found_v, found_t = exchange(v, t, padding)
        ((found_v - target_v) ** 2).mean().add(((found_t - target_t) ** 2).mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {name for name, parameter in exchange.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"to_image.back.bias", "to_text.back.bias"}


def test_padding_changes_nothing() -> None:
    short, long = task(word_len=12), task(word_len=20)
    for made in (short, long):
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in made.model.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    torch.testing.assert_close(cosine(short), cosine(long), atol=1e-5, rtol=1e-4)


def test_the_second_stage_trains_the_decoder_on_top_of_the_first() -> None:
    first = task()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in first.model.conditioning.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    checkpoint = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    second = task(stage="pixel")
    assert not torch.allclose(cosine(second), cosine(first), atol=1e-4)
    second.start_from(checkpoint)
    torch.testing.assert_close(cosine(second), cosine(first), atol=1e-6, rtol=1e-5)
    assert all(name.startswith("decoder.") for name in names(second))
    second.train()
    modes = {
        name: module.training for name, module in second.model.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert all(modes.values())
    assert not second.model.towers.training
    torch.stack(list(second.losses(batch()).values())).sum().backward()
    assert all((p.grad is not None) == name.startswith("decoder.") for name, p in second.model.named_parameters())
    with pytest.raises(
        ConfigError, match=r"the earlier stage has model\.conditioning\.\S+ of shape .* this one has nothing"
    ):
        task(stage="pixel", ske=False).start_from(checkpoint)


def test_the_untrained_row_has_nothing_to_train_until_the_decoder() -> None:
    assert not task(**OFF).is_trained
    assert task(**OFF, stage="pixel").is_trained
    maps = task(**OFF).segment(pictures(), TEXTS, INDEX)
    assert torch.allclose(maps.flatten(1).amax(1), -maps.flatten(1).amin(1))


def test_the_first_batch_sets_the_shift() -> None:
    made = task().train()
    terms = made.losses(batch())
    assert set(terms) == {"patch_focal", "patch_dice"}
    logits = made._level_logits(pictures(), TEXTS, INDEX)["patch"]
    assert float(logits.mean()) == pytest.approx(-2, abs=1e-3)


def test_impossible_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"decoder_levels \(1, 9\)"):
        task(decoder_levels=(1, 9), stage="pixel")
    with pytest.raises(ConfigError, match=r"cfe_blocks \(3,\): rislab-tiny-ViT has text blocks 1 to 2"):
        task(cfe_blocks=(3,))
