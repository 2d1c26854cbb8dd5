"""The tiny CLIP: trained once, cached by what made it, and of use."""

import multiprocessing
from pathlib import Path

import open_clip
import pytest
import torch

from rislab.encoders import pretrained
from rislab.encoders.clip.tiny import NAMES, Recipe, pretrained_path, retrieval, weights_file
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.errors import ConfigError

QUICK = Recipe(pairs=200, steps=25, batch_size=16, size=96)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    return tmp_path


def test_trained_once_and_bit_equal(cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    path = pretrained_path("rislab-tiny-RN", QUICK)
    assert torch.equal(torch.rand(1), expected), "the caller's randomness was touched"
    first, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert pretrained_path("rislab-tiny-RN", QUICK) == path
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    assert pretrained_path("rislab-tiny-RN", QUICK).read_bytes() == first
    model = open_clip.create_model("rislab-tiny-RN", pretrained=str(path), force_quick_gelu=True)
    assert model.state_dict().keys() == load(CLIPSpec("rislab-tiny-RN")).state_dict().keys()


def test_name_follows_the_recipe(cache: Path) -> None:
    assert weights_file("rislab-tiny-RN", QUICK) != weights_file("rislab-tiny-RN", Recipe())
    assert weights_file("rislab-tiny-RN", QUICK) != weights_file("rislab-tiny-ViT", QUICK)
    with pytest.raises(ConfigError, match="did you mean 'rislab-tiny-RN'"):
        weights_file("rislab-tiny-RM", QUICK)


def test_an_interrupted_training_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "save_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pretrained_path("rislab-tiny-RN", Recipe(pairs=50, steps=1, batch_size=4))
    assert not list((cache / "clip").glob("*.safetensors*"))


def _train(steps: list[int], queue: "multiprocessing.SimpleQueue[float]") -> None:
    path = pretrained_path("rislab-tiny-RN", Recipe(pairs=50, steps=steps[0], batch_size=4))
    queue.put(path.stat().st_mtime)


def test_two_processes_train_once(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_train, args=([2], queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert queue.get() == queue.get()
    for process in processes:
        process.join()


def test_both_trunks_learn(cache: Path) -> None:
    assert set(NAMES) == {"rislab-tiny-RN", "rislab-tiny-ViT"}
    recipe = Recipe(pairs=400, steps=60, batch_size=24)
    for name in NAMES:
        figures = retrieval(name, candidates=20, rounds=3, recipe=recipe)
        assert figures["image to text"]["R@5"] > 1.5 * figures["chance"]["R@5"], figures
