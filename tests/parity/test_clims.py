"""CLIMS against the numbers of its official code: maps, cosines, every loss term of both versions, inference, random walk."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.clip.text import encode
from rislab.encoders.clip.trunk import build
from rislab.encoders.resnet import ResNet
from rislab.losses.text_matching import matched, suppressed, suppressed_own, unmatched
from rislab.methods.clims.inference import ActivationMaps, activated, labelled, summed
from rislab.methods.clims.judge import Cosines, Judge, own_background
from rislab.methods.clims.model import FORMS, CAMNetwork
from rislab.methods.clims.official import PREFIX, from_official, to_official
from rislab.methods.clims.random_walk import enlarged, walked
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("clims")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no cases below {ROOT}; set RISLAB_PARITY")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
TERMS = ("OTM", "BTM", "CBS", "REG")


def within(case: Case, ours: Tensor, name: str) -> None:
    tolerance = case.tolerance
    if name.startswith("grad.total."):
        # Each term may be off by grad_atol, and the total is their sum with weights up to 24. Where terms cancel, the stored
        # numbers (float32) are themselves 1.4 times grad_atol away from those in float64.
        close(
            ours, case[name], name, tolerance["grad_atol"] * sum(case.about["model"]["hyper"]), tolerance["grad_rtol"]
        )
    elif name.startswith("grad."):
        close(ours, case[name], name, tolerance["grad_atol"], tolerance["grad_rtol"])
    else:
        close(ours, case[name], name, tolerance["atol"], tolerance["rtol"])


def official_weights(case: Case) -> dict[str, Tensor]:
    prefix = case.about["model"]["evaluator_prefix"]
    return {key: value for key, value in case.weights.items() if not key.startswith(prefix)}


def network_of(case: Case) -> CAMNetwork:
    at = case.about["model"]
    trunk = ResNet(at["base"], at["layers"], **FORMS[at["stride"]])
    network = CAMNetwork(trunk, len(at["category_names"]))
    state = from_official(official_weights(case))
    network.load_state_dict({key.removeprefix(PREFIX): value for key, value in state.items()}, strict=True)
    return network.to(memory_format=torch.channels_last).eval()


def clip_of(case: Case) -> torch.nn.Module:
    at = case.about["model"]
    vision = {
        "image_size": at["clip_input_size"],
        "layers": at["clip_vision_layers"],
        "width": at["clip_vision_width"],
        "head_width": at.get("clip_vision_head_width", 64),
        "patch_size": at["clip_patch_size"],
    }
    text = {"context_length": at["context_length"], "vocab_size": at["vocab_size"], "width": at["text_width"]}
    clip = build(vision, text | {"heads": at["text_heads"], "layers": at["text_layers"]}, at["embed_dim"])
    prefix = at["evaluator_prefix"]
    clip.load_state_dict({k.removeprefix(prefix): v for k, v in case.weights.items() if k.startswith(prefix)})
    return clip.eval()


def judge_of(case: Case, classes: str, background: Tensor) -> Judge:
    clip = clip_of(case)
    with torch.no_grad():
        texts = encode(clip, case[classes])[1], encode(clip, background)[1]
    return Judge(clip.visual, *texts, case.about["model"]["clip_input_size"])


def repo_judge(case: Case) -> Judge:
    return judge_of(case, "category_token_ids", case["background_token_ids"])


def repo_terms(case: Case, maps: Tensor, judge: Judge) -> dict[str, Tensor]:
    found = judge(case["image"], maps, case["label"] == 1, True, True)
    assert found.s_bo is not None
    assert found.s_ob is not None
    return {
        "OTM": matched(found.s_oo),
        "BTM": unmatched(found.s_bo),
        "CBS": suppressed(found.s_ob, case.about["model"]["cbs_threshold"]),
        "REG": maps.mean(),
    }


def weighted(case: Case, terms: dict[str, Tensor]) -> Tensor:
    weights = case.about["model"]["hyper"]
    return torch.stack([w * terms[name] for w, name in zip(weights, TERMS, strict=True)]).sum()


@each_case
@torch.no_grad()
def test_maps_and_what_clip_says_of_them(case: Case) -> None:
    maps = network_of(case)(case["image"]).sigmoid()
    within(case, maps, "P")
    clip = clip_of(case)
    within(case, encode(clip, case["category_token_ids"])[1], "text_features.category")
    within(case, encode(clip, case["background_token_ids"])[1], "text_features.background")
    judge, present = repo_judge(case), case["label"] == 1
    inside = judge.masked(case["image"], maps, present)[1]
    within(case, inside[: len(case["masked_foreground"])], "masked_foreground")
    within(case, judge.visual(inside), "image_features_foreground")
    found = judge(case["image"], maps, present, True, True)
    for name in ("s_oo", "s_bo", "s_ob"):
        within(case, getattr(found, name), name)


@each_case
def test_terms_and_gradients(case: Case) -> None:
    network, judge = network_of(case), repo_judge(case)
    terms = repo_terms(case, network(case["image"]).sigmoid(), judge)
    total = weighted(case, terms)
    for name in TERMS:
        within(case, terms[name], f"loss.{name}")
    within(case, total, "loss.total")
    parameters = dict(network.named_parameters())
    for name, loss in {**terms, "total": total}.items():
        for official in case.names(f"grad.{name}."):
            (ours,) = from_official({official.replace("stage4.0.", "resnet50.layer4."): torch.zeros(0)})
            parameter = parameters[ours.removeprefix(PREFIX)]
            (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True)
            within(case, gradient, f"grad.{name}.{official}")
    total.backward()
    assert all(parameter.grad is None for parameter in judge.parameters()), "CLIP's weights get no gradient"


@each_case
def test_terms_with_batch_statistics(case: Case) -> None:
    network = network_of(case).train()
    with torch.no_grad():
        terms = repo_terms(case, network(case["image"]).sigmoid(), repo_judge(case))
    for name in TERMS:
        within(case, terms[name], f"train_mode.loss.{name}")
    within(case, weighted(case, terms), "train_mode.loss.total")


@each_case
@torch.no_grad()
def test_terms_of_the_papers_version(case: Case) -> None:
    at = case.about["model"]
    prompts, names = at["paper_background_prompts"], at["paper_category_names"]
    texts, own = own_background(prompts, names)
    ids = torch.cat([case[f"paper.background_token_ids.{name}"] for name in names if name in prompts])
    assert len(texts) == len(ids)
    maps = network_of(case)(case["image"]).sigmoid()
    found: Cosines = judge_of(case, "paper.category_token_ids", ids)(
        case["image"], maps, case["label"] == 1, True, True
    )
    assert found.s_bo is not None
    assert found.s_ob is not None
    weights = case["paper.weights"]
    within(case, matched(found.s_oo, weights, clamp=False), "paper.loss.OTM")
    within(case, unmatched(found.s_bo, weights, clamp=False), "paper.loss.BTM")
    within(case, suppressed_own(found.s_ob, own[found.classes]), "paper.loss.CBS")


@each_case
@torch.no_grad()
def test_baseline_classifier(case: Case) -> None:
    logits = network_of(case).classify(case["image"])
    within(case, logits, "baseline.logits")
    within(case, F.multilabel_soft_margin_loss(logits, case["label"]), "baseline.loss")


def inferred(case: Case) -> ActivationMaps:
    network, keys = network_of(case), case["msf.keys"]
    scales = range(len(case.about["model"]["scales"]))
    maps = [activated(lambda x: network(x, keys), case[f"msf.image.{number}"]) for number in scales]
    return summed(maps, keys, tuple(case.about["model"]["infer_hw"]))


def mismatch(ours: Tensor, official: Tensor) -> float:
    assert ours.shape == official.shape
    return float((ours != official).float().mean())


@each_case
@torch.no_grad()
def test_inference_at_all_scales_with_mirrors(case: Case) -> None:
    network = network_of(case)
    within(case, activated(network, case["msf.image.0"]), "msf.cam_scale0")
    found = inferred(case)
    within(case, found.small, "msf.strided_cam")
    within(case, found.full, "msf.highres_cam")
    label = labelled(found.full, found.classes, case.about["model"]["cam_eval_threshold"])
    assert mismatch(label, case["msf.label"]) <= case.tolerance["label_mismatch_fraction"]


@each_case
@torch.no_grad()
def test_random_walk(case: Case) -> None:
    size = tuple(case.about["model"]["infer_hw"])
    maps = walked(case["msf.strided_cam"], case["rw.edge"][0])
    within(case, maps, "rw.cam")
    label = labelled(enlarged(maps, size), case["msf.keys"], case.about["model"]["sem_seg_bg_threshold"])
    assert mismatch(label, case["rw.label"]) <= case.tolerance["label_mismatch_fraction"]


@each_case
def test_names_go_both_ways_with_all_copies(case: Case) -> None:
    weights = official_weights(case)
    back = to_official(from_official({f"module.{key}": value for key, value in weights.items()}))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in back)
