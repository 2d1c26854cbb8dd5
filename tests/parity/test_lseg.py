"""LSeg against the official code: every case found, every tensor, loss, gradient and score stored in it."""

import functools
import re
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from rislab.encoders.clip.trunk import CLIPSpec, build
from rislab.encoders.imagenet import ImageNetSpec
from rislab.methods.lseg import task
from rislab.methods.lseg.model import LOGIT_SCALE, Activation, Block, Regulariser, ResNetTrunk, ViTTrunk
from rislab.methods.lseg.official import from_official, to_official
from rislab.methods.lseg.task import LSegTask
from rislab.metrics.episodes import COLUMNS, areas, averages, episode_counts
from rislab.nn.enlarging import enlarged, enlarged_cross_entropy
from rislab.nn.renaming import rename
from tests.parity.cases import ROOT, Case, cases, close

CASES = cases("lseg")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no parity cases under {ROOT / 'lseg'} (set RISLAB_PARITY)")
REGULARISER = "scratch.head_block."


def those(holds: str) -> pytest.MarkDecorator:
    """The cases that store an output of this name."""
    found = [case for case in CASES if holds in case.outputs]
    return pytest.mark.parametrize("case", found, ids=lambda case: case.path.name)


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)


class SmallResNet(ResNet):
    """torchvision's ResNet of another width."""

    def __init__(self, base: int, layers: list[int]) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, base, 1, 1, 64
        self.conv1 = nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(base), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        for number, depth in enumerate(layers):
            layer = self._make_layer(Bottleneck, base * 2**number, depth, stride=1 if number == 0 else 2)
            setattr(self, f"layer{number + 1}", layer)
        self.fc = nn.Linear(32 * base, 1)


def trunk_of(sizes: dict[str, Any]) -> ViTTrunk | ResNetTrunk:
    if "resnet_base" in sizes:
        return ResNetTrunk(SmallResNet(sizes["resnet_base"], sizes["resnet_layers"]))
    vit = VisionTransformer(
        img_size=sizes["vit_img_size"],
        patch_size=sizes["vit_patch"],
        embed_dim=sizes["vit_dim"],
        depth=sizes["vit_depth"],
        num_heads=sizes["vit_heads"],
        num_classes=sizes["vit_num_classes"],
    )
    return ViTTrunk(vit, sizes["hooks"], sizes["reassemble_channels"], sizes["readout"])


def task_of(case: Case, block: Block = "none", depth: int = 0, activation: Activation = "lrelu") -> LSegTask:
    """A task of the case's sizes, holding its weights."""
    sizes = case.about["model"]
    vision = {
        "image_size": sizes["clip_image_resolution"],
        "layers": sizes["clip_vision_layers"],
        "width": sizes["clip_vision_width"],
        "patch_size": sizes["clip_patch_size"],
    }
    text = {
        "context_length": sizes["context_length"],
        "vocab_size": sizes["vocab_size"],
        "width": sizes["text_width"],
        "heads": sizes["text_heads"],
        "layers": sizes["text_layers"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "load", lambda spec: build(vision, text, sizes["embed_dim"]))
        patch.setattr(task, "trunk_of", lambda spec, readout: trunk_of(sizes))
        method = LSegTask(
            CLIPSpec("ViT-B-32-quickgelu"),
            ImageNetSpec("resnet101"),
            features=sizes["features"],
            reg_block=block,
            reg_depth=depth,  # type: ignore[arg-type]  # cases may have others
            reg_activation=activation,
        )
    # A release without a block has no weights of one; a case holds those of all its variants.
    weights = {key: value for key, value in case.weights.items() if depth or not key.startswith(REGULARISER)}
    method.load_state_dict(from_official(weights), strict=True)
    return method.eval()


def parsed(variant: str) -> tuple[Block, int, Activation]:
    """`bottleneck_d2_lrelu` -> its switches."""
    found = re.fullmatch(r"(\w+?)_d(\d+)_(\w+)", variant)
    return (found[1], int(found[2]), found[3]) if found else ("none", 0, "lrelu")  # type: ignore[return-value]


@functools.cache
def seen(case: Case) -> tuple[LSegTask, dict[str, Tensor]]:
    """The task without a block, and what one pass through trunk, decoder and head gives."""
    method, found = task_of(case), {}
    with torch.no_grad():
        levels = method.model.trunk(case["image"])
        found |= {f"layer{number}_rn_in": level for number, level in enumerate(levels, 1)}
        fusion = method.model.decoder.fusion
        for number in (4, 3, 2, 1):
            fusion[number - 1].register_forward_hook(
                lambda _m, _i, out, number=number: found.__setitem__(f"path_{number}", enlarged(out))
            )
        found["vectors"] = method.model.head(method.model.decoder(levels))
        found["pixel_embedding_sub"] = enlarged(found["vectors"])[:, :, ::4, ::4]
    return method, found


def texts_of(method: LSegTask, ids: Tensor) -> Tensor:
    """Features of token ids [..., L], not normalised: the tower that a task reads its names with, cut as it cuts them."""
    from rislab.encoders.clip.text import encode

    flat = ids.flatten(0, -2)
    with torch.no_grad():
        found = encode(method.prompts.clip, flat[:, : int(flat.argmax(-1).max()) + 1])[1]
    return found.unflatten(0, ids.shape[:-1])


def unit(texts: Tensor) -> Tensor:
    return nn.functional.normalize(texts, dim=-1)


def within(case: Case, ours: Tensor, name: str) -> None:
    close(ours, case[name], name, case.tolerance["atol"], case.tolerance["rtol"])


def loss_of(half: Tensor, target: Tensor) -> Tensor:
    """Labels of which -1 is ignored, as the official code counts, in ours."""
    return enlarged_cross_entropy(half, target.where(target >= 0, 255), 255)


@each_case
def test_trunk_decoder_and_head(case: Case) -> None:
    _, found = seen(case)
    names = [name for name in case.outputs if name in found]
    assert {"path_1", "pixel_embedding_sub", "layer4_rn_in"} <= set(names)
    for name in names:
        within(case, found[name], name)


@each_case
def test_texts(case: Case) -> None:
    method, _ = seen(case)
    ids = case["label_token_ids" if "label_token_ids" in case.inputs else "text_token_ids"]
    within(case, texts_of(method, ids), "text_features")


@those("half_logits.none")
def test_every_regulariser(case: Case) -> None:
    method, found = seen(case)
    assert pytest.approx(float(case["logit_scale"])) == LOGIT_SCALE
    plain = method.model.logits(found["vectors"], unit(texts_of(method, case["label_token_ids"])))
    variants = case.names("half_logits.")
    assert len(variants) > 1
    for variant in variants:
        half = plain
        if variant != "none":
            block = Regulariser(*parsed(variant))
            names = [(theirs, "conv.") for theirs in ("scratch.head_block.depthwise.depthwise.",)]
            state = {k: v for k, v in case.weights.items() if k.startswith(REGULARISER)}
            block.load_state_dict({new: state[old] for old, new in rename(state, names).items()}, strict=True)
            half = block(plain)
        within(case, half, f"half_logits.{variant}")
        within(case, loss_of(half, case["target"]), f"loss.{variant}")
        if f"logits.{variant}" in case.outputs:
            within(case, enlarged(half), f"logits.{variant}")
    if "half_logits_fp16.none" in case.outputs:  # ours stays in float32
        close(plain, case["half_logits_fp16.none"], "half_logits_fp16.none", case.tolerance["fp16_atol"])


@those("logits.labelset")
def test_another_label_set(case: Case) -> None:
    method = task_of(case, "bottleneck", 2)
    with torch.no_grad():
        half = method.model(case["image"], unit(texts_of(method, case["labelset_token_ids"])))
    within(case, enlarged(half), "logits.labelset")


def gradients_within(case: Case, method: LSegTask) -> None:
    gradients = to_official({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    names = case.names("grad.")
    assert names
    for name in names:
        official = case[f"grad.{name}"]
        close(
            gradients[name], official, f"gradient of {name}", case.tolerance["grad_atol"], case.tolerance["grad_rtol"]
        )


@those("half_logits.none")
def test_gradients_and_running_statistics(case: Case) -> None:
    (variant,) = {name.removeprefix("loss.") for name in case.names("train_mode.") if name.startswith("loss.")}
    method = task_of(case, *parsed(variant))
    texts = unit(texts_of(method, case["label_token_ids"]))
    loss_of(method.model(case["image"], texts), case["target"]).backward()
    gradients_within(case, method)
    method = task_of(case, *parsed(variant)).train()
    within(case, loss_of(method.model(case["image"], texts), case["target"]), f"train_mode.loss.{variant}")
    buffers = to_official({name: value for name, value in method.named_buffers() if name.startswith("model.")})
    for name in case.names("train_mode.running_mean."):
        within(case, buffers[f"{name}.running_mean"], f"train_mode.running_mean.{name}")


@those("miou")
def test_pairs_and_their_gradients(case: Case) -> None:
    method = task_of(case)
    texts = unit(texts_of(method, case["text_token_ids"])[case["class_ids"]])
    half = method.model.logits(method.model.embed(case["image"]), texts)
    within(case, enlarged(half), "logits")
    loss = enlarged_cross_entropy(half, case["target"], None)
    within(case, loss, "loss")
    loss.backward()
    gradients_within(case, method)


@each_case
def test_round_trip_is_strict(case: Case) -> None:
    ours = from_official({f"net.{key}": value for key, value in case.weights.items()})
    back = to_official(ours)
    assert back.keys() == case.weights.keys()
    for key in back:
        assert torch.equal(back[key], case.weights[key]), key


@those("miou")
@pytest.mark.parametrize("with_ignored", [True, False])
def test_episode_scores(case: Case, with_ignored: bool) -> None:
    """Areas of each episode and the fold's averages, from the official logits."""
    found = case["logits"].argmax(1).bool().numpy()
    masks = case["target"].to(torch.uint8)
    if with_ignored:
        masks = masks.where(case["ignore"] == 0, 255)
    rows = [
        (number, number, label, *episode_counts(answer, mask))
        for number, (label, answer, mask) in enumerate(
            zip(case["class_ids"].tolist(), found, masks.numpy(), strict=True)
        )
    ]
    table = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))
    suffix = "" if with_ignored else "_no_ignore"
    if with_ignored:
        for ours, name in zip(areas(table), ("area_inter", "area_union"), strict=True):
            within(case, torch.from_numpy(ours), name)
    scores = averages(table, case.about["model"]["class_ids_interest"])
    for ours_name, name in (("miou_fold", "miou"), ("fb_iou", "fb_iou")):
        within(case, torch.tensor(scores[ours_name]), f"{name}{suffix}")
