"""GroupViT against the numbers of its official code: assignments, embeddings, losses, gradients, labels of windows."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.clip.dense import averaged
from rislab.methods.groupvit.encoding import encode_texts
from rislab.methods.groupvit.grouping import Grouping
from rislab.methods.groupvit.inference import (
    EncodedImages,
    class_scores,
    composed,
    encode_images,
    group_of_pixels,
    scale_of,
    spread,
    with_background,
)
from rislab.methods.groupvit.labels import Window, combined, labels
from rislab.methods.groupvit.model import GroupViT, ImageEncoder, Stages, TextEncoder
from rislab.methods.groupvit.official import (
    MULTI_LABEL_SCALE,
    NAMES,
    from_official,
    from_transformers,
    load_official,
    to_official,
    to_transformers,
)
from rislab.methods.groupvit.task import GroupViTTask
from rislab.nn.renaming import rename
from rislab.nn.sliding import boxes
from tests.forks import on_ranks
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("groupvit")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no cases below {ROOT}; set RISLAB_PARITY")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)


def model_of(case: Case) -> GroupViT:
    at, fixed = case.about["model"], case.about["fixed"]
    options = fixed | at
    kind = Grouping(
        at["hard_assignment"],
        gumbel=at["hard_assignment"],
        tau=options["gumbel_tau"],
        eps=options["assign_eps"],
        sum_members=options.get("sum_assign", False),
        pre_assign_attn=any("pre_assign_attn" in key for key in case.weights),
    )
    stages = Stages(at["depths"], at["num_heads"], at["num_group_tokens"], at["num_output_groups"], at["embed_factors"])
    model = GroupViT(
        ImageEncoder(at["img_size"], at["patch_size"], at["embed_dim"], stages, options["drop_path"], kind),
        TextEncoder(at["vocab_size"], at["context_length"], at["text_width"], at["text_layers"]),
        at["projector_hidden_dim"],
        at["output_dim"],
        "multi_label_logit_scale" in case.weights,
    )
    model.load_state_dict({key.removeprefix("model."): value for key, value in from_official(case.weights).items()})
    return model.eval()


def task_of(case: Case, **switches: Any) -> GroupViTTask:
    """A task with the case's network in the place of its own."""
    at = case.about["model"]
    weight = at.get("multi_label_loss_weight", case.about["fixed"].get("multi_label_loss_weight", 1.0))
    task = GroupViTTask(
        image_size=32, patch_size=16, embed_dim=8, depth=4, heads=1, text_width=64, text_layers=1,
        multi_label=at["multi_label"], multi_label_loss_weight=weight, **switches,
    )  # fmt: skip
    task.model = model_of(case)
    return task.train()


def ours(official: str) -> str:
    """Our name of an official parameter."""
    return rename([official], [(theirs, mine) for mine, theirs in NAMES])[official]


def within(case: Case, ours: Tensor, name: str, kind: str | None = None) -> None:
    tolerance = case.tolerance if kind is None else case.tolerance[kind]
    close(ours, case[name].reshape(ours.shape) if case[name].ndim != ours.ndim else case[name], name,
          tolerance["atol"], tolerance["rtol"])  # fmt: skip


def texts_of(case: Case) -> Tensor:
    """[B, 1 + K, L], captions first."""
    ids = case["text_train"]
    return ids if ids.ndim == 3 else ids[:, None]


def noise_of(case: Case, variant: str) -> list[Tensor]:
    """The Gumbel sample of a variant of the training step, [B, G, S] a stage."""
    names = sorted(name for name in case.inputs if name.startswith("gumbel_noise_stage"))
    given = [case[name][:, 0] for name in names]
    return [torch.zeros_like(each) for each in given] if variant == "noise_zero" else given


def class_embeddings(case: Case, model: GroupViT) -> Tensor:
    ids = case["text_classes"]
    each = model.text_projector(encode_texts(model, ids.flatten(0, 1)))
    return averaged(each.unflatten(0, ids.shape[:2]), unit_first=False)


@each_case
@torch.no_grad()
def test_assignments_and_embeddings(case: Case) -> None:
    model = model_of(case)
    found = model.image(case["image_native"])
    for i, each in enumerate(found.assignments):
        within(case, each.soft[:, None], f"eval/native/assign_soft_stage{i}")
        close(each.used[:, None], case[f"eval/native/assign_hard_stage{i}"], f"hard {i}",
              1e-6 if case.about["model"]["hard_assignment"] else case.tolerance["atol"])  # fmt: skip
    within(case, found.tokens, "eval/native/segment_tokens")
    within(case, found.tokens.mean(1), "eval/native/image_pooled")
    image = model.image_projector(found.tokens.mean(1))
    within(case, image, "eval/native/image_embedding")
    within(case, model.embed_segments(found), "eval/native/segment_embeddings")
    within(case, model.text_projector(encode_texts(model, texts_of(case)[:, 0])), "eval/text_embedding")
    classes = class_embeddings(case, model)
    within(case, classes, "eval/class_embeddings")
    within(case, F.normalize(image, dim=-1) @ classes.T, "eval/native/zero_shot_logits")


@each_case
@torch.no_grad()
def test_segmentation_of_a_picture_of_another_shape(case: Case) -> None:
    model, pixels = model_of(case), case["image_seg"]
    found = model.image(pixels)
    for i in range(len(found.assignments)):
        shares = composed(found.assignments[: i + 1], "soft")
        assert shares is not None
        large = F.interpolate(shares.unflatten(2, found.grid), pixels.shape[-2:], mode="bilinear")
        within(case, large.permute(0, 2, 3, 1), f"eval/seg/composed_map_stage{i}")
    seen, classes = encode_images(model, pixels), class_embeddings(case, model)
    scores, groups = table_of(case, model, seen, classes), group_of_pixels(seen)
    within(case, spread(scores, groups), "eval/seg/logits_nobg")
    level = case.about["model"]["bg_thresh"]
    within(case, spread(with_background(scores[0], level)[None], groups), "eval/seg/logits_bg")


def table_of(case: Case, model: GroupViT, seen: EncodedImages, classes: Tensor) -> Tensor:
    return class_scores(seen, classes, scale_of(model.logit_scale), case.about["model"].get("topk", 5))


@each_case
@torch.no_grad()
def test_sliding_windows(case: Case) -> None:
    at, model, pixels = case.about["model"], model_of(case), case["image_seg"]
    classes = class_embeddings(case, model)
    where = boxes(*at["seg_hw"], at["slide_crop"], at["slide_stride"])
    assert [[list(box)] for box in where] == [[box] for box in at["slide_windows_y1y2x1x2"]]
    windows = []
    for box in where:
        seen = encode_images(model, pixels[..., box[0] : box[1], box[2] : box[3]])
        scores = with_background(table_of(case, model, seen, classes)[0], at["bg_thresh"])
        windows.append(Window(box, group_of_pixels(seen)[0], scores))
    code, scores = combined(windows, tuple(at["seg_hw"]))
    mean = scores[code].permute(2, 0, 1)[None]
    within(case, mean, "eval/seg/slide_logits_bg")
    large = F.interpolate(mean, tuple(at["ori_hw"]), mode="bilinear").softmax(1)
    within(case, large, "eval/seg/slide_prob_resized")
    found = labels(code, scores, tuple(at["ori_hw"]))
    assert torch.equal(found[None], case["eval/seg/slide_prediction"])


VARIANTS = [
    pytest.param(case, variant, id=f"{case.path.name}-{variant}")
    for case in CASES
    for variant in sorted({name.split("/")[0] for name in case.names("train/")})
]


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_losses_gradients_and_batch_norm(case: Case, variant: str, micro_batch: int | None) -> None:
    """A part of the batch at a time gives the same: the gradients of gradient caching are exact."""
    task = task_of(case, micro_batch=micro_batch)
    terms = task.losses_of(case["image_native"], texts_of(case), noise_of(case, variant))
    total = torch.stack(list(terms.values())).sum()
    at = f"train/{variant}"
    within(case, terms["contrast"], f"{at}/loss")
    assert ("multi_label" in terms) == (f"{at}/multi_label_loss" in case.outputs)
    if "multi_label" in terms:
        within(case, terms["multi_label"], f"{at}/multi_label_loss")
    within(case, total, f"{at}/total")
    total.backward()
    parameters, buffers = dict(task.named_parameters()), dict(task.named_buffers())
    for key in case.names(f"{at}/grad/"):
        gradient = parameters[ours(key)].grad
        assert gradient is not None, key
        within(case, gradient, f"{at}/grad/{key}", "gradients")
    for key in case.names(f"{at}/"):
        if key.endswith("_after"):
            within(case, buffers[ours(key.removesuffix("_after"))], f"{at}/{key}")


def one_rank(rank: int, path: Path, folder: Path, variant: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    case = Case(path)
    task = task_of(case)
    share = len(case["image_native"]) // 2
    mine = slice(rank * share, (rank + 1) * share)
    noise = [each[mine] for each in noise_of(case, variant)]
    terms = task.losses_of(case["image_native"][mine], texts_of(case)[mine], noise)
    torch.stack(list(terms.values())).sum().backward()
    gradients = {}
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        dist.all_reduce(parameter.grad)
        gradients[name] = parameter.grad / 2
    for name, term in terms.items():
        dist.all_reduce(term.detach())
        terms[name] = term.detach() / 2
    torch.save({"terms": terms, "gradients": gradients, "buffers": dict(task.named_buffers())}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize(("case", "variant"), VARIANTS[:1])
def test_two_processes_give_the_loss_and_gradients_of_one(case: Case, variant: str, tmp_path: Path) -> None:
    """Batch norms see both halves, each text both halves' pictures; the official values are those of the whole batch."""
    on_ranks(2, one_rank, case.path, tmp_path, variant)
    task = task_of(case)
    terms = task.losses_of(case["image_native"], texts_of(case), noise_of(case, variant))
    torch.stack(list(terms.values())).sum().backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        within(case, found["terms"]["contrast"], f"train/{variant}/loss")
        for name, term in terms.items():
            torch.testing.assert_close(found["terms"][name], term.detach(), atol=1e-5, rtol=1e-5)
        for name, parameter in task.named_parameters():
            torch.testing.assert_close(found["gradients"][name], parameter.grad, atol=2e-4, rtol=1e-3, msg=name)
        for name, buffer in task.named_buffers():
            torch.testing.assert_close(found["buffers"][name], buffer, atol=1e-6, rtol=1e-5, msg=name)


@each_case
def test_names_go_both_ways(case: Case, tmp_path: Path) -> None:
    state = from_official(case.weights)
    back = to_official(state)
    assert back.keys() == case.weights.keys()
    assert all(torch.equal(back[key], case.weights[key]) for key in back)
    theirs = to_transformers(state)
    assert not any("qkv" in key or "in_proj" in key for key in theirs)
    assert theirs["visual_projection.0.weight"].ndim == 2
    again = from_transformers(theirs | {"text_model.embeddings.position_ids": torch.arange(3)[None]})
    assert state.keys() - again.keys() <= {MULTI_LABEL_SCALE}
    assert all(torch.equal(again[key], state[key]) for key in again)
    for name, content in (("official", {"model": case.weights, "epoch": 3}), ("hub", theirs)):
        torch.save(content, tmp_path / name)
        loaded = load_official(tmp_path / name)
        assert all(torch.equal(loaded[key], state[key]) for key in again)
