"""TCL against the numbers of its official code: masks, every loss term and gradient, on one and several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.clip.dense import averaged
from rislab.encoders.clip.trunk import CLIPSpec, build
from rislab.methods.tcl import task
from rislab.methods.tcl.losses import own_cosines, pairs, scale
from rislab.methods.tcl.model import binarise, cosines
from rislab.methods.tcl.official import NAMES, from_official, to_official
from rislab.methods.tcl.task import TCLTask
from rislab.nn.pamr import affinity, deviation, pamr
from rislab.nn.renaming import rename
from rislab.nn.sliding import NO_MARGINS, Margins, boxes, label_map, mean_of_windows
from tests.forks import on_ranks
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("tcl")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no cases below {ROOT}; set RISLAB_PARITY")


def those(name: str) -> Any:
    return pytest.mark.parametrize("case", [c for c in CASES if name in c.outputs], ids=lambda case: case.path.name)


TERMS = {
    "tcl_v": "tcli_loss",
    "tcl_f": "tclf_loss",
    "area_pos": "area_loss",
    "area_neg": "neg_area_loss",
    "tv_mask": "tv_mask_loss",
    "tv_img": "tv_img_loss",
}


def model_of(case: Case, **switches: Any) -> TCLTask:
    at = case.about["model"]
    vision = {"image_size": at["img_size"], "layers": at["layers"], "width": at["width"], "head_width": 64}
    vision["patch_size"] = at["patch_size"]
    text = {"context_length": at["context_length"], "vocab_size": at["vocab_size"], "width": at["text_width"]}
    clip = build(vision, text | {"heads": at["text_width"] // 64, "layers": at["text_layers"]}, at["embed_dim"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "load", lambda spec: clip)
        model = TCLTask(
            CLIPSpec("ViT-B-16-quickgelu"),
            image_size=at["img_size"],
            ie_freeze=at["ie_freeze"],
            last_attention="value" if at["ie_ignore_last_attn"] else "full",
            n_layers=at["n_layers"],
            double=at["double"],
            kernel_size=at["kernel_size"],
            decoder_norm={"ln": "layer", "bn": "batch", "gn": "group", "none": "none"}[at["decoder_norm"]],  # type: ignore[arg-type]
            decoder_act={"gelu": "gelu", "relu": "relu", "lrelu": "leaky"}[at["decoder_act"]],  # type: ignore[arg-type]
            gumbel_tau=at["gumbel_tau"],
            bg_thresh=at.get("bg_thresh", 0.4),
            pamr_iter=case.about["pamr"]["num_iter"],
            **switches,
        )
    model.load_state_dict(from_official(case.weights))
    return model.eval()


def ours(official: str) -> str:
    """Our name of an official parameter."""
    return rename([official], [(theirs, mine) for mine, theirs in NAMES])[official]


def state_of(model: TCLTask, tokens: Tensor) -> Tensor:
    return model.prompts.clip.encode_text(tokens)


def within(case: Case, ours: Tensor, name: str, kind: str = "default") -> None:
    tolerance = case.tolerance[kind]
    close(ours, case[name], name, tolerance["atol"], tolerance["rtol"])


@those("loss/total")
@torch.no_grad()
def test_masks_and_embeddings(case: Case) -> None:
    model, image = model_of(case), case["image"]
    texts = state_of(model, case["text_ids"])
    within(case, texts, "text_emb")
    tokens, grid = model.model.frozen(image)
    within(case, tokens.transpose(0, 1), "clip_block_feature_LND")
    within(case, model.model.tower.last(model.model.tower.through(tokens, slice(model.model.after, -1)), "value", True, True)
           [:, 1:].transpose(1, 2).unflatten(2, grid), "clip_patch_features")  # fmt: skip
    grounder = model.model.grounder
    assert grounder.decoder is not None
    decoded = grounder.decoder(grounder.features(tokens).transpose(1, 2).unflatten(2, grid))
    within(case, decoded, "decoder_out")
    embeddings = grounder(tokens, grid)
    within(case, embeddings, "image_emb")
    found = cosines(embeddings, texts)
    within(case, found, "simmap")
    within(case, grounder.to_mask.logits(found).sigmoid(), "soft_all")
    own = grounder.to_mask.logits(own_cosines(embeddings, texts))
    uniform = case["gumbel_uniform"].diagonal().permute(2, 0, 1)
    cut = binarise(own, "gumbel", uniform, model.gumbel_tau)[:, None]
    assert torch.equal(cut, case["hard_pos"])
    seen = model.model.embed(F.interpolate(cut, image.shape[-2:], mode="nearest") * image)
    within(case, seen, "masked_image_emb")
    within(case, pairs(model.model.grounder.to_mask, embeddings, texts, None).regions, "masked_pool_emb")


@those("loss/total")
@pytest.mark.parametrize("at_once", [None, 3])
def test_losses_and_gradients(case: Case, at_once: int | None) -> None:
    model = model_of(case, texts_at_once=at_once)
    uniform = case["gumbel_uniform"].diagonal().permute(2, 0, 1)
    terms = model.losses_of(case["image"], state_of(model, case["text_ids"]), uniform)
    assert terms.keys() == TERMS.keys()
    weights = {"tcl_v": 0.1, "tcl_f": 0.1, "area_pos": 0.4, "area_neg": 0.4, "tv_mask": 1.0, "tv_img": 1.0}
    for name, official in TERMS.items():
        within(case, terms[name], f"loss/{official}")
        within(case, terms[name] / weights[name], f"raw/{official}")
    total = torch.stack(list(terms.values())).sum()
    within(case, total, "loss/total")
    parameters = dict(model.named_parameters())
    for name, official in TERMS.items():
        for key in case.names(f"term_grad/{official}/"):
            place = f"masker.{'image_encoder.decoder.' if key.startswith('image_proj') else ''}{key}"
            (found,) = torch.autograd.grad(terms[name], parameters[ours(place)], retain_graph=True, allow_unused=True)
            assert found is not None
            within(case, found, f"term_grad/{official}/{key}", "grad")
    total.backward()
    for key in case.names("grad/"):
        gradient = parameters[ours(key)].grad
        assert gradient is not None
        within(case, gradient, f"grad/{key}", "grad")


def one_rank(rank: int, path: Path, folder: Path, side: str) -> None:
    torch.set_num_threads(1)
    case = Case(path)
    ranks = case.about["model"]["world"]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    model = model_of(case, tclf_text_side=side)
    share = len(case["image"]) // ranks
    mine = slice(rank * share, (rank + 1) * share)
    uniform = case["gumbel_uniform"].diagonal().permute(2, 0, 1)[mine]
    terms = model.losses_of(case["image"][mine], state_of(model, case["text_ids"][mine]), uniform)
    torch.stack(list(terms.values())).sum().backward()
    grads = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            grads[name] = parameter.grad / ranks
    torch.save({"terms": {k: v.detach() for k, v in terms.items()}, "grads": grads}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@those("rank0/loss/total")
def test_several_processes(case: Case, tmp_path: Path) -> None:
    ranks = case.about["model"]["world"]
    on_ranks(ranks, one_rank, case.path, tmp_path, "official")
    for rank in range(ranks):
        terms = torch.load(tmp_path / f"{rank}.pt", weights_only=True)["terms"]
        for name, official in TERMS.items():
            within(case, terms[name], f"rank{rank}/loss/{official}")
    grads = torch.load(tmp_path / "0.pt", weights_only=True)["grads"]
    for key in case.names("ddp_grad/"):
        within(case, grads[ours(key)], f"ddp_grad/{key}", "grad")


@those("rank0/loss/total")
def test_exact_text_side_is_the_one_process_value(case: Case, tmp_path: Path) -> None:
    ranks = case.about["model"]["world"]
    on_ranks(ranks, one_rank, case.path, tmp_path, "exact")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True)["terms"]["tcl_f"] for rank in range(ranks)]
    within(case, torch.stack(found).mean(), "loss/tclf_loss")


@those("masks/pamr0_kp0")
@torch.no_grad()
def test_inference(case: Case) -> None:
    about = case.about["model"]
    model = model_of(case)
    each = state_of(model, case["class_ids"].flatten(0, 1)).unflatten(0, case["class_ids"].shape[:2])
    texts = averaged(each, unit_first=False)
    within(case, texts, "class_embedding")
    for refines in (False, True):
        for kept in (False, True):
            model.refines, model.kp_w = refines, about["kp_w"] if kept else 0.0
            within(case, model.masks(case["image"], texts), f"masks/pamr{refines:d}_kp{kept:d}")
    tokens, grid = model.model.frozen(case["padded_image"])
    within(case, cosines(model.model.clip_features(tokens, grid), texts), "kp_simmap")
    found = cosines(model.model.grounder(tokens, grid), texts)
    within(case, found, "simmap")
    soft = model.model.grounder.to_mask.logits(found).sigmoid()
    within(case, soft, "soft_mask_lowres")
    guide = F.interpolate(case["padded_image"], soft.shape[-2:], mode="bilinear", align_corners=True)
    within(case, pamr(guide, soft), "pamr/lowres_mask_refined")


@those("slide/bg/logits")
@torch.no_grad()
def test_sliding_window_with_and_without_background(case: Case) -> None:
    at, model, image = case.about["model"], model_of(case), case["slide_image"]
    model.kp_w = at["kp_w"]
    each = state_of(model, case["class_ids"].flatten(0, 1)).unflatten(0, case["class_ids"].shape[:2])
    texts = averaged(each, unit_first=False)
    where = boxes(*at["slide_hw"], at["slide_crop"], at["slide_stride"])
    assert [list(box) for box in where] == case.about["info"]["slide_windows_y1y2x1x2"]
    for name, background in (("bg", True), ("nobg", False)):

        def score_window(window: Tensor, background: bool = background) -> tuple[Tensor, Margins]:
            found = model.masks(window, texts)
            return model.with_background(found) if background else found, NO_MARGINS

        maps = [score_window(image[..., y1:y2, x1:x2])[0][0] for y1, y2, x1, x2 in where]
        within(case, mean_of_windows(maps, where, tuple(at["slide_hw"]))[None], f"slide/{name}/logits")
        for at_once in (1, 3, 100):
            found = label_map(
                score_window, image[0], tuple(at["ori_hw"]), at["slide_crop"], at["slide_stride"], at_once
            )
            differing = (found != case[f"slide/{name}/pred"][0]).float().mean()
            assert differing <= case.tolerance["pred"]["max_mismatch"]


@those("pamr/iter1")
def test_refinement_inside_the_model(case: Case) -> None:
    mask = F.interpolate(case["pamr_mask"], case["pamr_image"].shape[-2:], mode="bilinear", align_corners=True)
    for iterations in (1, 10):
        within(case, pamr(case["pamr_image"], mask, iterations), f"pamr/iter{iterations}")


@those("affinity")
def test_refinement_alone(case: Case) -> None:
    at, image = case.about["pamr"], case["image"]
    mask = F.interpolate(case["mask"], image.shape[-2:], mode="bilinear", align_corners=True)
    within(case, mask, "mask_resized")
    within(case, deviation(image, at["dilations"]), "image_std")
    within(case, affinity(image, at["dilations"]), "affinity")
    within(case, pamr(image, mask, 1, at["dilations"]), "mask_iter1")
    within(case, pamr(image, mask, at["num_iter"], at["dilations"]), "mask_final")
    low = F.interpolate(image, case["mask"].shape[-2:], mode="bilinear", align_corners=True)
    within(case, low, "low/image_resized")
    within(case, pamr(low, case["mask"], at["num_iter"], at["dilations"]), "low/mask_final")


@those("masks/pamr0_kp0")
def test_names_go_both_ways_and_a_release_is_a_part(case: Case) -> None:
    back = to_official(from_official(case.weights))
    assert back.keys() == case.weights.keys()
    assert all(torch.equal(back[key], case.weights[key]) for key in back)
    released = {key: value for key, value in case.weights.items() if key.startswith("masker.")}
    missing = (
        model_of(case).state_dict().keys() - from_official(released | {"pamr.aff_x.kernel": torch.zeros(1)}).keys()
    )
    assert missing
    assert all(TCLTask.frozen and key.startswith(TCLTask.frozen) for key in missing)
    assert scale(from_official(released)["image_scale"]).item() == pytest.approx(1 / 0.07)
