"""DMMI against the official code: every case found, every tensor stored in it, within the case's own tolerances."""

import argparse
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.data.geometry import Stretch
from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.model import Swin
from rislab.encoders.torchvision_resnet import ResNet
from rislab.losses.two_classes import weighted_cross_entropy
from rislab.methods.dmmi.losses import pixel_sentence_contrast, recovery
from rislab.methods.dmmi.model import DMMI, Answer
from rislab.methods.dmmi.official import BERT as BESIDE
from rislab.methods.dmmi.official import PREFIX, from_official, load_official, to_official
from rislab.metrics.predictions import predictions
from rislab.metrics.protocols import Protocol
from rislab.metrics.referring import COLUMNS, averages, pixel_counts
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("dmmi")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no parity cases under {ROOT / 'dmmi'} (set RISLAB_PARITY)")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)


def model_of(case: Case) -> DMMI:
    """A DMMI of the case's sizes, holding its weights."""
    sizes = case.about["model"]
    text = BERT(
        None,
        sizes["max_tokens"],
        vocab_size=sizes["vocab"],
        width=sizes["text_width"],
        layers=sizes["bert_layers"],
        heads=sizes["bert_heads"],
        hidden=sizes["bert_intermediate"],
        positions=sizes["bert_positions"],
    )
    trunk: Swin | ResNet
    if sizes["backbone"] == "swin":
        trunk = Swin(
            sizes["embed_dim"],
            sizes["depths"],
            sizes["num_heads"],
            sizes["window_size"],
            mlp_ratio=sizes["mlp_ratio"],
            patch_size=sizes["patch_size"],
        )
    else:
        trunk = ResNet(sizes["blocks"], sizes["bottleneck_planes"], sizes["stem_channels"])
    model = DMMI(
        text,
        trunk,
        sizes["regions"],
        sizes["token_windows"],
        heads=sizes["decoder_heads"],
        hidden=sizes["decoder_ffn"],
    )
    state = {key.removeprefix(PREFIX): value for key, value in from_official(case.weights).items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


def run(model: DMMI, case: Case) -> tuple[Answer, Tensor, dict[str, Tensor]]:
    """Answer, recovered words and the loss terms by the names of the case."""
    ids, padding = case["input_ids"], case["attention_mask"] == 0
    answer = model(case["image"], ids, padding, torch.arange(len(ids)))
    assert model.recovery is not None
    assert model.pooling is not None
    recovered = model.recovery(answer.levels[1], model.text(case["input_ids_erased"], padding)[0])
    flag, present = case["target_flag"].float(), (~padding).float()
    logits = answer.logits[:, 1] - answer.logits[:, 0]
    terms = {
        "seg": weighted_cross_entropy(logits, case["target"].float(), (0.9, 1.1)),
        "similarity": recovery(answer.text.detach(), recovered, present, flag),
        "contrastive": pixel_sentence_contrast(
            model.pooling.pixels(answer.levels), model.pooling.sentence(answer.text, None), flag, 0.05
        ),
    }
    terms["total"] = terms["seg"] + 0.01 * terms["similarity"] + 0.01 * terms["contrastive"]
    return answer, recovered, terms


def enlarged(logits: Tensor, case: Case) -> Tensor:
    return F.interpolate(logits, case["target"].shape[-2:], mode="bilinear", align_corners=True)


@functools.cache
def evaluated(case: Case) -> dict[str, Tensor]:
    """Every named intermediate of one forward pass in evaluation mode."""
    model = model_of(case)
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _i, output: found.update({name: output.clone()}))

    first = model.fusions[0].mba
    for k, region in zip(case.about["model"]["regions"], first.pixels.regions, strict=True):
        keep(f"stage1.sim_v{k}", region)
    for n, window in zip(case.about["model"]["token_windows"], first.words.windows, strict=True):
        keep(f"stage1.sim_l{n}", window)
    keep("text2image_y3", model.decoder.attentions[0])
    keep("text2image_y2", model.decoder.attentions[1])
    model.decoder.register_forward_pre_hook(
        lambda _m, inputs: found.update({f"features.{i}": x.clone() for i, x in enumerate(inputs[0])})
    )
    with torch.no_grad():
        answer, recovered, terms = run(model, case)
        found["bert_last_hidden"] = model.text(case["input_ids"], case["attention_mask"] == 0)[0]
        found["bert_last_hidden_erased"] = model.text(case["input_ids_erased"], case["attention_mask"] == 0)[0]
        found["visual_pooled"] = model.pooling.pixels(answer.levels)
    for name in ("v", "l"):
        found |= {key: value[:, None] for key, value in found.items() if key.startswith(f"stage1.sim_{name}")}
    for name, level in (("text2image_y3", answer.levels[0]), ("text2image_y2", answer.levels[1])):
        found[name] = found[name].transpose(1, 2).unflatten(2, level.shape[-2:])
    found |= {"text_out": answer.text.transpose(1, 2), "text_recovered": recovered.transpose(1, 2)}
    found |= {"logits_low": answer.logits, "logits": enlarged(answer.logits, case)}
    return found | {f"loss.{name}": value.view(1) for name, value in terms.items()}


def bounds(case: Case, name: str) -> tuple[float, float]:
    """(atol, rtol) of a tensor of the case."""
    kind = next((kind for kind in ("features", "logits", "loss") if name.startswith(kind)), "other_intermediates")
    found = case.tolerance["losses" if kind == "loss" else kind]
    return found["atol"], found["rtol"]


@each_case
def test_intermediates_logits_and_losses(case: Case) -> None:
    ours = evaluated(case)
    compared = case.names("eval.")
    assert len(compared) > 15, "a case stores the stages"
    for name in compared:
        close(ours[name], case[f"eval.{name}"], name, *bounds(case, name))


@each_case
def test_inference_reads_nothing_of_what_only_losses_need(case: Case) -> None:
    """Without the second decoder, the pooling and the erased sentence the logits are the same to the bit."""
    model = model_of(case)
    with torch.no_grad():
        ids, padding = case["input_ids"], case["attention_mask"] == 0
        model.recovery = model.pooling = None
        logits = model(case["image"], ids, padding, torch.arange(len(ids))).logits
    assert torch.equal(logits, evaluated(case)["logits_low"])


@each_case
def test_losses_gradients_and_running_statistics_in_training(case: Case) -> None:
    model = model_of(case)
    for module in model.modules():  # dropout and drop path stay off
        module.train(isinstance(module, nn.BatchNorm2d))
    answer, _, terms = run(model, case)
    close(enlarged(answer.logits, case), case["trainbn.logits"], "logits", *bounds(case, "logits"))
    for name in case.names("trainbn.loss."):
        close(terms[name].view(1), case[f"trainbn.loss.{name}"], f"loss {name}", *bounds(case, "loss"))
    terms["total"].backward()
    ours = {PREFIX + name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    gradients = to_official(ours)
    allowed = case.tolerance["gradients"]["max_abs_difference_over_max_abs"]
    compared = case.names("trainbn.grad.")
    assert len(compared) >= 8, "a case stores gradients"
    for name in compared:
        official = case[f"trainbn.grad.{name}"]
        key = BESIDE + name.removeprefix("bert.") if name.startswith("bert.") else f"model.{name}"
        close(gradients[key], official, f"gradient of {name}", allowed * float(official.abs().max()))
    buffers = to_official({PREFIX + name: value for name, value in model.named_buffers() if "offsets" not in name})
    for name in case.names("trainbn."):
        if name.endswith("_after"):
            key = f"model.classifier.{name.removesuffix('_after')}"
            close(buffers[key], case[f"trainbn.{name}"], name, *bounds(case, "other"))


@each_case
def test_round_trip_is_strict(case: Case, tmp_path: Path) -> None:
    """Flat, and as a file with `bert_model` and the command line beside the model."""
    ours = from_official(case.weights)
    back = to_official(ours)
    assert back.keys() == case.weights.keys()
    for key in back:
        assert torch.equal(back[key], case.weights[key]), key
    parts = {
        name: {k.removeprefix(f"{name}."): v for k, v in back.items() if k.startswith(f"{name}.")}
        for name in ("model", "bert_model")
    }
    options = {"args": argparse.Namespace(dataset="ref-zom"), "epoch": 3, "optimizer": {"state": {}}}
    torch.save(parts | options, tmp_path / "dmmi.pth")
    found = load_official(tmp_path / "dmmi.pth")
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[key], ours[key]) for key in ours)


@each_case
def test_convention_scores_as_the_official_evaluator_is_read(case: Case) -> None:
    """What the convention `dmmi` makes of our one logit: masks of the official argmax, and the averages of its evaluator.

    The cases record logits and no counts, so the evaluator is our reading of the official test.py: sentences with a referent
    enter the IoUs, the others
    are right when not one pixel is foreground.
    """
    side = case["target"].shape[-1]
    if case["target"].shape[-2] != side:
        pytest.skip("the convention compares squares")
    convention = replace(Protocol.dmmi.convention, side=side)
    logits = evaluated(case)["logits_low"]
    placements = [Stretch(side).place(side, side)] * len(logits)
    found = predictions(logits[:, 1] - logits[:, 0], placements, convention, 0.5)
    official = case["eval.logits"].argmax(1).bool().numpy()
    targets, has_target = case["target"].bool().numpy(), case["target_flag"].bool().tolist()
    rows, ious, empty = [], [], []
    for number, (mask, theirs, target) in enumerate(zip(found, official, targets, strict=True)):
        assert (mask != theirs).sum() <= 2
        rows.append((number, number, number, *pixel_counts(theirs, target), int(not has_target[number])))
        both, either = int((theirs & target).sum()), int((theirs | target).sum())
        if has_target[number]:
            ious.append((both, either, both / either if either else 0.0))
        else:
            empty.append(not theirs.any())
    ours = averages(dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True)), convention)
    wanted = {
        "miou_expr": np.mean([iou for _, _, iou in ious]),
        "oiou": sum(both for both, _, _ in ious) / sum(either for _, either, _ in ious),
        **{f"pr@{x}": np.mean([iou >= x / 100 for _, _, iou in ious]) for x in (50, 60, 70, 80, 90)},
    }
    assert ("acc" in ours) is bool(empty)
    if empty:
        wanted["acc"] = np.mean(empty)
    assert ours == pytest.approx({name: 100 * float(value) for name, value in wanted.items()})
    for name, column in (("eval.intersection", 3), ("eval.union", 4)):  # where a case stores them
        if name in case.outputs:
            close(np.array([row[column] for row in rows]), case[name], name, 2)
