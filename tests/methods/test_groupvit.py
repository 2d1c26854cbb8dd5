"""GroupViT: how tokens are assigned, that caching changes no gradient, and that tables of groups give the plain labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from rislab.data.batch import Captions, LabelledPictures, Viewing
from rislab.data.benchmark_trees import benchmark, class_names
from rislab.data.synthetic import batch_of
from rislab.errors import ConfigError
from rislab.methods.groupvit import encoding
from rislab.methods.groupvit.grouping import Assignment, Grouping, assign
from rislab.methods.groupvit.inference import background_threshold, group_of_pixels, with_background
from rislab.methods.groupvit.labels import Window, combined, labels
from rislab.methods.groupvit.task import GroupViTTask
from rislab.nn.sliding import boxes, mean_of_windows
from tests.forks import on_ranks

SMALL: dict[str, Any] = {
    "image_size": 48, "patch_size": 12, "embed_dim": 32, "depth": 4, "heads": 2, "drop_path": 0.0, "group_tokens": 6,
    "output_groups": 3, "text_width": 64, "text_layers": 1, "context_length": 16, "output_dim": 16,
    "projector_hidden_dim": 32, "tagger": "pattern", "augment": "none", "base_lr": 3e-3, "warmup_steps": 0,
}  # fmt: skip


def tiny() -> GroupViTTask:
    """The method small and with random weights, for the contract suite."""
    return GroupViTTask(**SMALL)


def method(**switches: Any) -> GroupViTTask:
    torch.manual_seed(0)
    return GroupViTTask(**SMALL | switches)


def captions(count: int = 6) -> Captions:
    batch = batch_of(Captions, method().geometry, images=count)
    assert isinstance(batch, Captions)
    return batch


def gradients(model: GroupViTTask, batch: Captions) -> dict[str, Tensor]:
    terms = model.train().losses(batch)
    torch.stack(list(terms.values())).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_official_sizes() -> None:
    model = GroupViTTask()
    assert sum(p.numel() for p in model.parameters()) == 55_726_610
    assert len(model.state_dict()) == 407
    assert model.multi_label == 3


def test_hard_assignment_takes_one_group_and_has_the_gradient_of_its_softmax() -> None:
    kind, noise = Grouping(), torch.randn(2, 4, 9)
    logits = torch.randn(2, 4, 9, requires_grad=True)
    found = assign(logits, kind, True, noise)
    torch.testing.assert_close(found.used.detach(), F.one_hot((logits + noise).argmax(1), 4).transpose(1, 2).float())
    weight = torch.randn(2, 4, 9)
    (ours,) = torch.autograd.grad((found.used * weight).sum(), logits)
    (softmax,) = torch.autograd.grad(((logits + noise).softmax(1) * weight).sum(), logits)
    torch.testing.assert_close(ours, softmax)
    decided = F.one_hot(logits.argmax(1), 4).transpose(1, 2).float()
    assert torch.equal(assign(logits, kind, False).used, decided), "no noise in evaluation"
    assert torch.equal(assign(logits, Grouping(gumbel=False), True).used.round(), decided)
    drawn = torch.stack([assign(torch.zeros(1, 4, 100), kind, True).used for _ in range(50)]).mean((0, 1, 3))
    assert drawn.sub(0.25).abs().max() < 0.05, "noise is the same for all groups"
    soft = assign(logits, Grouping(hard=False), True)
    assert torch.equal(soft.used, logits.softmax(1)), "soft assignment has no noise"


@pytest.mark.parametrize("hard", [True, False])
def test_gradient_caching_gives_the_gradients_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch, hard: bool) -> None:
    """Parts are computed twice, with the same draws of noise and of skipped branches."""
    batch = captions(7)
    switches = {"micro_batch": 3, "hard_assignment": hard, "drop_path": 0.3}
    torch.manual_seed(5)
    cached = gradients(method(**switches), batch)
    computed = []
    monkeypatch.setattr(encoding, "checkpointed", lambda f, *parts: computed.append(f) or f(*parts))
    torch.manual_seed(5)
    direct = gradients(method(**switches), batch)
    assert computed.count(encoding.pooled) == 3
    for name, gradient in direct.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    if not hard:  # without any draw, parts do not matter at all
        one, parts = method(hard_assignment=False), method(hard_assignment=False, micro_batch=2)
        whole = gradients(one, batch)
        for name, gradient in gradients(parts, batch).items():
            torch.testing.assert_close(gradient, whole[name], atol=1e-5, rtol=1e-3, msg=name)


def part(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole = captions()
    mine = slice(3 * rank, 3 * rank + 3)
    assert whole.nouns is not None
    batch = Captions(images=whole.images[mine], image_ids=whole.image_ids[mine], placements=whole.placements[mine],
                     texts=whole.texts[mine], nouns=whole.nouns[mine])  # fmt: skip
    model = method(gumbel=False)
    found = {name: dist.all_reduce(value) or value / 2 for name, value in gradients(model, batch).items()}
    torch.save((found, dict(model.named_buffers())), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    on_ranks(2, part, tmp_path)
    model = method(gumbel=False)
    whole = gradients(model, captions())
    for rank in range(2):
        found, buffers = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, gradient in whole.items():
            torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-3, msg=name)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[name], buffer, atol=1e-6, rtol=1e-5, msg=name)


def test_switches_change_what_is_trained() -> None:
    batch = captions()
    assert method().losses(batch).keys() == {"contrast", "multi_label"}
    alone = method(multi_label=0)
    assert alone.losses(batch).keys() == {"contrast"}
    assert alone.train_transform() is None, "no prompts"
    for switches in ({"multi_label": 0}, {"share_temperature": True}):
        assert method(**switches).model.multi_label_logit_scale is None
    half = method(multi_label_loss_weight=0.5).losses(batch)["multi_label"]
    torch.manual_seed(0)
    assert method(gumbel=False, multi_label_loss_weight=0.5).losses(batch)["multi_label"] > 0
    assert half > 0
    assert [len(method(grouping_stages=n).model.image.stages) for n in (0, 1, 2)] == [1, 2, 3]
    assert not any("pre_assign" in name for name, _ in method(pre_assign_attn=False).named_parameters())
    with pytest.raises(ConfigError, match="the data give no prompted nouns"):
        method().losses(Captions(**{**vars(batch), "nouns": None}))
    for wrong in ({"image_size": 50}, {"text_width": 48}, {"embed_dim": 33}, {"depth": 3}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ConfigError, match=rf"model\.{name} is {value}, "):
            method(**wrong)


@torch.no_grad()
def test_start_of_small_networks() -> None:
    """Our options change the start as they say, and nothing else; without them it is the official one."""
    usual = method()
    tokens = [stage.group_tokens for stage in usual.model.image.stages]  # type: ignore[union-attr]
    assert [None if each is None else each.any().item() for each in tokens] == [True, False, None]
    wide = method(group_token_std=1.0).model.image.stages
    for each in (wide[0].group_tokens, wide[1].group_tokens):
        assert isinstance(each, Tensor)
        assert 0.6 < each.std() < 1.2
    before, after = dict(usual.named_parameters()), dict(method(assign_start_gain=5.0).named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    for name in changed:
        torch.testing.assert_close(after[name], 5 * before[name], msg=name)
    maps = {f"{part}.weight" for part in ("q_proj", "k_proj", "v_proj", "proj")}
    assert changed == {f"model.image.stages.{n}.grouping.assign.{each}" for n in (0, 1) for each in maps}


def test_collapse_is_seen() -> None:
    one = torch.zeros(2, 4, 9)
    one[:, 2] = 1
    even = torch.full((2, 4, 9), 0.25)
    each = torch.eye(9)[:4].expand(2, 4, 9).clone()
    each[:, 0, 4:] = 1
    found = encoding.usage([Assignment(one, one), Assignment(one, even), Assignment(each, each)])
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [1.0, 1.0], [4.0, 0.0]]))


def test_texts_are_encoded_once_and_not_beyond_their_ends() -> None:
    model = method(context_length=77).eval()
    texts = [
        "a dog",
        "a dog",
        "a photo of one very small dog beside a large red barn with a garden and two trees",
        "cat",
    ]
    ids = model.texts.ids([texts])[0]
    seen: list[tuple[int, ...]] = []
    model.model.text.register_forward_hook(lambda module, given, _: seen.append(tuple(given[0].shape)))
    found = encoding.encode_texts(model.model, ids)
    assert seen == [(2, 4), (1, 20)], "two lengths, no padding to 77, one text twice"
    torch.testing.assert_close(found, model.model.text(ids), atol=1e-5, rtol=1e-5)


def test_names_are_kept_until_weights_change() -> None:
    model = method().eval()
    first = model.texts.names(["dog", "cat"])
    assert model.texts.names(("dog", "cat")) is first
    optimiser = model.configure_optimizers()["optimizer"]  # type: ignore[index]
    gradients(model, captions())
    optimiser.step()
    assert not torch.equal(model.eval().texts.names(("dog", "cat")), first)


@pytest.mark.parametrize("original", [(61, 90), (48, 72), (30, 41), (150, 97)])
def test_tables_of_groups_give_the_labels_of_full_size_scores(original: tuple[int, int]) -> None:
    """mmsegmentation's way: scores of all classes at all pixels of each window, their mean, enlarged, the largest wins."""
    torch.manual_seed(0)
    size = (48, 72)
    where = boxes(*size, 24, 12)
    windows, maps = [], []
    for box in where:
        coarse = torch.randn(1, 5, 4, 4)
        groups = F.interpolate(coarse, (24, 24), mode="bilinear").argmax(1)[0]
        table = torch.rand(5, 7)
        windows.append(Window(box, groups, table))
        maps.append(table[groups].permute(2, 0, 1))
    mean = mean_of_windows(maps, where, size)
    code, scores = combined(windows, size)
    torch.testing.assert_close(scores[code].permute(2, 0, 1), mean)
    full = F.interpolate(mean[None], original, mode="bilinear")[0]
    found = labels(code, scores, original, at_once=100)
    first, second = full.topk(2, dim=0).values
    assert torch.equal(found[first - second > 1e-6], full.argmax(0)[first - second > 1e-6])
    assert (first - second > 1e-6).float().mean() > 0.999


@torch.no_grad()
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_labels_of_a_picture_are_those_of_its_scores(stages: int) -> None:
    model = method(grouping_stages=stages, bg_thresh=0.3).eval()
    names, image = ("dog", "cat", "sky", "car", "red", "blue"), torch.randint(0, 256, (3, 40, 75), dtype=torch.uint8)
    blank = np.zeros((40, 75), np.uint8)
    batch = LabelledPictures([image], [blank], names, True, Viewing(40, 99, 99, 9, "mmseg"), [0])
    seen = model.encode_images(image[None])
    groups = group_of_pixels(seen)[0]
    table = with_background(model._table(seen, names)[0], 0.3)
    assert torch.equal(model.label(batch)[0], table.argmax(1)[groups])
    scores = model.segment_vocabulary(image[None], names)
    assert scores.shape == (1, 6, 40, 75)
    assert torch.equal(scores[0].permute(1, 2, 0), model._table(seen, names)[0][groups])
    assert len(groups.unique()) <= {0: 18, 1: 3, 2: 3}[stages]
    assert (scores.amax((2, 3)) > 0).sum() <= 5, "the best five of the whole picture"


@torch.no_grad()
def test_groups_of_a_picture_are_those_that_its_labels_come_from() -> None:
    image = torch.randint(0, 256, (3, 48, 96), dtype=torch.uint8)
    model = method().eval()
    found = model.groups_of(image)
    assert {name: tuple(each.shape) for name, each in found.items()} == {"grouping 1": (4, 8), "grouping 2": (4, 8)}
    shares = model.encode_images(image[None]).groups
    assert shares is not None
    assert torch.equal(found["grouping 2"], shares[0].argmax(0))
    assert method(grouping_stages=0).eval().groups_of(image) == {}


def test_thresholds_of_background_are_those_of_the_benchmark() -> None:
    for name, level in (("voc21", 0.95), ("context60", 0.35), ("coco_object", 0.95)):
        for name_set in ("mmseg", "groupvit"):
            assert background_threshold(class_names(benchmark(name).names, name_set)) == level
    assert background_threshold(("dog", "cat")) == 0.95
    table = torch.tensor([[0.2, 0.1], [0.05, 0.3]])
    assert with_background(table, 0.95)[:, 0].tolist() == [1.0, 0.0], "one group is always a name"
    assert with_background(table, 0.15)[:, 0].tolist() == [0.0, 0.0]
