"""Our Swin: what its windows compute, how it differs from timm's, sizes of any kind, weights from elsewhere."""

from pathlib import Path
from unittest import mock

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from rislab.encoders.swin import tiny
from rislab.encoders.swin.load import SwinSpec, from_release, load, resized_tables
from rislab.encoders.swin.model import Swin, WindowAttention
from rislab.encoders.swin.names import with_buffers
from rislab.encoders.swin.windows import windows
from rislab.errors import ConfigError, DataError

SMALL = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (2, 2, 4, 4)}


def shaken(model: Swin) -> Swin:
    """Tables and biases that are not zero, so that what they do can be seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def plain_attention(self: WindowAttention, x: Tensor) -> Tensor:
    """Attention of shifted windows in the order of the official code: pad, roll, cut, attend, put together, roll back, crop."""
    B, height, width, C = x.shape
    w, shift = self.window, self.shift
    x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
    rows, columns = x.shape[1:3]

    def cut(x: Tensor) -> Tensor:
        return x.view(-1, rows // w, w, columns // w, w, x.shape[-1]).transpose(2, 3).reshape(-1, w * w, x.shape[-1])

    q, k, v = (
        self.qkv(cut(x.roll((-shift, -shift), (1, 2))))
        .view(-1, w * w, 3, self.heads, C // self.heads)
        .permute(2, 0, 3, 1, 4)
    )
    logits = q @ k.transpose(2, 3) * (C // self.heads) ** -0.5
    logits = logits + self.relative_position_bias_table[self.offsets].view(w * w, w * w, -1).permute(2, 0, 1)
    if shift:
        region = torch.zeros(1, rows, columns, 1)
        bands = (slice(None, -w), slice(-w, -shift), slice(-shift, None))
        for number, (down, across) in enumerate((a, b) for a in bands for b in bands):
            region[:, down, across] = number
        region = cut(region)[..., 0]
        logits = logits - 100.0 * (region[:, :, None] != region[:, None]).float().repeat(B, 1, 1)[:, None]
    x = self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, C))
    x = x.view(B, rows // w, columns // w, w, w, C).transpose(2, 3).reshape(B, rows, columns, C)
    return x.roll((shift, shift), (1, 2))[:, :height, :width]


@pytest.mark.parametrize("size", [(96, 96), (61, 150), (20, 13)])
def test_windows_are_padded_shifted_and_cut_as_officially(size: tuple[int, int]) -> None:
    """Any height and width, maps smaller than a window among them; values and gradients."""
    torch.manual_seed(0)
    model = shaken(Swin(**SMALL, window=5)).double()
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    found = []
    for forward in (WindowAttention.forward, plain_attention):
        with mock.patch.object(WindowAttention, "forward", forward):
            maps = model(pixels)
            gradients = torch.autograd.grad(sum(m.sin().sum() for m in maps), list(model.parameters()))
        found.append([*maps, *gradients])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    assert [tuple(m.shape[1:3]) for m in found[0][:4]] == [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize(("size", "is_same"), [(384, True), (480, False)])
def test_timms_swin_is_another_network_at_480_with_windows_of_12(size: int, is_same: bool) -> None:
    """The same weights: equal where all maps are whole windows, far apart where stages of 30 and 15 pixels need padding."""
    torch.manual_seed(0)
    ours = shaken(Swin(**SMALL, window=12))
    theirs = timm.models.SwinTransformer(
        img_size=size, window_size=12, num_classes=0, always_partition=True, **SMALL
    ).eval()
    state = theirs.state_dict() | {
        (f"layers.{int(key.split('.')[1]) + 1}.{key.split('.', 2)[2]}" if ".downsample." in key else key): value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    pixels = torch.randn(1, 3, size, size)
    with torch.no_grad():
        found = ours(pixels)
        x = theirs.patch_embed(pixels)
        for stage in theirs.layers:
            x = stage(x)
    difference = float((found[-1] - x).abs().max())
    assert difference < 1e-3 if is_same else difference > 0.3, difference


@pytest.mark.parametrize(
    ("name", "window"), [("swin_tiny", 7), ("swin_small", 7), ("swin_base", 12), ("swin_large", 12)]
)
def test_parameters_are_those_of_the_release(name: str, window: int) -> None:
    """What timm counts for the same names, without the last norm and the classifier."""
    with torch.device("meta"):
        model = load(SwinSpec(name, window=window))
        theirs = timm.create_model(f"{name}_patch4_window{window}_{384 if window == 12 else 224}", num_classes=0)
    official = sum(p.numel() for p in theirs.parameters()) - 2 * model.channels[-1]
    assert sum(p.numel() for p in model.parameters()) == official


def test_tables_of_a_size_are_made_once() -> None:
    model = shaken(Swin(**SMALL, window=3))
    windows.cache_clear()
    with torch.inference_mode():
        model(torch.randn(1, 3, 52, 40))
    made = windows.cache_info().misses
    model(torch.randn(3, 3, 52, 40))[0].sum().backward()  # tables of an evaluation serve training
    assert windows.cache_info().misses == made
    assert made <= 8


def test_weights_load_by_official_names_and_by_timms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = shaken(load(SwinSpec(tiny.NAME, window=4)))
    own = {key: value.clone() for key, value in model.state_dict().items()}
    head = {"norm.weight": torch.ones(3), "head.weight": torch.ones(5, 3), "head.bias": torch.zeros(5)}
    masks = {"layers.0.blocks.0.attn_mask": torch.zeros(4, 16, 16)}
    torch.save({"model": with_buffers(own) | head | masks}, tmp_path / "swin_22k.pth")
    timms = {
        (f"layers.{int(key.split('.')[1]) + 1}.{key.split('.', 2)[2]}" if ".downsample." in key else key): value
        for key, value in own.items()
    }
    save_file(timms | {"head.fc.weight": torch.ones(5, 3)}, tmp_path / "timm.safetensors")
    for name in ("swin_22k.pth", "timm.safetensors"):
        found = load(SwinSpec(tiny.NAME, str(tmp_path / name), window=4)).state_dict()
        assert found.keys() == own.keys()
        assert all(torch.equal(found[key], own[key]) for key in own), name
    assert from_release(timms).keys() == own.keys()


def test_bias_tables_of_another_window_are_resized(tmp_path: Path) -> None:
    row = torch.linspace(-1, 1, 7)
    table = (row[:, None] + 2 * row).flatten()[:, None].repeat(1, 2)
    found = resized_tables({"attn.relative_position_bias_table": table}, 6)["attn.relative_position_bias_table"]
    assert found.shape == (121, 2)
    square = found[:, 0].view(11, 11)
    assert (
        float((square.diff(dim=1)[:, 2:-2] - 2 * square.diff(dim=0).T[:, 2:-2]).abs().max()) < 1e-5
    )  # a plane stays one
    torch.manual_seed(0)
    torch.save(load(SwinSpec(tiny.NAME, window=4)).state_dict(), tmp_path / "w4.pth")
    other = load(SwinSpec(tiny.NAME, str(tmp_path / "w4.pth"), window=6))
    assert other(torch.randn(1, 3, 48, 48))[-1].shape == (1, 2, 2, 8 * tiny.EMBED_DIM)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SwinSpec("swin_bas"), "swin.name 'swin_bas' is none of .*did you mean 'swin_base'"),
        (SwinSpec("swin_base", "toy"), "swin.pretrained 'toy': swin_base has no such weights"),
        (SwinSpec(tiny.NAME, "hub"), "swin.pretrained 'hub': rislab-tiny-Swin has no such weights"),
        (SwinSpec("swin_base", "/nowhere/x.pth"), "'/nowhere/x.pth' is no file; expected one, hub, toy or null"),
        (SwinSpec("swin_base", window=0), "swin.window is 0, expected 1 or more"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec: SwinSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(spec)


def test_weights_of_another_swin_are_refused(tmp_path: Path) -> None:
    torch.save(Swin(**SMALL, window=4).state_dict(), tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth: "):
        load(SwinSpec(tiny.NAME, str(tmp_path / "other.pth"), window=4))


def test_tiny_swin_learns_what_it_is_pretrained_on() -> None:
    """With a few steps: far above chance where that is soon learnt; the caller's randomness is untouched."""
    before = torch.random.get_rng_state()
    found = tiny.accuracy(tiny.Recipe(pictures=300, steps=25))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found["colour"] > 60, found
