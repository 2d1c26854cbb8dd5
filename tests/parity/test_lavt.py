"""LAVT against the official code: every case found, every tensor stored in it, within the case's own tolerances."""

import argparse
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.model import Swin
from rislab.losses.two_classes import weighted_cross_entropy
from rislab.methods.lavt.model import LAVT
from rislab.methods.lavt.official import BESIDE, PREFIX, from_official, load_official, to_official
from rislab.metrics.predictions import predictions
from rislab.metrics.protocols import Protocol
from rislab.metrics.referring import pixel_counts
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("lavt")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no parity cases under {ROOT / 'lavt'} (set RISLAB_PARITY)")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)


def model_of(case: Case) -> LAVT:
    """A LAVT of the case's sizes, holding its weights."""
    sizes = case.about["model"]
    text = BERT(
        None,
        case.about["max_tokens"],
        vocab_size=sizes["vocab"],
        width=sizes["text_width"],
        layers=sizes["bert_layers"],
        heads=sizes["bert_heads"],
        hidden=sizes["bert_intermediate"],
        positions=sizes["bert_max_position"],
    )
    trunk = Swin(
        sizes["embed_dim"],
        sizes["depths"],
        sizes["num_heads"],
        sizes["window"],
        mlp_ratio=sizes["mlp_ratio"],
        patch_size=sizes["patch_size"],
    )
    model = LAVT(text, trunk, heads=sizes["pwam_heads"], decoder_width=sizes["decoder_hidden"])
    state = {key.removeprefix(PREFIX): value for key, value in from_official(case.weights).items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


def logits_of(model: LAVT, case: Case) -> Tensor:
    ids = case["input_ids"]
    return model(case["image"], ids, case["attention_mask"] == 0, torch.arange(len(ids)))


def enlarged(logits: Tensor, case: Case) -> Tensor:
    return F.interpolate(logits, case["target"].shape[-2:], mode="bilinear", align_corners=True)


@functools.cache
def evaluated(case: Case) -> dict[str, Tensor]:
    """Every named intermediate of one forward pass in evaluation mode."""
    model = model_of(case)
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, turn: str = "") -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            value = output.clone()  # ReLUs work in place
            found[name] = value.flatten(1, 2) if turn == "positions" else value

        module.register_forward_hook(hook)

    for i, stage in enumerate(model.trunk.layers):
        fusion = model.fusions[str(i)]
        keep(f"stage{i + 1}.visual", stage, "positions")
        keep(f"stage{i + 1}.attended", fusion.pwam.norm_out)
        keep(f"stage{i + 1}.pwam", fusion, "positions")
        if i + 1 < len(model.trunk.layers):
            keep(f"stage{i + 1}.gate", fusion.gate, "positions")
            stage.downsample.register_forward_pre_hook(
                lambda _m, inputs, name=f"stage{i + 1}.to_next": found.update({name: inputs[0].flatten(1, 2)})
            )
        model.norms[i].register_forward_hook(
            lambda _m, _i, out, name=f"features.{i + 1}": found.update({name: out.permute(0, 3, 1, 2)})
        )
    for level, stage in zip((3, 2, 1), model.decoder.stages, strict=True):
        keep(f"decoder.y{level}", stage)
    model.text.register_forward_hook(lambda _m, _i, out: found.update(bert_last_hidden=out[0]))
    with torch.no_grad():
        found["logits_low"] = logits_of(model, case)
        # The last gate influences nothing and is not computed; official files hold it, and it must have arrived.
        last = len(model.trunk.layers)
        if model.fusions[str(last - 1)].gate is not None:
            found[f"stage{last}.gate"] = model.fusions[str(last - 1)].gate(found[f"stage{last}.pwam"])
    found["logits"] = enlarged(found["logits_low"], case)
    return found


@each_case
def test_intermediates_and_logits(case: Case) -> None:
    ours, tolerance = evaluated(case), case.tolerance
    aside = {"loss", "intersection", "union"}
    compared = [name for name in case.names("eval.") if name not in aside]
    assert len(compared) > 20, "a case stores the stages"
    for name in compared:
        bounds = tolerance["logits" if name.startswith("logits") else "intermediates"]
        close(ours[name], case[f"eval.{name}"], name, bounds["atol"], bounds["rtol"])


@each_case
def test_loss_and_counts(case: Case) -> None:
    logits = evaluated(case)["logits_low"]
    loss = weighted_cross_entropy(logits[:, 1] - logits[:, 0], case["target"].float(), (0.9, 1.1))
    close(loss.view(1), case["eval.loss"], "loss", **case.tolerance["loss"])
    large = evaluated(case)["logits"]
    counts = [
        pixel_counts(a, b) for a, b in zip(large.argmax(1).bool().numpy(), case["target"].bool().numpy(), strict=True)
    ]
    for at, name in enumerate(("intersection", "union")):
        close(np.array([count[at] for count in counts]), case[f"eval.{name}"], name, 2)


@each_case
def test_convention_draws_the_official_masks(case: Case) -> None:
    """What the convention `lavt` makes of our one logit is the official argmax, where pictures have its size."""
    from dataclasses import replace

    from rislab.data.geometry import Stretch

    size = tuple(case["target"].shape[-2:])
    if size[0] != size[1]:
        pytest.skip("the convention compares squares")
    logits = evaluated(case)["logits_low"]
    convention = replace(Protocol.lavt.convention, side=size[0])
    found = predictions(logits[:, 1] - logits[:, 0], [Stretch(size).place(*size)] * len(logits), convention, 0.5)
    for mask, target, wanted_i, wanted_u in zip(
        found, case["target"].bool().numpy(), case["eval.intersection"], case["eval.union"], strict=True
    ):
        intersection, union = pixel_counts(mask, target)[:2]
        assert abs(intersection - int(wanted_i)) <= 2
        assert abs(union - int(wanted_u)) <= 2


@each_case
def test_loss_gradients_and_running_statistics_in_training(case: Case) -> None:
    model = model_of(case)
    for module in model.modules():  # dropout and drop path stay off
        module.train(isinstance(module, nn.BatchNorm2d))
    logits = logits_of(model, case)
    tolerance = case.tolerance
    close(enlarged(logits, case), case["trainbn.logits"], "logits", **tolerance["logits"])
    loss = weighted_cross_entropy(logits[:, 1] - logits[:, 0], case["target"].float(), (0.9, 1.1))
    close(loss.view(1), case["trainbn.loss"], "loss", **tolerance["loss"])
    loss.backward()
    gradients = to_official({PREFIX + name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    allowed = tolerance["gradients"]["max_abs_difference_over_max_abs"]
    compared = case.names("trainbn.grad.")
    assert len(compared) >= 5, "a case stores gradients"
    for name in compared:
        official = case[f"trainbn.grad.{name}"]
        ours = BESIDE + name.removeprefix("bert.") if name.startswith("bert.") else f"model.{name}"
        close(gradients[ours], official, f"gradient of {name}", allowed * float(official.abs().max()))
    assert not set(case.about["zero_gradient_parameters"]) & {key.removeprefix("model.") for key in gradients}
    buffers = to_official({PREFIX + name: value for name, value in model.named_buffers() if "offsets" not in name})
    for name in case.names("trainbn."):
        if name.endswith("_after"):
            key = f"model.classifier.{name.removesuffix('_after')}"
            bounds = tolerance["intermediates"]
            close(buffers[key], case[f"trainbn.{name}"], name, bounds["atol"], bounds["rtol"])


@each_case
def test_round_trip_is_strict(case: Case, tmp_path: Path) -> None:
    """Flat, as files of `lavt` with `bert_model` beside the command line, and as files of `lavt_one`."""
    ours = from_official(case.weights)
    back = to_official(ours)
    assert back.keys() == case.weights.keys()
    for key in back:
        assert torch.equal(back[key], case.weights[key]), key
    options = {"args": argparse.Namespace(model="lavt", window12=True), "epoch": 3, "optimizer": {"state": {}}}
    parts = {
        name: {k.removeprefix(f"{name}."): v for k, v in back.items() if k.startswith(f"{name}.")}
        for name in ("model", "bert_model")
    }
    torch.save(parts | options, tmp_path / "lavt.pth")
    inside = {key.removeprefix("model."): value for key, value in to_official(ours, inside=True).items()}
    assert any(key.startswith("text_encoder.") for key in inside)
    torch.save({"model": inside} | options, tmp_path / "lavt_one.pth")
    for name in ("lavt.pth", "lavt_one.pth"):
        found = load_official(tmp_path / name)
        assert found.keys() == ours.keys()
        assert all(torch.equal(found[key], ours[key]) for key in ours), name
