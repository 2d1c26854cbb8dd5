"""DeepLabV2: groups, frozen norms, labels by name, several scales, official names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rislab.data.batch import LabelMaps
from rislab.data.scale_set import ScaleSetCrop
from rislab.data.synthetic import NAMES, batch_of
from rislab.data.transforms import Sample
from rislab.encoders.resnet import ResNetSpec
from rislab.errors import ConfigError, DataError
from rislab.losses.balanced import balanced_cross_entropy
from rislab.methods.deeplab.official import load_official, to_official
from rislab.methods.deeplab.task import DeepLabTask


def tiny() -> DeepLabTask:
    """The method small and with random weights, for the contract suite."""
    return method(batch_norm="batch", base_lr=0.05, weight_decay=0.0)


def method(**switches: Any) -> DeepLabTask:
    options: dict[str, Any] = {"classes": NAMES, "image_size": 48, "rates": (1, 2), "form": "torchvision"}
    return DeepLabTask(ResNetSpec("rislab-tiny-resnet"), **(options | switches))


def label_maps(task: DeepLabTask) -> LabelMaps:
    batch = batch_of(LabelMaps, task.geometry, images=3)
    assert isinstance(batch, LabelMaps)
    return batch


def test_a_term_for_each_scale_and_for_the_largest() -> None:
    assert method().losses(label_maps(method())).keys() == {
        "cross_entropy_100", "cross_entropy_50", "cross_entropy_75", "cross_entropy_max"
    }  # fmt: skip
    alone = method(scales=()).losses(label_maps(method()))
    assert alone.keys() == {"cross_entropy_100"}
    task = method().eval()
    pixels = torch.randn(1, 3, 48, 64)
    full, half, most, largest = task.model.pyramid(pixels)
    assert [tuple(each.shape[-2:]) for each in (full, half, most)] == [(7, 9), (4, 5), (5, 7)]
    assert task.model.trunk(torch.randn(1, 3, 321, 17)).shape[-2] == 41, "as Caffe's pooling has it"
    assert (largest >= full).all()
    assert torch.equal(task.model(pixels), largest)


def test_groups_of_the_official_optimiser() -> None:
    task = method()
    trunk, weights, biases = task.configure_optimizers()["optimizer"].param_groups  # type: ignore[index]
    assert (trunk["lr"], weights["lr"], biases["lr"]) == pytest.approx((2.5e-4, 2.5e-3, 5e-3))
    assert (trunk["weight_decay"], weights["weight_decay"], biases["weight_decay"]) == (5e-4, 5e-4, 0.0)
    slower = method(base_lr=0.02, head_lr_multi=0.1).configure_optimizers()["optimizer"].param_groups  # type: ignore[index]
    assert [group["lr"] for group in slower] == pytest.approx([0.02, 0.002, 0.004])
    with pytest.raises(ConfigError, match=r"model\.head_lr_multi is 0\.0, expected a number above 0"):
        method(head_lr_multi=0.0)
    assert all(p.ndim == 4 for p in trunk["params"]), "no norm is trained"
    before = {key: value.clone() for key, value in task.state_dict().items() if "running" in key}
    task.train().losses(label_maps(task))
    assert all(torch.equal(task.state_dict()[key], value) for key, value in before.items())


def test_labels_are_found_by_name() -> None:
    torch.manual_seed(0)
    task = method().eval()
    batch = label_maps(task)
    order = [2, 0, 1, 3]
    table = torch.tensor([0, *(order.index(i) + 1 for i in range(4)), *[255] * 251], dtype=torch.uint8)
    same = LabelMaps(**(vars(batch) | {"names": tuple(NAMES[i] for i in order), "labels": table[batch.labels.long()]}))
    for (name, a), b in zip(task.losses(batch).items(), task.losses(same).values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ConfigError, match=r"model\.background is true, and the data has no background"):
        task.losses(LabelMaps(**(vars(batch) | {"has_background": False})))
    with pytest.raises(ConfigError, match="'unicorn' is none of the 4 class names"):
        task.losses(LabelMaps(**(vars(batch) | {"names": ("unicorn", *NAMES[1:])})))


def test_label_maps_are_those_of_the_logits() -> None:
    task = method().eval()
    images = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        logits = task.model(task._pixels(images))
        scores = task.with_background(task.segment_vocabulary(images, NAMES))
    assert torch.equal(scores.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("labels", [[[0, 1]], [[0, 0]], [[2, 1]], [[255, 255]], [[0, 255]]], ids=str)
def test_background_and_classes_weigh_the_same_where_both_are_there(labels: list[list[int]]) -> None:
    target = torch.tensor([labels])
    logits = torch.randn(1, 3, 1, 2)
    each = -logits.log_softmax(1)[0, :, 0]
    kinds = [
        [each[label, at] for at, label in enumerate(labels[0]) if (label == 0) is kind and label != 255]
        for kind in (True, False)
    ]
    means = [torch.stack(kind).mean() for kind in kinds if kind]
    wanted = torch.stack(means).mean() if means else torch.tensor(0.0)
    torch.testing.assert_close(balanced_cross_entropy(logits, target), wanted)


def test_a_crop_is_a_function_of_its_key() -> None:
    crop = ScaleSetCrop((32, 32), (0.5, 1.0, 2.0), (9, 9, 9))
    picture = torch.arange(40 * 30 * 3).remainder(251).to(torch.uint8).view(40, 30, 3).numpy()
    sample = Sample(picture, picture[None, ..., 0] % 3)
    found = [crop(sample, (0, epoch, 5)) for epoch in range(12)]
    again = [crop(sample, (0, epoch, 5)) for epoch in range(12)]
    for one, other in zip(found, again, strict=True):
        assert (one.picture == other.picture).all()
        assert one.picture.shape == (32, 32, 3)
        assert set(one.masks.flat) <= {0, 1, 2, 255}
        assert ((one.picture == 9).all(-1) >= (one.masks[0] == 255)).all(), "padding has the mean colour and no label"
    padded = {int((one.masks == 255).sum()) for one in found}
    assert padded == {32 * 32 - 20 * 15, 32 * 2, 0}, "all three scales occur"


def test_release_files_load_strictly(tmp_path: Path) -> None:
    task, other = method(), method()
    official = to_official(task.state_dict())
    assert {
        "base.layer1.conv1.conv.weight", "base.layer2.block1.reduce.bn.running_mean", "base.aspp.c1.bias",
        "base.layer5.block1.shortcut.conv.weight", "base.layer3.block1.increase.conv.weight",
    } <= official.keys()  # fmt: skip
    for wrapper in ("module.", ""):
        torch.save({f"{wrapper}{key}": value for key, value in official.items()}, tmp_path / "release.pth")
        other.load_state_dict(load_official(tmp_path / "release.pth"), strict=True)
        assert all(torch.equal(other.state_dict()[key], value) for key, value in task.state_dict().items())


def test_begins_with_a_release_of_the_trunk_or_of_all(tmp_path: Path) -> None:
    task = method()
    official = {key.removeprefix("base."): value for key, value in to_official(task.state_dict()).items()}
    trunk = {key: value for key, value in official.items() if not key.startswith("aspp.")} | {"fc.bias": torch.zeros(2)}
    for state, same in ((trunk, False), (official, True)):
        torch.save(state, tmp_path / "release.pth")
        begun = method(pretrained=str(tmp_path / "release.pth"))
        assert torch.equal(begun.model.trunk.layer4[0].conv2.weight, task.model.trunk.layer4[0].conv2.weight)
        assert torch.equal(begun.model.aspp.convs[0].weight, task.model.aspp.convs[0].weight) is same
    torch.save({key: value for key, value in trunk.items() if "layer5" not in key}, tmp_path / "release.pth")
    with pytest.raises(DataError, match=r"release\.pth: its weights are not this model's"):
        method(pretrained=str(tmp_path / "release.pth"))


def test_caffe_s_form_has_its_colours_and_strides() -> None:
    task = method(form="caffe")
    block = task.model.trunk.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 255
    assert task._pixels(red)[0, :, 0, 0].tolist() == pytest.approx([-104.008, -116.669, 255 - 122.675], abs=1e-3)
