"""DMMI's own: counts of the official modules, switches, shortcuts against the plain way, erasing, losses, release files."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.ablation.table import load
from rislab.ablation.yaml_lines import read_yaml
from rislab.data.batch import MaskQueries
from rislab.data.erasing import word_spans
from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.load import SIZES
from rislab.encoders.swin.model import Swin
from rislab.encoders.torchvision_resnet import ResNet
from rislab.errors import ConfigError, DataError
from rislab.methods.dmmi.erased import erased
from rislab.methods.dmmi.losses import pixel_sentence_contrast, recovery
from rislab.methods.dmmi.mba import CentredPixels, PixelProjection, RegionAttention, WindowAttention
from rislab.methods.dmmi.model import DMMI
from rislab.methods.dmmi.official import from_official, load_official, to_official
from rislab.methods.dmmi.task import DMMITask
from rislab.methods.dmmi.trunk import TrunkSpec
from rislab.nn import attention as kernel
from rislab.testing.contract import INDEX, TEXTS, pictures_of, training_batch
from tests.worlds import ROOT

SMALL: dict[str, Any] = {
    "trunk": TrunkSpec("rislab-tiny-Swin", window=3),
    "bert": BERTSpec("rislab-tiny-BERT"),
    "image_size": 72,
    "max_tokens": 12,
    "drop_path": 0.0,
    "bert_train_layers": 2,
    "decoder_heads": 4,
    "decoder_hidden": 32,
    "decoder_dropout": 0.0,
}


def tiny(**options: Any) -> DMMITask:
    """The method small and with random weights, for the contract suite."""
    return DMMITask(**(SMALL | {"base_lr": 3e-3} | options))


def with_spans(batch: MaskQueries) -> MaskQueries:
    """The same batch with the first word of each sentence to erase."""
    return replace(batch, noun_spans=[(word_spans(text) or [None])[0] for text in batch.texts])


@pytest.mark.parametrize(
    ("trunk", "total", "decoder", "entries"),
    [("swin", 231.69, 94.76, 731), ("resnet", 296.82, 108.03, None)],
)
def test_parameters_are_those_of_the_official_modules(
    trunk: str, total: float, decoder: float, entries: int | None
) -> None:
    with torch.device("meta"):
        model = DMMI(BERT(None), Swin(**SIZES["swin_base"], window=12) if trunk == "swin" else ResNet())
    own = {name: p for name, p in model.named_parameters() if not name.startswith("text.")}
    assert round(sum(p.numel() for p in own.values()) / 1e6, 2) == total
    classifier = ("decoder.", "recovery.", "unread.", "pooling.middle.", "pooling.fine.")
    assert round(sum(p.numel() for name, p in own.items() if name.startswith(classifier)) / 1e6, 2) == decoder
    if entries is not None:
        state = {f"model.{k}": v for k, v in model.state_dict().items() if not k.startswith("text.")}
        assert len(to_official(state)) == entries
        each = [sum(p.numel() for p in fusion.mba.parameters()) / 1e6 for fusion in model.fusions]
        assert [round(n, 2) for n in each] == [2.13, 4.20, 9.97, 28.00]


@pytest.mark.parametrize(
    ("options", "terms", "less"),
    [
        ({"mba": False}, ["cross_entropy", "similarity", "contrastive"], ["fusions.0.mba.words", "fusions.0.text"]),
        ({"mba_directions": "visual_only"}, ["cross_entropy", "similarity", "contrastive"], ["fusions.0.text"]),
        ({"mba_directions": "text_only"}, ["cross_entropy", "similarity", "contrastive"], ["fusions.0.gate"]),
        ({"regions": (1, 3, 5, 7), "token_windows": (1, 2, 3, 4)}, None, []),
        ({"regions": (3,), "token_windows": (2,)}, None, ["fusions.0.mba.pixels.mixing", "fusions.0.mba.words.mixing"]),
        ({"mixing": "uniform"}, None, ["fusions.0.mba.pixels.mixing"]),
        ({"ccr": False}, ["cross_entropy", "contrastive"], ["recovery.", "unread.2."]),
        ({"contrastive": False}, ["cross_entropy", "similarity"], ["pooling."]),
        ({"ccr": False, "contrastive": False}, ["cross_entropy"], ["pooling.", "recovery."]),
        ({"detach_target": False, "mask_padding_in_decoder": True, "mask_padding_in_contrastive": True}, None, []),
        ({"trunk": TrunkSpec("rislab-tiny-ResNet")}, None, ["norms."]),
        ({"image_size": (80, 132)}, None, []),
        ({"bert_dropout": True, "bert_train_embeddings": True, "decoder_dropout": 0.1, "fusion_drop": 0.1}, None, []),
        ({"erase": "random_word", "fill": "mask", "alignment": "official", "when": "every_epoch"}, None, []),
    ],
    ids=str,
)
def test_every_switch_changes_what_it_says_and_leaves_no_parameter_dead(
    options: dict[str, Any], terms: list[str] | None, less: list[str]
) -> None:
    torch.manual_seed(0)
    method = tiny(**options).train()
    keys = [key.removeprefix("model.") for key in method.state_dict()]
    assert not [key for key in keys if key.startswith(tuple(less) or "?")]
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    found = method.losses(with_spans(training_batch(method)))  # type: ignore[arg-type]
    assert list(found) == (terms or ["cross_entropy", "similarity", "contrastive"])
    torch.stack(list(found.values())).sum().backward()
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert not [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


@pytest.mark.parametrize("size", [(9, 7), (3, 2)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_region_is_the_unfolded_window_projected(size: tuple[int, int], k: int) -> None:
    """Section 2.2 of the official code's description, literally: reduce, normalise, unfold, project, normalise, attend."""
    torch.manual_seed(0)
    C, D, N, L = 10, 16, 3, 5
    region = RegionAttention(C, D, k).double()
    x, words = torch.randn(2, *size, C, dtype=torch.float64), torch.randn(N, L, D, dtype=torch.float64)
    present, rows = (torch.arange(L) < torch.tensor([[5], [3], [2]])).double(), torch.tensor([0, 1, 1])
    norm = lambda z: F.instance_norm(z.flatten(2))  # noqa: E731
    q = norm(region.reduce(x).permute(0, 3, 1, 2)).unflatten(2, size)
    q = F.unfold(q, k, padding=k // 2)  # [2, c k k, P]
    q = norm(torch.einsum("oc,bcp->bop", region.gather.weight.flatten(1), q) + region.gather.bias[:, None])
    logits = torch.einsum("ncp,nlc->npl", q[rows], region.key(words) * present[..., None]) / math.sqrt(C)
    plain = (logits + (1e4 * present - 1e4)[:, None]).softmax(-1)
    torch.testing.assert_close(region(x, words, present, rows), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [4, 60], ids=["few", "many"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_token_window_attends_to_projected_pixels_that_are_never_made(positions: int, n: int) -> None:
    """The same numbers as with the projected, normalised map: attention, its gradients, and the weighted sum."""
    torch.manual_seed(0)
    C, D, N, L = 10, 16, 3, 5
    window, value = WindowAttention(C, D, n), PixelProjection(C, D)
    words = torch.randn(N, L, D)
    present, rows = (torch.arange(L) < torch.tensor([[5], [3], [2]])).float(), torch.tensor([0, 1, 1])
    norm = lambda z: F.instance_norm(z.transpose(1, 2)).transpose(1, 2)  # noqa: E731

    def ours(x: Tensor) -> tuple[Tensor, Tensor]:
        pixels = CentredPixels(x, rows)
        B = window(pixels, words, present)
        return B, value.weighted_sum(B, pixels)

    def plain(x: Tensor) -> tuple[Tensor, Tensor]:
        reduced = window.reduce(words)
        tokens = [min(max(i + shift, 0), L - 1) for i in range(L) for shift in range(-(n // 2), (n - 1) // 2 + 1)]
        gathered = reduced[:, tokens].unflatten(1, (L, n)).transpose(2, 3).flatten(2)  # channel, then offset
        q = F.linear(gathered, window.gather.weight.flatten(1), window.gather.bias) * present[..., None]
        B = (q @ norm(window.key(x))[rows].transpose(1, 2) / math.sqrt(C)).softmax(-1)
        return B, B @ norm(value(x))[rows]

    found = []
    for compute in (ours, plain):
        x = torch.randn(2, positions, C, generator=torch.Generator().manual_seed(1)).requires_grad_()
        B, pooled = compute(x)
        gradients = torch.autograd.grad(pooled.sin().sum(), [x, window.key.weight, value.weight, window.gather.weight])
        found.append((B, pooled, *gradients))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert (found[0][0][2, 3] == 1 / positions).all(), "a padded word looks at all pixels alike"


def test_what_does_not_depend_on_the_text_runs_once_a_picture_and_erased_words_only_in_training() -> None:
    method = tiny()
    seen: dict[str, list[int]] = {"stage 1": [], "stage 2": [], "text": [], "recovery": []}

    def note(name: str) -> Any:
        return lambda _m, inputs: seen[name].append(len(inputs[0]))

    method.model.trunk.layers[0].register_forward_pre_hook(note("stage 1"))
    method.model.trunk.layers[1].register_forward_pre_hook(note("stage 2"))
    method.model.text.register_forward_pre_hook(note("text"))
    method.model.recovery.register_forward_pre_hook(note("recovery"))
    assert method.training, "a Trainer keeps the modes that it finds"
    assert not method.model.text.training
    pictures = pictures_of(method, 1)
    at_once = 5 * (pictures[0, 0].numel() // 16) - 1
    with torch.no_grad(), mock.patch("rislab.methods.dmmi.task.POSITIONS_AT_ONCE", at_once):
        method.eval().segment(pictures, ["a", "b", "a", "c", "c"], torch.zeros(5, dtype=torch.int64))
    assert seen == {"stage 1": [1], "stage 2": [4, 1], "text": [3], "recovery": []}
    method.train().losses(with_spans(training_batch(method)))  # type: ignore[arg-type]
    assert seen == {"stage 1": [1, 2], "stage 2": [4, 1, 5], "text": [3, 4, 5], "recovery": [5]}


def test_phrases_are_erased_by_characters_or_as_officially() -> None:
    text = "the man's umbrella"
    tokenizer = tiny().model.text.tokenizer
    assert tokenizer is not None
    tokens = tokenizer.tokens([text, text], 14)
    span = (text.index("umbrella"), len(text))
    exact = erased(tokens, [span, None], "exact", "pad")
    at = [i for i, (start, stop) in enumerate(tokens.offsets[0].tolist()) if start >= span[0] and stop > start]
    assert (exact.ids[0] == 0).nonzero()[:, 0].tolist()[: len(at)] == at
    assert torch.equal(exact.ids[1], tokens.ids[1])
    assert torch.equal(exact.padding, tokens.padding), "what is erased is still attended to"
    official = erased(tokens, [span, None], "official", "mask")
    changed = (official.ids != tokens.ids).nonzero().tolist()
    assert changed == [[0, 3]], 'word 2 is taken to be token 3, which belongs to "man\'s"'
    assert official.ids[0, 3] == tokenizer.mask_id  # type: ignore[attr-defined]
    assert at[0] > 3


def test_losses_are_those_of_the_formulas() -> None:
    torch.manual_seed(0)
    text, found = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    present = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    flag = torch.tensor([1.0, 0, 1])
    cosines = (text * found).sum(-1) / text.norm(dim=-1) / found.norm(dim=-1)
    wanted = 1 - (cosines[0, :3].mean() + cosines[2].mean()) / 3
    torch.testing.assert_close(recovery(text, found, present, flag), wanted)
    assert recovery(text, text, present, torch.ones(3)).abs() < 1e-6
    pixels, sentences = torch.randn(3, 8), torch.randn(3, 8)
    logits = F.normalize(pixels) @ F.normalize(sentences).T / 0.05
    rows = -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal())
    torch.testing.assert_close(pixel_sentence_contrast(pixels, sentences, flag, 0.05), (rows[0] + rows[2]) / 3)
    assert pixel_sentence_contrast(pixels[:1], sentences[:1], torch.ones(1), 0.05) == 0, "no negatives, no contrast"


@pytest.mark.parametrize("zero_indicator", [True, False])
def test_zero_targets_leave_the_auxiliary_losses_unless_told_otherwise(zero_indicator: bool) -> None:
    torch.manual_seed(0)
    method = tiny(zero_indicator=zero_indicator, lambda_sim=1.0, lambda_con=1.0).train()
    batch = training_batch(method)
    assert isinstance(batch, MaskQueries)
    terms = method.losses(replace(batch, no_target=[True] * len(batch)))
    assert (terms["similarity"].item() == 1.0) is zero_indicator
    assert (terms["contrastive"].item() == 0.0) is zero_indicator
    assert terms["cross_entropy"] > 0


def test_only_what_has_a_gradient_is_trained_and_unread_weights_are_kept() -> None:
    method = tiny(bert_train_layers=1).train()
    assert not any(module.training for module in method.model.text.modules())
    frozen = {name for name, p in method.model.named_parameters() if not p.requires_grad and "text." not in name}
    assert {name.split(".")[0] for name in frozen} == {"unread", "fusions"}
    assert {name for name in frozen if name.endswith(".weight") and name.startswith("fusions.")} == {
        "fusions.3.gate.0.weight",
        "fusions.3.gate.2.weight",
    }
    assert tiny(trunk=TrunkSpec("rislab-tiny-ResNet")).model.fusions[3].gate[0].weight.requires_grad


def test_attention_in_chunks_is_the_same_and_drops_what_it_recomputes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "CHUNK", 16)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 50, 8, requires_grad=True) for _ in range(3))
    hidden = torch.zeros(2, 50, dtype=torch.bool)
    hidden[1, 30:] = True
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden[:, None, None])
    chunked = kernel.attention(q, k, v, 1e-9, hidden)  # a rate that drops nothing, and goes through the chunks
    torch.testing.assert_close(chunked, plain)
    for a, b in zip(
        torch.autograd.grad(chunked.sin().sum(), (q, k, v)),
        torch.autograd.grad(plain.sin().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    # With dropout: the gradient is that of the very output, although weights are drawn twice.
    x = torch.randn(1, 1, 40, 4, dtype=torch.float64, requires_grad=True)

    def output(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kernel.attention(x, x, x, 0.5)

    torch.autograd.gradcheck(output, (x,), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 32}, "model.image_size is 32, expected more than 32"),
        ({"regions": (1, 2)}, r"model.regions is \(1, 2\), expected odd numbers"),
        ({"token_windows": ()}, r"model.token_windows is \(\), expected numbers of tokens"),
        ({"warmup_steps": -1}, "model.warmup_steps is -1, expected 0 or more"),
        ({"decoder_heads": 7}, "model.decoder_heads 7 does not divide the text width 64"),
        ({"trunk": TrunkSpec("resnet10")}, "trunk.name 'resnet10' is none of .*did you mean 'resnet101'"),
        ({"trunk": TrunkSpec("resnet50", "/nowhere/x.pth")}, "'/nowhere/x.pth' is no file; expected one, hub or null"),
        ({"trunk": TrunkSpec("swin_base", "toy")}, "swin_base has no such weights"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_a_tagger_without_data_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rislab.data.nouns._nltk", lambda: None)
    with pytest.raises(ConfigError, match="tagger nltk: "):
        tiny(tagger="nltk")
    assert tiny(tagger="nltk", ccr=False).train_transform() is None, "what erases nothing needs no tagger"


def test_resnet_weights_load_by_torchvisions_names(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        names = set(resnet50().state_dict())
        ours = ResNet((3, 4, 6, 3)).state_dict()
    assert set(ours) == {name for name in names if not name.startswith("fc.")}
    torch.manual_seed(0)
    own = tiny(trunk=TrunkSpec("rislab-tiny-ResNet")).model.trunk.state_dict()
    torch.save(own | {"fc.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    found = tiny(trunk=TrunkSpec("rislab-tiny-ResNet", str(tmp_path / "resnet.pth"))).model.trunk.state_dict()
    assert all(torch.equal(found[key], own[key]) for key in own)


def test_files_that_are_no_dmmi_are_named(tmp_path: Path) -> None:
    state = to_official(tiny().state_dict())
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "no_bert.pth")
    with pytest.raises(DataError, match=r"no_bert\.pth: no weights of BERT"):
        load_official(tmp_path / "no_bert.pth")
    with pytest.raises(DataError, match=r"1 keys .* model\.extra\.weight"):
        from_official(state | {"model.extra.weight": torch.ones(1)})
    with pytest.raises(DataError, match=r"fusions\.0\.mba\.pixels\.regions\.0\.gather\.weight: regions \[1, 3, 5\]"):
        to_official(tiny(regions=(3,)).state_dict())


def test_answers_do_not_change_with_the_number_that_are_computed_together() -> None:
    torch.manual_seed(0)
    method = tiny().eval()
    with torch.no_grad():
        together = method.segment(pictures_of(method, 2), TEXTS, INDEX)
        with mock.patch("rislab.methods.dmmi.task.POSITIONS_AT_ONCE", 1):
            torch.manual_seed(0)
            again = tiny().eval()
            alone = again.segment(pictures_of(again, 2), TEXTS, INDEX)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_table_compares_it_with_lavt_on_the_same_data_and_chooses_on_held_out_images() -> None:
    """Both toy recipes but for the method; a data set of the papers is scored by one convention in both rows."""
    table = load(ROOT / "ablations" / "dmmi.yaml")
    for profile in table.profiles.values():
        ours, theirs = (read_yaml(stage.config[0]) for stage in reversed(profile.stages))
        assert ours["data"]["init_args"]["protocol"] == "dmmi"
        assert ours["data"]["init_args"] == theirs["data"]["init_args"] | {"protocol": "dmmi"}, profile.name
        (lavt,) = (row for row in table.rows if row.name == "lavt")
        assert lavt.switches == {"lavt:data.init_args.protocol": "dmmi"}
        if profile.column == "refzom":
            assert ours["data"]["init_args"]["holdout"]["split"] == "train"
            assert ours["data"]["init_args"]["test_splits"] == [profile.split] == ["test"]
    toy = [read_yaml(stage.config[0])["trainer"] for stage in table.profiles["toy"].stages]
    assert toy[0].items() - {("default_root_dir", toy[0]["default_root_dir"])} <= toy[1].items()
