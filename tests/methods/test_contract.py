"""What every method promises, asked of each that exists."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

import rislab.methods
from rislab.data.batch import Batch, LabelBatch, Viewing
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from tests.methods.tiny import METHODS

ALL = pytest.mark.parametrize("name", sorted(METHODS))
LEARNING = pytest.mark.parametrize("name", sorted(name for name, make in METHODS.items() if make().is_trained))
FIXED = pytest.mark.parametrize("name", sorted(name for name, make in METHODS.items() if not make().is_trained))
TEXTS = ["red circle", "the blue square left of it", "red circle", "", "ünïcödé 🙂 שלום"]
INDEX = torch.tensor([0, 0, 1, 1, 1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(method: TextSegmenter, count: int = 2) -> torch.Tensor:
    height, width = method.geometry.size
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def batch(method: TextSegmenter) -> Batch:
    height, width = method.geometry.size
    masks = torch.zeros(len(TEXTS), height, width, dtype=torch.uint8)
    masks[0, : height // 2] = 255
    masks[1, :, : width // 2] = 255
    masks[3] = 128  # and masks[4] stays empty
    pictures = images(method)
    places = [method.geometry.place(height, width)] * 2
    return Batch(pictures, TEXTS, INDEX, masks, None, places, [1, 2], list(range(5)), list(range(5)), [False] * 5)


def test_every_method_is_in_the_suite() -> None:
    folder = Path(rislab.methods.__file__).parent
    assert {path.parent.name for path in folder.glob("*/task.py")} == set(METHODS)


@LEARNING
def test_step_is_finite_and_no_parameter_is_dead(name: str) -> None:
    method = METHODS[name]().train()
    with torch.no_grad():  # a gain that starts at zero shuts its whole branch off
        for parameter in method.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    terms = method.losses(batch(method))
    assert terms
    torch.stack(list(terms.values())).sum().backward()
    dead = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not dead
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@ALL
def test_segment_answers_each_query_alike_in_any_company(name: str) -> None:
    method = METHODS[name]().eval()
    pictures = images(method)
    with torch.no_grad():
        together = method.segment(pictures, TEXTS, INDEX)
        again = method.segment(pictures, TEXTS, INDEX)
        alone = torch.cat(
            [
                method.segment(pictures[i : i + 1], [text], torch.zeros(1, dtype=torch.int64))
                for text, i in zip(TEXTS, INDEX, strict=True)
            ]
        )
    assert together.shape[0] == len(TEXTS)
    assert together.ndim == 3
    assert torch.equal(together, again)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(together[0], together[1]), "two sentences, one image, one answer: the text is not read"


@ALL
def test_vocabulary_asks_every_name_of_every_image(name: str) -> None:
    method = METHODS[name]().eval()
    pictures, names = images(method), ["dog", "cat", "sky"]
    with torch.no_grad():
        logits = method.segment_vocabulary(pictures, names)
        backwards = method.segment_vocabulary(pictures, names[::-1])
        second = method.segment_vocabulary(pictures[1:], names)
        one = method.segment(pictures, ["cat", "cat"], torch.tensor([0, 1]))
    assert logits.shape[:2] == (2, 3)
    torch.testing.assert_close(backwards.flip(1), logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(second[0], logits[1], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(logits[:, 0], logits[:, 1])
    if type(method).segment_vocabulary is TextSegmenter.segment_vocabulary:
        torch.testing.assert_close(logits[:, 1], one, atol=1e-4, rtol=1e-3)


@ALL
@pytest.mark.parametrize("background", [True, False])
def test_labels_pictures_of_any_size_by_windows(name: str, background: bool) -> None:
    method = METHODS[name]().eval()
    sizes, original = [(48, 48), (48, 100), (70, 48)], [(30, 31), (61, 150), (80, 55)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    labels = [np.zeros(size, np.uint8) for size in original]
    names = ("dog", "cat", "sky")
    pack = LabelBatch(pictures, labels, names, background, Viewing(48, 200, 48, 24, "mmseg"), [0, 1, 2])
    with torch.no_grad():
        found = method.label(pack)
        again = method.label(pack)
    assert [tuple(label.shape) for label in found] == original
    assert all(int(label.max()) < len(names) + background for label in found)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@FIXED
def test_what_has_nothing_to_train_says_so(name: str) -> None:
    method = METHODS[name]()
    assert method.configure_optimizers() is None
    with pytest.raises(ConfigError, match="has nothing to train; `rislab test` scores it"):
        method.losses(batch(method))


@LEARNING
def test_frozen_weights_have_no_gradient_and_do_not_move_by_a_bit(name: str) -> None:
    method = METHODS[name]().train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    configured = method.configure_optimizers()
    optimiser = configured["optimizer"] if isinstance(configured, dict) else configured
    for _ in range(2):
        torch.stack(list(method.losses(batch(method)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
    fixed = {key for key, parameter in method.named_parameters() if not parameter.requires_grad}
    assert all(parameter.grad is None for key, parameter in method.named_parameters() if key in fixed)
    after = method.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in fixed)
    assert all(torch.equal(after[key], before[key]) for key in after if method._is_frozen(key))
    in_optimiser = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert in_optimiser == {id(p) for p in method.parameters() if p.requires_grad}


@ALL
def test_checkpoints_leave_a_frozen_trunk_out_and_want_it_back(name: str) -> None:
    method, other = METHODS[name]().eval(), METHODS[name]().eval()
    checkpoint = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    assert not any(method._is_frozen(key) for key in checkpoint["state_dict"])
    if not method.frozen:
        return
    with pytest.raises(ConfigError, match="was trained on a trunk with sha256"):
        other.on_load_checkpoint(dict(checkpoint))  # random weights of its own
    for key, value in other.state_dict().items():
        if other._is_frozen(key):
            value.copy_(method.state_dict()[key])
    del other.trunk
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    pictures = images(method)
    with torch.no_grad():
        assert torch.equal(method.segment(pictures, TEXTS, INDEX), other.segment(pictures, TEXTS, INDEX))


@ALL
def test_save_and_load_gives_the_same_answers(name: str) -> None:
    method, other = METHODS[name]().eval(), METHODS[name]().eval()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    pictures = images(method)
    with torch.no_grad():
        assert torch.equal(method.segment(pictures, TEXTS, INDEX), other.segment(pictures, TEXTS, INDEX))


@LEARNING
def test_bfloat16_autocast_trains(name: str) -> None:
    method = METHODS[name]().train()
    with torch.autocast("cpu", torch.bfloat16):
        total = torch.stack(list(method.losses(batch(method)).values())).sum()
    total.backward()
    assert torch.isfinite(total)


@LEARNING
def test_overfits_two_samples(name: str) -> None:
    method = METHODS[name]().train()
    if method.supervision == "texts":
        overfit_pairs(method)
        return
    height, width = method.geometry.size
    pictures = images(method, 1)
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, :, : width // 2] = 255
    masks[1, height // 2 :] = 255
    places = [method.geometry.place(height, width)]
    pair = Batch(
        pictures,
        ["left half", "lower part"],
        torch.zeros(2, dtype=torch.int64),
        masks,
        None,
        places,
        [1],
        [1, 2],
        [1, 2],
        [False, False],
    )
    configured = method.configure_optimizers()
    optimiser = configured["optimizer"] if isinstance(configured, dict) else configured
    first = last = 0.0
    for step in range(60):
        loss = torch.stack(list(method.losses(pair).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        last = float(loss.detach())
        first = first or last
        assert np.isfinite(last), step
    assert last < 0.1 * first


def overfit_pairs(method: TextSegmenter) -> None:
    """Without masks, the regions of two pictures must come to tell their two texts apart."""
    height, width = method.geometry.size
    places = [method.geometry.place(height, width)] * 2
    texts = ["left half", "lower part"]
    pair = Batch(images(method), texts, torch.arange(2), None, None, places, [1, 2], [1, 2], [1, 2], [False] * 2)
    configured = method.configure_optimizers()
    optimiser = configured["optimizer"] if isinstance(configured, dict) else configured
    seen = []
    for _ in range(60):
        terms = method.losses(pair)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        seen.append({name: float(value.detach()) for name, value in terms.items()})
    assert all(np.isfinite(value) for terms in seen for value in terms.values())
    assert sum(seen[-1].values()) < 0.8 * sum(seen[0].values())
    assert min(seen[-1][name] / seen[0][name] for name in seen[0] if "tcl" in name) < 0.1, (seen[0], seen[-1])
