"""CRIS's own: counts of the official modules, switches, groups, schedule, release files."""

import math
from pathlib import Path
from unittest import mock

import open_clip
import pytest
import torch
import yaml

from rislab.encoders.clip.text import CLIPTextEncoder
from rislab.encoders.clip.trunk import CLIPSpec, ResNetPyramid, build
from rislab.errors import ConfigError, DataError
from rislab.methods.cris.model import CRIS
from rislab.methods.cris.official import UNUSED, from_official, load_official, to_official
from rislab.methods.cris.task import CRISTask
from tests.worlds import ROOT


def tiny() -> CRISTask:
    """The method small and with random weights, for the contract suite."""
    return CRISTask(
        CLIPSpec("rislab-tiny-RN"),
        image_size=64,
        word_len=8,
        fpn_out=(16, 32, 16),
        decoder_layers=1,
        num_head=2,
        dim_ffn=32,
        dropout=0.0,
        base_lr=3e-3,
        lr_multi=1.0,
    )


def full_size(name: str, text_to_pixel: bool, decoder_layers: int) -> CRIS:
    """Official sizes without their memory."""
    with torch.device("meta"):
        config = open_clip.get_model_config(name)
        towers = build(config["vision_cfg"], config["text_cfg"], config["embed_dim"])
        text = CLIPTextEncoder(towers)
        trunk = ResNetPyramid(towers.visual, text.text_projection.shape[1])
        return CRIS(trunk, text, (256, 512, 1024), text_to_pixel, decoder_layers, 8, 2048, 0.1, 3)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "official"), [("RN50", 146_849_122), ("RN101", 161_251_682)])
def test_parameters_are_those_of_the_official_modules(name: str, official: int) -> None:
    model = full_size(name, True, 3)
    assert count(model) == official - len(UNUSED)  # the release counts CLIP's unused temperature
    assert len(to_official(dict(model.state_dict()))) == {"RN50": 662, "RN101": 968}[name]


def test_switches_cost_what_the_ablation_table_says() -> None:
    table = yaml.safe_load((ROOT / "ablations" / "cris.yaml").read_text())
    for row in table["rows"]:
        model = full_size("RN50", row["switches"]["model.text_to_pixel"], row["switches"]["model.decoder_layers"])
        assert round(count(model) / 1e6, 2) == row["paper"]["refcoco"]["params_m"], row["name"]


def test_a_switched_off_part_is_absent() -> None:
    options = {"image_size": 64, "fpn_out": (16, 32, 16), "num_head": 2, "dim_ffn": 32}
    bare = CRISTask(CLIPSpec("rislab-tiny-RN"), text_to_pixel=False, decoder_layers=0, **options)
    names = {name for name, _ in bare.named_parameters()}
    assert not any("decoder" in name or "kernel" in name for name in names)
    full = tiny()
    assert full.model.decoder is not None


def test_groups_and_schedule_follow_the_official_run() -> None:
    task = CRISTask(CLIPSpec("rislab-tiny-RN"), image_size=64, fpn_out=(16, 32, 16), num_head=2, dim_ffn=32)
    configured = task.configure_optimizers()
    slow, fast = configured["optimizer"].param_groups
    named = {id(p): n for n, p in task.model.named_parameters()}
    assert all(named[id(p)].startswith(("trunk.", "text.")) for p in slow["params"])
    in_fast = {named[id(p)] for p in fast["params"]}
    assert {"text.positional_embedding", "trunk.attnpool.positional_embedding"} <= in_fast
    assert not any(n.startswith(("trunk.", "text.")) and "positional" not in n for n in in_fast)
    assert "trunk.attnpool.connect.0.weight" in {named[id(p)] for p in slow["params"]}
    rates = []
    configured["optimizer"].step()  # nothing has a gradient: it moves nothing
    for _ in range(50):
        rates.append((slow["lr"], fast["lr"]))
        configured["lr_scheduler"]["scheduler"].step()
    assert rates[0] == pytest.approx((1e-4, 1e-4))  # the published runs' first epoch
    assert rates[1] == rates[34] == pytest.approx((1e-5, 1e-4))
    assert rates[35] == rates[49] == pytest.approx((1e-6, 1e-5))


def test_cosine_schedule_rises_and_falls_to_zero() -> None:
    task = CRISTask(
        CLIPSpec("rislab-tiny-RN"),
        **{"image_size": 64, "fpn_out": (16, 32, 16), "num_head": 2, "dim_ffn": 32, "base_lr": 1e-3},
        schedule="cosine",
        warmup_steps=4,
        legacy_first_epoch_lr=False,
    )
    with mock.patch.object(CRISTask, "training_steps", 24):
        configured = task.configure_optimizers()
        slow, fast = configured["optimizer"].param_groups
        configured["optimizer"].step()
        rates = []
        for _ in range(25):
            rates.append((slow["lr"], fast["lr"]))
            configured["lr_scheduler"]["scheduler"].step()
    assert configured["lr_scheduler"]["interval"] == "step"
    assert [fast for _, fast in rates[:5]] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert rates[14][1] == pytest.approx(5e-4), "half of the way after the warm-up"
    assert rates[24][1] == pytest.approx(0, abs=1e-12)
    assert all(slow == pytest.approx(0.1 * fast) for slow, fast in rates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosine"}, "legacy_first_epoch_lr belongs to schedule `steps`"),
        ({"warmup_steps": 9}, "warmup_steps belongs to schedule `cosine`"),
        ({"warmup_steps": -1}, "expected 0 or more"),
        ({"image_size": 100}, "multiple of 32"),
        ({"fpn_out": (16, 64, 16)}, "must equal the text width 32"),
        ({"word_len": 200}, "77 positions"),
        ({"clip": CLIPSpec("RN5")}, r"did you mean 'RN50"),
        ({"clip": CLIPSpec("rislab-tiny-ViT"), "fpn_out": (16, 32, 16)}, "needs one of CLIP's ResNets"),
    ],
    ids=str,
)
def test_impossible_options_are_named(options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"clip": CLIPSpec("rislab-tiny-RN"), "fpn_out": (16, 32, 16)} | options
    with pytest.raises(ConfigError, match=message):
        CRISTask(**given)


def test_release_files_load_strictly(tmp_path: Path) -> None:
    task = tiny()
    official = to_official(task.state_dict())
    release = {"epoch": 50, "cur_iou": 0.7, "state_dict": {f"module.{k}": v for k, v in official.items()}}
    torch.save(release, tmp_path / "best_model.pth")
    other = tiny()
    other.load_state_dict(load_official(tmp_path / "best_model.pth"), strict=True)
    for (name, a), b in zip(task.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(DataError, match=r"1 keys .* extra\.weight"):
        from_official(official | {"extra.weight": torch.zeros(1)})
    (tmp_path / "cut.pth").write_bytes((tmp_path / "best_model.pth").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.pth: not a checkpoint"):
        load_official(tmp_path / "cut.pth")


def test_dynamic_kernel_is_a_grouped_convolution() -> None:
    """The fast form against the definition: one convolution kernel a row."""
    head = tiny().model.projector.head
    v, state = torch.randn(3, 16, 7, 5), torch.randn(3, 64)
    made = head.kernel(state)
    kernels = made[:, :-1].view(3, 16, 3, 3)
    slow = torch.nn.functional.conv2d(v.reshape(1, 48, 7, 5), kernels, padding=1, groups=3)[0] + made[:, -1, None, None]
    torch.testing.assert_close(head(v, state), slow, atol=1e-5, rtol=1e-4)


def test_loss_is_the_papers_two_cases() -> None:
    from rislab.losses.text_to_pixel import text_to_pixel

    logits, target = torch.randn(2, 4, 4), (torch.rand(2, 8, 8) > 0.5).float()
    small = target[:, ::2, ::2]
    cases = [math.log(torch.sigmoid(z if m else -z)) for z, m in zip(logits.flatten(), small.flatten(), strict=True)]
    assert float(text_to_pixel(logits, target)) == pytest.approx(-sum(cases) / len(cases), abs=1e-5)
