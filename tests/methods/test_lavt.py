"""LAVT's own: counts of the official modules, switches, sharing, groups, schedule, release files."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.load import SIZES, SwinSpec
from rislab.encoders.swin.model import Swin
from rislab.errors import ConfigError, DataError
from rislab.methods.lavt.model import LAVT
from rislab.methods.lavt.official import load_official, to_official
from rislab.methods.lavt.task import LAVTTask
from rislab.testing.contract import INDEX, TEXTS, pictures_of, training_batch

SMALL: dict[str, Any] = {
    "swin": SwinSpec("rislab-tiny-Swin", window=3),
    "bert": BERTSpec("rislab-tiny-BERT"),
    "image_size": 72,
    "max_tokens": 12,
    "decoder_width": 16,
    "drop_path": 0.0,
    "bert_train_layers": 2,
}


def tiny(**options: Any) -> LAVTTask:
    """The method small and with random weights, for the contract suite."""
    return LAVTTask(**(SMALL | {"base_lr": 3e-3} | options))


def test_parameters_are_those_of_the_official_modules() -> None:
    with torch.device("meta"):
        model = LAVT(BERT(None), Swin(**SIZES["swin_base"], window=12))
    own = {key: value for key, value in model.state_dict().items() if not key.startswith("text.")}
    parts = dict(model.named_children())
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("text."))
    assert round(count / 1e6, 2) == 118.85
    assert len(to_official({f"model.{key}": value for key, value in own.items()})) == 451
    assert round(sum(p.numel() for p in parts["decoder"].parameters()) / 1e6, 2) == 20.65
    each = [sum(p.numel() for p in fusion.pwam.parameters()) / 1e6 for fusion in model.fusions.values()]
    assert [round(n, 2) for n in each] == [0.26, 0.66, 1.84, 5.77]


def test_what_does_not_depend_on_the_text_runs_once_a_picture() -> None:
    method = tiny().eval()
    pictures = pictures_of(method, 1)
    texts = ["red circle", "blue square", "red circle"] * 4
    seen: dict[str, list[int]] = {"stage 1": [], "stage 2": [], "text": []}

    def note(name: str) -> Any:
        return lambda _m, inputs: seen[name].append(len(inputs[0]))

    method.model.trunk.layers[0].register_forward_pre_hook(note("stage 1"))
    method.model.trunk.layers[1].register_forward_pre_hook(note("stage 2"))
    method.model.text.register_forward_pre_hook(note("text"))
    positions = pictures[0, 0].numel() // 16
    with torch.no_grad(), mock.patch("rislab.methods.lavt.task.POSITIONS_AT_ONCE", 9 * positions - 1):
        method.segment(pictures, texts, torch.zeros(12, dtype=torch.int64))
    assert seen == {"stage 1": [1], "stage 2": [8, 4], "text": [2]}
    late = tiny(language_pathway="none").eval()
    late.model.trunk.layers[3].register_forward_pre_hook(note("stage 1"))
    with torch.no_grad():
        late.segment(pictures, texts, torch.zeros(12, dtype=torch.int64))
    assert seen["stage 1"] == [1, 1], "without a pathway the whole trunk is the picture's alone"


@pytest.mark.parametrize(
    ("options", "more", "less"),
    [
        ({"language_pathway": "none"}, [], ["fusions.0.gate"]),
        ({"language_pathway": "replace"}, ["fusions.0.gate"], ["fusions.0.join"]),
        ({"language_pathway": "concat", "gate": "none"}, ["fusions.0.join"], ["fusions.0.gate"]),
        ({"text_pooling": "mean"}, ["fusions.0.pwam.value"], ["fusions.0.pwam.query", "fusions.0.pwam.key"]),
        ({"gate": "none"}, [], ["fusions.0.gate"]),
        ({"gate_layers": 1}, ["fusions.0.gate.0"], ["fusions.0.gate.2"]),
        ({"gate": "sigmoid"}, ["fusions.0.gate.2"], []),
        ({"inorm_query": False, "inorm_out": False}, [], []),
        ({"fusion_stages": (3, 4)}, ["fusions.2."], ["fusions.0.", "fusions.1."]),
        ({"decoder_input": "gated_sum"}, ["fusions.3.gate"], []),
        ({"pwam_heads": (2, 2, 4, 8)}, [], []),
        ({"pwam_heads": (2, 2, 4, 8), "head_scale": "head"}, [], []),
        ({"loss": "dice"}, [], []),
        ({"loss": "ce+dice"}, [], []),
        ({"bert_dropout": True, "bert_train_embeddings": True}, [], []),
        ({"image_size": (80, 132)}, [], []),
        ({"bert_train_layers": 0}, [], []),
    ],
    ids=str,
)
def test_every_switch_changes_what_it_says_and_leaves_no_parameter_dead(
    options: dict[str, Any], more: list[str], less: list[str]
) -> None:
    torch.manual_seed(0)
    method, official = tiny(**options).train(), tiny()
    keys = [key.removeprefix("model.") for key in method.state_dict()]
    assert all(any(key.startswith(each) for key in keys) for each in more)
    assert not [key for key in keys if key.startswith(tuple(less) or "?")]
    terms = method.losses(training_batch(method))
    assert list(terms) == {"dice": ["dice"], "ce+dice": ["cross_entropy", "dice"]}.get(
        options.get("loss", ""), ["cross_entropy"]
    )
    torch.stack(list(terms.values())).sum().backward()
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    dead = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not dead
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)
    # A switch that changes no shape must change the answer of the same weights.
    state = official.state_dict()
    if method.state_dict().keys() == state.keys() and not options.keys() & {"loss", "image_size", "bert_train_layers"}:
        method.load_state_dict(state)
        with torch.no_grad():
            pictures = pictures_of(official)
            changed = method.train() if "bert_dropout" in options else method.eval()
            assert not torch.allclose(
                changed.segment(pictures, TEXTS, INDEX), official.eval().segment(pictures, TEXTS, INDEX), atol=1e-5
            )


def plain_pwam(self: Any, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
    """PWAM as written in the paper and in the official code: one pixel map a query, every projection on all pixels."""
    x = x if rows is None else x[rows]
    N, P, C = x.shape
    h = self.heads
    norm = lambda z: torch.nn.functional.instance_norm(z.transpose(1, 2)).transpose(1, 2)  # noqa: E731
    q = norm(self.query(x)).view(N, P, h, C // h).transpose(1, 2)
    k, v = ((f(words) * present[..., None]).view(N, -1, h, C // h).transpose(1, 2) for f in (self.key, self.value))
    A = (q @ k.transpose(2, 3) * C**-0.5 + (1e4 * present - 1e4)[:, None, None]).softmax(-1)
    attended = norm(self.out((A @ v).transpose(1, 2).reshape(N, P, C)))
    gelu = torch.nn.functional.gelu
    return gelu(self.project(gelu(self.visual(x)) * attended))


@pytest.mark.parametrize("heads", [(1, 1, 1, 1), (2, 4, 4, 8)])
def test_shared_and_reordered_fusion_gives_the_plain_ones_numbers(heads: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    method = tiny(pwam_heads=heads).eval().double()
    with torch.no_grad():
        for parameter in method.model.fusions.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        pictures = pictures_of(method)
        ours = method.segment(pictures, TEXTS, INDEX)
        with mock.patch("rislab.methods.lavt.model.PWAM.forward", plain_pwam):
            plain = method.segment(pictures, TEXTS, INDEX)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_bert_is_in_evaluation_mode_and_partly_frozen_in_lavt() -> None:
    method = tiny(bert_train_layers=1).train()
    assert not any(module.training for module in method.model.text.modules())
    assert method.model.decoder.training
    text = {name for name, p in method.model.text.named_parameters() if p.requires_grad}
    assert text
    assert all(name.startswith("encoder.layer.0.") for name in text)
    assert tiny(bert_dropout=True).train().model.text.training
    built = tiny()
    assert built.training, "a Trainer keeps the modes that it finds"
    assert not built.model.text.training


def test_groups_and_schedule_follow_the_official_run() -> None:
    method = LAVTTask(**SMALL)
    configured: Any = method.configure_optimizers()
    decayed, kept = configured["optimizer"].param_groups
    assert (decayed["weight_decay"], kept["weight_decay"], decayed["lr"], kept["lr"]) == (0.01, 0.0, 5e-5, 5e-5)
    names = {id(p): name for name, p in method.model.named_parameters()}
    undecayed = {names[id(p)] for p in kept["params"]}
    others = {names[id(p)] for p in decayed["params"]}
    assert {
        "norms.0.weight",
        "trunk.layers.0.blocks.0.norm1.bias",
        "trunk.layers.0.downsample.norm.weight",
    } <= undecayed
    assert "trunk.layers.0.blocks.0.attn.relative_position_bias_table" in undecayed
    assert {"fusions.0.gate.0.weight", "fusions.0.pwam.key.bias", "decoder.stages.0.1.weight"} <= others
    assert "text.encoder.layer.0.output.LayerNorm.weight" in others
    factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert factor(0) == 1
    assert configured["lr_scheduler"]["interval"] == "step"
    with mock.patch.object(LAVTTask, "training_steps", 100):
        again: Any = method.configure_optimizers()
        method.warmup_steps = 10
        warmed: Any = method.configure_optimizers()
    assert again["lr_scheduler"]["scheduler"].lr_lambdas[0](50) == pytest.approx(0.5**0.9)
    share = warmed["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [share(step) for step in (0, 4, 50)] == pytest.approx([0.1, 0.5 * 0.96**0.9, 0.5**0.9])


@pytest.mark.parametrize(
    ("queries", "world", "accumulated", "warned"), [(2, 2, 1, True), (8, 2, 1, False), (4, 1, 4, False)]
)
def test_small_batches_are_warned_of(queries: int, world: int, accumulated: int, warned: bool) -> None:
    method = tiny()
    method._trainer = mock.Mock(
        world_size=world, accumulate_grad_batches=accumulated, datamodule=mock.Mock(batch_size=queries)
    )
    with mock.patch("rislab.nn.lavt_recipe.rank_zero_warn") as warn:
        method.on_fit_start()
    assert warn.called is warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 32}, "model.image_size is 32, expected more than 32"),
        ({"warmup_steps": -1}, "model.warmup_steps is -1, expected 0 or more"),
        ({"fusion_stages": ()}, r"model.fusion_stages is \(\), expected some of 1 to 4"),
        ({"fusion_stages": (1, 5)}, r"model.fusion_stages is \(1, 5\), expected some of 1 to 4"),
        ({"pwam_heads": (1, 5, 1, 1)}, "5 does not divide the 32 channels of stage 2"),
        ({"bert_train_layers": 3}, "model.bert_train_layers is 3: this BERT has 2 layers, expected 0 to 2"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_files_that_are_no_lavt_are_named(tmp_path: Path) -> None:
    state = to_official(tiny().state_dict())
    model = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    torch.save({"model": model}, tmp_path / "no_bert.pth")
    with pytest.raises(DataError, match=r"no_bert\.pth: no weights of BERT"):
        load_official(tmp_path / "no_bert.pth")
    torch.save({"model": model | {"extra.weight": torch.ones(1)}, "bert_model": {}}, tmp_path / "more.pth")
    with pytest.raises(DataError, match=r"more\.pth: 1 keys .* model\.extra\.weight"):
        load_official(tmp_path / "more.pth")
