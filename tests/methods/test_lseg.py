"""LSeg: groups and schedule, switches, label sets, its loss and its cosines, release files, the cost of names."""

import functools
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from rislab.bench import class_names
from rislab.bench.official_order import official_order
from rislab.data.batch import IGNORED, Episodes, LabelledPictures, LabelMaps, Viewing
from rislab.data.synthetic import batch_of
from rislab.data.transforms import Sample
from rislab.encoders import imagenet
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.encoders.imagenet import ImageNetSpec
from rislab.errors import ConfigError, DataError
from rislab.methods.lseg.blocks import through
from rislab.methods.lseg.model import Regulariser
from rislab.methods.lseg.official import load_official, to_official
from rislab.methods.lseg.task import LSegTask
from rislab.nn.enlarging import enlarged, enlarged_cosines, enlarged_cross_entropy
from rislab.training import inference
from rislab.training.checkpoints import WholeCheckpointIO


def method(**switches: Any) -> LSegTask:
    torch.manual_seed(0)
    options: dict[str, Any] = {"image_size": 64, "features": 16, "optimiser": "adam", "base_lr": 1e-3, "lr_multi": 3.0}
    trunk = ImageNetSpec(switches.pop("trunk", "rislab-tiny-ViT16"))
    return LSegTask(CLIPSpec("rislab-tiny-ViT"), trunk, **options | switches)


def tiny() -> LSegTask:
    """The method small and with random weights, for the contract suite."""
    return LSegTask(
        CLIPSpec("rislab-tiny-ViT"),
        ImageNetSpec("rislab-tiny-ViT16"),
        image_size=64,
        features=16,
        reg_block="bottleneck",
        reg_depth=2,
        optimiser="adam",
        base_lr=1e-3,
        lr_multi=3.0,
    )


def labels(count: int = 2, seed: int = 0) -> LabelMaps:
    batch = batch_of(LabelMaps, method().geometry, count, seed=seed)
    assert isinstance(batch, LabelMaps)
    return batch


def episodes(count: int = 3) -> Episodes:
    batch = batch_of(Episodes, method().geometry, count)
    assert isinstance(batch, Episodes)
    return batch


def test_trunk_at_the_rate_the_rest_at_ten_times_falling_by_epoch() -> None:
    task = LSegTask(
        CLIPSpec("rislab-tiny-ViT"), ImageNetSpec("rislab-tiny-ViT16"), image_size=64, features=16,
        reg_block="depthwise", reg_depth=2,
    )  # fmt: skip
    task._trainer = mock.Mock(max_epochs=240)
    configured = task.configure_optimizers()
    slow, fast = configured["optimizer"].param_groups
    assert (slow["lr"], fast["lr"]) == pytest.approx((0.004 / 16, 0.04 / 16))  # one picture a device
    assert slow["momentum"] == 0.9
    assert slow["weight_decay"] == fast["weight_decay"] == 1e-4
    named = {id(p): name for name, p in task.model.named_parameters()}
    assert {named[id(p)].split(".")[0] for p in slow["params"]} == {"trunk"}
    assert {named[id(p)].split(".")[0] for p in fast["params"]} == {"decoder", "head", "regulariser"}
    assert any("reassemble" in named[id(p)] for p in slow["params"])
    configured["optimizer"].step()
    rates = []
    for _ in range(240):
        rates.append(slow["lr"])
        configured["lr_scheduler"]["scheduler"].step()
    assert configured["lr_scheduler"]["interval"] == "epoch"
    assert rates[120] == pytest.approx(0.004 / 16 * 0.5**0.9)
    assert rates[239] == pytest.approx(0.004 / 16 * (1 / 240) ** 0.9)


@pytest.mark.parametrize(
    ("trunk", "readout"),
    [
        ("rislab-tiny-ViT16", "ignore"),
        ("rislab-tiny-ViT16", "add"),
        ("rislab-tiny-ViT16", "project"),
        ("resnet18", "project"),
    ],
)
def test_every_trunk_and_readout_learns_episodes(trunk: str, readout: str) -> None:
    """The pair form leaves no parameter without a gradient, whatever the trunk; two processes would wait for one otherwise."""
    task = method(trunk=trunk, readout=readout).train()
    for batch in (episodes(), labels()):
        task.zero_grad()
        (loss,) = task.losses(batch).values()
        loss.backward()
        dead = [name for name, p in task.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not dead
    assert torch.equal(task.mean.flatten(), torch.tensor([0.485, 0.456, 0.406] if trunk == "resnet18" else [0.5] * 3))


def test_ignored_pixels_are_the_rest_in_episodes_and_nothing_in_label_maps() -> None:
    task = method().eval()
    batch = episodes()
    rest = replace(batch, masks=batch.masks.where(batch.masks != IGNORED, 0))
    assert task.losses(batch)["cross_entropy"] == task.losses(rest)["cross_entropy"]
    maps = labels()
    other = replace(maps, labels=maps.labels.where(maps.labels != IGNORED, 0))
    assert task.losses(maps)["cross_entropy"] != task.losses(other)["cross_entropy"]
    nothing = replace(maps, labels=torch.full_like(maps.labels, IGNORED))
    assert task.losses(nothing)["cross_entropy"] == 0


def test_episodes_refuse_a_block() -> None:
    with pytest.raises(ConfigError, match="episodes train the pair form, which has no regularisation block"):
        tiny().losses(episodes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size 100 is no multiple of 32"),
        ({"reg_block": "depthwise"}, "reg_depth 0 with reg_block depthwise"),
        ({"reg_depth": 2}, "reg_depth 2 with reg_block none"),
        ({"trunk": "resnet11"}, "trunk.name 'resnet11' is none of .*did you mean 'resnet101'"),
        ({"trunk": "vit_small_patch16_384"}, "is none of vit_large_patch16_384"),
    ],
    ids=str,
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method(**options)


def test_weights_of_a_trunk_come_from_a_file_that_fits(tmp_path: Path) -> None:
    name = "rislab-tiny-ViT16"
    source = imagenet.load(ImageNetSpec(name))
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    loaded = imagenet.load(ImageNetSpec(name, str(tmp_path / "vit.pth")))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(DataError, match=r"vit\.pth: its weights are not this model's"):
        imagenet.load(ImageNetSpec("resnet18", str(tmp_path / "vit.pth")))
    with pytest.raises(ConfigError, match="neither a file nor `imagenet`"):
        imagenet.load(ImageNetSpec(name, str(tmp_path / "none.pth")))
    with pytest.raises(ConfigError, match="has no such weights"):
        imagenet.load(ImageNetSpec(name, "imagenet"))


def test_depth_one_of_both_blocks_is_one_loss_deeper_ones_are_two() -> None:
    """The paper's table compares the two at depth 1, too: they cannot differ there."""
    x = torch.randn(2, 5, 12, 9)
    labels = torch.randint(0, 5, (2, 24, 18))
    losses = {}
    for depth in (1, 2):
        one, other = Regulariser("depthwise", depth, "lrelu"), Regulariser("bottleneck", depth, "lrelu")
        other.load_state_dict(one.state_dict())
        for name, block in (("depthwise", one), ("bottleneck", other)):
            y = block(x)
            losses[name, depth] = float(enlarged_cross_entropy(y, labels, None).detach()), y.argmax(1)
            shuffled = torch.tensor([3, 1, 4, 0, 2])
            torch.testing.assert_close(block(x[:, shuffled]), y[:, shuffled])  # the order of names does not matter
    assert losses["depthwise", 1][0] == pytest.approx(losses["bottleneck", 1][0], abs=1e-5)
    assert torch.equal(losses["depthwise", 1][1], losses["bottleneck", 1][1])
    assert abs(losses["depthwise", 2][0] - losses["bottleneck", 2][0]) > 1e-3


@pytest.mark.parametrize("size", [(6, 9), (1, 5), (2, 2)])
def test_cosines_are_those_of_enlarged_vectors(size: tuple[int, int]) -> None:
    pixels = torch.randn(2, 7, *size, dtype=torch.float64, requires_grad=True)
    texts = F.normalize(torch.randn(3, 7, dtype=torch.float64), dim=-1)
    plain = torch.einsum("bchw,nc->bnhw", F.normalize(enlarged(pixels), dim=1), texts)
    ours = enlarged_cosines(pixels, texts)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    weight = torch.randn_like(plain)
    (a,), (b,) = (torch.autograd.grad((weight * y).sum(), pixels) for y in (plain, ours))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("small", "large"), [((6, 9), (12, 18)), ((1, 5), (2, 10)), ((7, 4), (33, 9)), ((5, 6), (1, 1))]
)
def test_the_loss_is_that_of_the_enlarged_logits(small: tuple[int, int], large: tuple[int, int]) -> None:
    logits = torch.randn(2, 4, *small, requires_grad=True)
    target = torch.randint(0, 4, (2, *large)).where(torch.rand(2, *large) > 0.2, 255)
    target[0, 0, 0] = 1
    full = F.interpolate(logits, large, mode="bilinear", align_corners=True)
    plain = F.cross_entropy(full, target, ignore_index=255)
    for rows in (1, 5, 100):
        ours = enlarged_cross_entropy(logits, target, 255, rows)
        torch.testing.assert_close(ours, plain)
        (a,), (b,) = (torch.autograd.grad(3 * loss, logits, retain_graph=True) for loss in (plain, ours))
        torch.testing.assert_close(a, b)
        with torch.inference_mode():
            torch.testing.assert_close(enlarged_cross_entropy(logits.detach(), target, 255, rows), plain)


def test_a_block_holds_less_for_the_same_numbers() -> None:
    """The outputs of norms and GELU end with the forward pass."""
    block = imagenet.load(ImageNetSpec("rislab-tiny-ViT16")).blocks[0]
    made: list[StorageWeakRef] = []
    for module in (block.norm1, block.norm2, block.mlp.act):
        module.register_forward_hook(lambda _m, _i, out: made.append(StorageWeakRef(out.untyped_storage())))
    given = torch.randn(2, 7, 96)
    found: list[tuple[Tensor, ...]] = []
    for way, ends in ((block, False), (functools.partial(through, block), True)):
        made.clear()
        tokens = given.clone().requires_grad_()
        y = way(tokens)
        assert [each.expired() for each in made] == [ends] * 3
        found.append((y, *torch.autograd.grad(y.square().sum(), [tokens, *block.parameters()])))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_names_are_encoded_once_without_a_gradient() -> None:
    task = method().train()
    with mock.patch("rislab.encoders.clip.dense.encode") as encode:
        encode.side_effect = lambda clip, ids: (None, torch.randn(len(ids), 64))
        for seed in range(3):
            task.losses(labels(seed=seed))
        task.segment_vocabulary(labels().images, labels().names)
    assert encode.call_count == 1
    assert not any(p.requires_grad for p in task.prompts.parameters())


def test_sentences_are_held_against_others_and_background_is_a_word() -> None:
    task = method().eval()
    pictures = labels(2).images
    with torch.no_grad():
        found = task.segment(pictures, ["dog", "cat"], torch.tensor([1, 0]))
        pair = task.segment_vocabulary(pictures, ["others", "dog"])[1]
        torch.testing.assert_close(found[0], pair[1] - pair[0], atol=1e-4, rtol=1e-3)
        size = (40, 50)
        blank, viewing = np.zeros(size, np.uint8), Viewing(64, 200, 64, 32, "given")
        pack = LabelledPictures([pictures[0]], [blank], ("dog", "cat"), True, viewing, [0])
        without = replace(pack, names=("other", "dog", "cat"), has_background=False)
        assert torch.equal(task.label(pack)[0], task.label(without)[0])
        assert not torch.equal(task.label(pack)[0], method(background="sky").eval().label(pack)[0])


def test_a_crop_is_scaled_by_its_long_side_and_padded_black_and_ignored() -> None:
    task = LSegTask(CLIPSpec("rislab-tiny-ViT"), ImageNetSpec("rislab-tiny-ViT16"), features=16)
    transform = task.train_transform()
    assert transform is not None
    picture, label = np.full((300, 200, 3), 200, np.uint8), np.full((300, 200), 7, np.uint8)
    long_sides = set()
    for number in range(40):
        sample = transform(Sample(picture, label[None]), (0, 0, number))
        assert sample.picture.shape == (480, 480, 3)
        inside = sample.masks[0] != IGNORED
        assert np.array_equal(inside, sample.picture.any(-1))
        assert set(np.unique(sample.masks)) <= {7, IGNORED}
        long_sides.add(int(inside.any(1).sum()))
    assert min(long_sides) < 320
    assert max(long_sides) == 480
    assert method(augment="none").train_transform() is None


def test_release_files_load_strictly(tmp_path: Path) -> None:
    """As trained on a GPU: CLIP's matrices in half precision, all of it there, the image tower included."""
    task = tiny()
    with torch.no_grad():
        for p in task.prompts.parameters():
            p.copy_(p.half())
    official = to_official(task.state_dict(), half_clip=True)
    kinds = {key: value.dtype for key, value in official.items() if key.startswith("clip_pretrained.")}
    assert kinds["clip_pretrained.visual.conv1.weight"] == kinds["clip_pretrained.text_projection"] == torch.float16
    assert kinds["clip_pretrained.transformer.resblocks.0.attn.in_proj_bias"] == torch.float16
    for name in (
        "ln_final.weight",
        "token_embedding.weight",
        "positional_embedding",
        "visual.ln_pre.bias",
        "logit_scale",
    ):
        assert kinds[f"clip_pretrained.{name}"] == torch.float32, name
    assert "scratch.refinenet4.resConfUnit1.conv1.weight" in official
    release = {"epoch": 239, "global_step": 1, "state_dict": {f"net.{key}": value for key, value in official.items()}}
    torch.save(release, tmp_path / "lseg.ckpt")
    other = tiny()
    other.load_state_dict(load_official(tmp_path / "lseg.ckpt"), strict=True)
    back = to_official(other.state_dict(), half_clip=True)
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], official[key]) and back[key].dtype == official[key].dtype for key in back)
    release["state_dict"]["net.extra.weight"] = torch.zeros(1)
    torch.save(release, tmp_path / "lseg.ckpt")
    with pytest.raises(DataError, match=r"lseg\.ckpt: 1 keys .* extra\.weight"):
        load_official(tmp_path / "lseg.ckpt")


def test_parameters_are_those_of_the_official_sizes() -> None:
    """Without CLIP: timm's ViT-L/16 with its classifier, and what DPT adds. Counted by hand from the official modules."""
    with torch.device("meta"):
        from rislab.methods.lseg.model import LSeg
        from rislab.methods.lseg.task import trunk_of

        for name, channels in (
            ("vit_large_patch16_384", (256, 512, 1024, 1024)),
            ("vit_base_patch32_384", (96, 192, 384, 768)),
        ):
            trunk = trunk_of(ImageNetSpec(name), "project")
            model = LSeg(trunk, 256, 512)
            width = trunk.vit.embed_dim
            vit = sum(p.numel() for p in trunk.vit.parameters())
            readout = 4 * (2 * width * width + width)
            reduce = sum(width * c + c for c in channels)
            kernels = (4, 2, 0, 3) if name.startswith("vit_large") else (8, 4, 2, 0)
            resample = sum(c * c * k * k + c for c, k in zip(channels, kernels, strict=True) if k)
            lateral = sum(c * 256 * 9 for c in channels)
            fusion = 4 * (2 * (2 * 256 * 256 * 9 + 4 * 256) + 256 * 256 + 256)
            head = 256 * 512 + 512
            assert (
                sum(p.numel() for p in model.parameters())
                == vit + readout + reduce + resample + lateral + fusion + head
            )
            assert math.isclose(vit / 1e6, {1024: 304.7, 768: 88.3}[width], abs_tol=0.1)


def test_a_checkpoint_holds_the_trained_trunk_and_reads_no_file_for_it(tmp_path: Path) -> None:
    task = tiny()
    clip = {
        key.removeprefix("prompts.clip."): value.clone()
        for key, value in task.prompts.state_dict(prefix="prompts.").items()
    }
    save_file(clip, tmp_path / "clip.safetensors")
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    options = {"image_size": 64, "features": 16, "reg_block": "bottleneck", "reg_depth": 2}
    options |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": "elsewhere.pt"}}
    options |= {"trunk": {"name": "rislab-tiny-ViT16", "pretrained": str(tmp_path / "gone.pth")}}
    made = {"class_path": "rislab.methods.lseg.task.LSegTask", "init_args": options}
    WholeCheckpointIO(made).save_checkpoint(checkpoint, tmp_path / "best.ckpt")
    found = inference.load_method(tmp_path / "best.ckpt", tmp_path / "clip.safetensors")
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in task.state_dict().items())
    options["clip"] = {"name": "rislab-tiny-ViT", "pretrained": "toy"}
    WholeCheckpointIO(made).save_checkpoint(checkpoint, tmp_path / "best.ckpt")
    named = inference.recipe_of(tmp_path / "best.ckpt")["init_args"]
    assert named["trunk"]["pretrained"] is None
    assert named["clip"]["pretrained"] == "toy"


@pytest.mark.parametrize("work", ["window", "step", "picture"])
def test_the_bench_encodes_names_once_and_in_every_pass(work: class_names.Work) -> None:
    """A window is two passes; six scales of a picture in the ratio 4 : 3 take 1 + 1 + 2 + 2 + 4 + 6 windows at this size."""
    options = {
        "image_size": 64,
        "features": 8,
        "clip": {"name": "rislab-tiny-ViT"},
        "trunk": {"name": "rislab-tiny-ViT16"},
    }
    recipe = {"class_path": "rislab.methods.lseg.task.LSegTask", "init_args": options}
    passes = {"window": 2, "step": 1, "picture": 2 * 16}[work]
    for way in class_names.WAYS[work]:
        found = class_names.measure(recipe, work, way, 12, 64)
        assert found["encoded"] == (12 if way in ("rislab", "full_size") else 12 * passes), way
        assert found["seconds"] > 0
    with pytest.raises(ConfigError, match=r"window has no way full_size"):
        class_names.measure(recipe, "window", "full_size", 12, 64)
    other = {
        "class_path": "rislab.methods.cris.task.CRISTask",
        "init_args": {"clip": {"name": "rislab-tiny-RN"}, "fpn_out": [16, 32, 8]},
    }
    with pytest.raises(ConfigError, match="has no frozen text tower of CLIP's"):
        class_names.measure(other, "window", "rislab", 12, 64)


def test_all_ways_of_a_step_give_one_loss_and_one_gradient() -> None:
    task = method().train()
    names = tuple(f"thing {number}" for number in range(5))
    found = []
    for way in class_names.WAYS["step"]:
        made = method().train()
        made.load_state_dict(task.state_dict())
        made.prompts = class_names.Counted(made.prompts, way, learns=True)
        with mock.patch.object(made, "zero_grad"), official_order() if way == "official" else nullcontext():
            class_names.step(made, names, 64, way)
        found.append({name: p.grad for name, p in made.model.named_parameters() if p.grad is not None})
        tower = made.prompts.prompts.clip.text_projection
        assert (tower.grad is not None) == (way in ("text_gradients", "official"))
    for name, gradient in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], gradient, atol=1e-4, rtol=1e-3)
