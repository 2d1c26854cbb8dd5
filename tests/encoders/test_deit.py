"""DeiT and DINO: the tiny one, weights of files, positions. Parity of the features: tests/parity/test_reco.py."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rislab.ablation.identity import digest, resolve
from rislab.encoders.deit import tiny
from rislab.encoders.deit.load import SIZES, DeiTSpec, load
from rislab.encoders.deit.model import PatchEncoder
from rislab.encoders.deit.tiny import Recipe
from rislab.errors import ConfigError, DataError

QUICK = Recipe(pictures=40, steps=4, batch_size=8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    return tmp_path


def test_the_tiny_one_is_trained_once_and_bit_equal(cache: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    path = tiny.pretrained_path(QUICK)
    assert torch.equal(torch.rand(1), expected), "the caller's randomness was touched"
    first = path.read_bytes()
    path.unlink()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert tiny.pretrained_path(QUICK).read_bytes() == first, "on another number of threads"
    finally:
        torch.set_num_threads(threads)
    assert path.parent == cache / "deit"
    assert tiny.weights_file(QUICK) != tiny.weights_file(Recipe())


def test_the_tiny_one_learns() -> None:
    figures = tiny.right_labels(Recipe(pictures=600, steps=100, batch_size=16))
    assert figures["model"] > 1.6 * figures["chance"], figures


def test_the_tiny_ones_version_counts() -> None:
    given = {"class_path": "rislab.encoders.deit.load.DeiTSpec", "init_args": {"name": tiny.NAME, "pretrained": "toy"}}
    hashed = resolve(given, hashed=True)
    assert hashed["init_args"]["encoders.deit.tiny.VERSION"] == tiny.VERSION
    assert digest(hashed) != digest(resolve(given | {"init_args": {"name": "dino-s16"}}, hashed=True))


def saved(tmp_path: Path, state: dict[str, torch.Tensor]) -> str:
    path = tmp_path / "weights.pth"
    torch.save({"model": state, "epoch": 3}, path)
    return str(path)


def test_weights_of_a_file_may_lack_heads_or_have_others(tmp_path: Path) -> None:
    state = PatchEncoder(**SIZES[tiny.NAME]).vit.state_dict()
    bare = {key: value for key, value in state.items() if "head" not in key}
    for given in (bare, bare | {"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)}):
        found = load(DeiTSpec(tiny.NAME, saved(tmp_path, given))).vit.state_dict()
        assert all(torch.equal(found[key], value) for key, value in bare.items())
        assert found["head.weight"].shape == state["head.weight"].shape
    whole = load(DeiTSpec(tiny.NAME, saved(tmp_path, state))).vit.state_dict()
    assert all(torch.equal(whole[key], value) for key, value in state.items()), "heads that fit are kept"
    with pytest.raises(DataError, match=r"1 missing: norm\.weight"):
        load(DeiTSpec(tiny.NAME, saved(tmp_path, {key: v for key, v in bare.items() if key != "norm.weight"})))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DeiTSpec("deit-s16"), "encoder.name 'deit-s16' is none of .* (did you mean 'deit-s16-sin'?)"),
        (DeiTSpec("dino-s16", "toy"), "encoder.pretrained 'toy' belongs to rislab-tiny-DeiT, dino-s16 has no toy weights"),
        (DeiTSpec("dino-s16", "none.pth"), "encoder.pretrained 'none.pth' is no file: get dino_deitsmall16_pretrain.pth"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(spec: DeiTSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message).replace(r"\.\*", ".*")):
        load(spec)
    assert DeiTSpec("dino-s16", "None") == DeiTSpec("dino-s16")


@torch.no_grad()
def test_rest_of_a_picture_is_cut_or_filled() -> None:
    pixels = torch.randn(1, 3, 35, 50)
    cut = PatchEncoder(32, 1, 2, 16, 2, rest="cut").eval()
    assert cut(pixels).shape == (1, 32, 2, 3)
    torch.testing.assert_close(cut(pixels), cut(pixels[..., :32, :48]))
    filled = PatchEncoder(32, 1, 2, 16, 2, distilled=False, rest="pad").eval()
    assert filled(pixels).shape == (1, 32, 3, 4)
    torch.testing.assert_close(filled(pixels), filled(F.pad(pixels, (0, 14, 0, 13))))


@torch.no_grad()
def test_position_table_is_resized_by_shape_not_by_number() -> None:
    encoder = PatchEncoder(32, 1, 2, 16, table=4)
    torch.nn.init.normal_(encoder.vit.pos_embed)
    assert torch.equal(encoder.positions((4, 4)), encoder.vit.pos_embed)
    long = encoder.positions((2, 8))
    assert long.shape == encoder.vit.pos_embed.shape
    assert torch.equal(long[:, :2], encoder.vit.pos_embed[:, :2]), "extra tokens keep their rows"
    assert not torch.allclose(long, encoder.vit.pos_embed)
