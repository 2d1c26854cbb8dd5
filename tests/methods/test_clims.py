"""CLIMS: what each switch takes away, labels that are missing, both versions, the classifier before it, official files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from rislab.ablation import plan, table
from rislab.data.batch import ImageLabels, Viewing
from rislab.data.image_labels import WeakPictures
from rislab.data.synthetic import NAMES, batch_of
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.encoders.resnet import ResNetSpec
from rislab.errors import ConfigError, DataError
from rislab.methods.clims.inference import ActivationMaps
from rislab.methods.clims.official import load_official, to_official
from rislab.methods.clims.pseudo_masks import PseudoMasks
from rislab.methods.clims.refinement import by_colour, colour_boundary
from rislab.methods.clims.task import CLIMSTask
from rislab.nn.dense_crf import Kernels
from tests.forks import on_ranks
from tests.worlds import ROOT


def tiny() -> CLIMSTask:
    """The method small and with random weights, for the contract suite. A random judge says little: REG does the work."""
    return method(alpha=0.1, beta=0.1, gamma=0.1, delta=20.0, base_lr=0.1)


def method(**switches: Any) -> CLIMSTask:
    options = {"classes": NAMES, "image_size": 48, "renames": (), "background_prompts": ("sea", "grass")}
    return CLIMSTask(CLIPSpec("rislab-tiny-ViT"), ResNetSpec("rislab-tiny-resnet"), **(options | switches))


def labels(task: CLIMSTask, images: int = 3, **changes: Any) -> ImageLabels:
    batch = batch_of(ImageLabels, task.geometry, images=images)
    assert isinstance(batch, ImageLabels)
    return ImageLabels(**(vars(batch) | changes))


@pytest.mark.parametrize("term", ["otm", "btm", "cbs", "reg"])
@pytest.mark.parametrize("how", ["off", "no weight"])
def test_a_term_that_is_off_is_absent_and_costs_no_pass_of_clip(term: str, how: str) -> None:
    weight = dict(zip(("otm", "btm", "cbs", "reg"), ("alpha", "beta", "gamma", "delta"), strict=True))[term]
    task = method(**({term: False} if how == "off" else {weight: 0.0}))
    assert task.matching is not None
    sizes = []
    task.matching.judge.visual.register_forward_hook(lambda _m, seen, _o: sizes.append(len(seen[0])))
    batch = labels(task)
    assert task.losses(batch).keys() == {"otm", "btm", "cbs", "reg"} - {term}
    assert sizes == [int(batch.present.sum()) * (1 if term == "btm" else 2)]


def test_the_maps_alone_need_no_clip_and_nothing_at_all_is_refused() -> None:
    task = method(otm=False, btm=False, cbs=False)
    assert task.matching is not None
    task.matching.judge.visual.register_forward_hook(lambda *_: pytest.fail("CLIP was run"))
    assert task.losses(labels(task)).keys() == {"reg"}
    with pytest.raises(ConfigError, match="all off"):
        method(otm=False, btm=False, cbs=False, reg=False)


@pytest.mark.parametrize("variant", ["repo", "paper"])
@pytest.mark.parametrize("reg", [True, False])
def test_pictures_without_labels_train(variant: str, reg: bool) -> None:
    """None in the whole batch, one instance in it, and one picture without."""
    task = method(variant=variant, clamp=True, reg=reg, background_prompts=None).train()
    for shown in ([], [(1, 2)], [(0, 0), (0, 3), (2, 1)]):
        present = torch.zeros(3, len(NAMES), dtype=torch.bool)
        for row, column in shown:
            present[row, column] = True
        total = torch.stack(list(task.losses(labels(task, present=present)).values())).sum()
        assert torch.isfinite(total)
        gradients = torch.autograd.grad(total, [p for p in task.parameters() if p.requires_grad], allow_unused=True)
        assert all(gradient is not None for gradient in gradients), "processes would wait for one another"
    classifier = method(stage="classifier")
    none = torch.zeros(3, len(NAMES), dtype=torch.bool)
    assert torch.isfinite(classifier.losses(labels(classifier, present=none))["soft_margin"])


def test_nothing_of_the_judge_is_trained_kept_or_needed() -> None:
    task = method().train()
    torch.stack(list(task.losses(labels(task)).values())).sum().backward()
    assert task.matching is not None
    judge = task.matching.judge
    assert not judge.visual.training
    assert all(p.grad is None and not p.requires_grad for p in judge.parameters())
    assert all(key.startswith("model.") for key in task.state_dict())
    assert not any(isinstance(module, type(judge)) for module in task.modules())
    task.double()
    assert next(judge.parameters()).dtype == torch.float64, "it goes where the method goes"


def test_labels_are_found_by_name() -> None:
    task = method()
    whole = labels(task)
    order = [2, 0, 3]
    some = labels(task, present=whole.present[:, order], names=tuple(NAMES[i] for i in order))
    own = whole.present.clone()
    own[:, 1] = False
    same = labels(task, present=own)
    for (name, a), b in zip(task.losses(some).items(), task.losses(same).values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ConfigError, match=r"'cats' is none of the 4 class names that this method answers.*'cat'"):
        task.losses(labels(task, names=("cats", *NAMES[1:])))


def test_statistics_of_norms_by_stage() -> None:
    for stage, moves in (("classifier", False), ("clims", True)):
        task = method(stage=stage).train()
        before = task.model.trunk.bn1.running_mean.clone()
        task.losses(labels(task))
        assert (not torch.equal(before, task.model.trunk.bn1.running_mean)) is moves, stage


def test_groups_and_rates_of_both_versions() -> None:
    for variant, multiple, norms, stem in (("repo", 10, True, False), ("paper", 1, False, True)):
        task = method(variant=variant, background_prompts=None, base_lr=0.01)
        trunk, head = task.configure_optimizers()["optimizer"].param_groups  # type: ignore[index]
        assert (trunk["lr"], head["lr"], trunk["momentum"]) == (0.01, 0.01 * multiple, 0.0)
        assert task.model.trunk.layer1[0].bn1.weight.requires_grad is norms
        assert task.model.trunk.conv1.weight.requires_grad is stem
        assert {id(p) for p in head["params"]} == {id(p) for p in task.model.head.parameters() if p.requires_grad}


def test_the_papers_version_suppresses_a_class_by_its_own_backgrounds() -> None:
    task = method(variant="paper", classes=("boat", "cat", "chair"), background_prompts=None)
    assert task.matching is not None
    own = task.matching.own
    assert own is not None
    assert own.sum(1).tolist() == [5, 0, 0]
    assert task.matching.weights.tolist() == [1, 1, 3]
    assert task.model.head.classifier.out_channels == 4, "one for a background that nothing reads"


@pytest.mark.parametrize("head", ["linear", "bottleneck"])
def test_starts_from_the_classifier(head: str) -> None:
    classifier, task = method(stage="classifier"), method(head=head)
    checkpoint = {"state_dict": classifier.state_dict()}
    classifier.on_save_checkpoint(checkpoint)
    task.start_from(checkpoint)
    pixels = torch.randn(2, 3, 48, 48)
    classifier.eval(), task.eval()
    assert torch.equal(classifier.model.trunk(pixels), task.model.trunk(pixels))
    assert torch.equal(classifier.model(pixels), task.model(pixels)) is (head == "linear")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "vok"}, "no class names 'vok'.*did you mean 'voc'"),
        ({"classes": ("cat", "cat")}, "each once"),
        ({"renames": ("cat player",)}, "model.renames: 'cat player', expected `CLASS: TEXT`"),
        ({"renames": ("cot: player",)}, "model.renames: 'cot' is no class.*'cat'"),
        ({"class_weights": ("cat: much",)}, "model.class_weights: cat: much, expected one number"),
        ({"scales": ()}, "model.scales"),
        ({"long_side": (640, 320)}, "the smaller one first"),
        ({"trunk": ResNetSpec("resnet51")}, "did you mean 'resnet50'"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    trunk = options.pop("trunk", ResNetSpec("rislab-tiny-resnet"))
    with pytest.raises(ConfigError, match=message):
        CLIMSTask(CLIPSpec("rislab-tiny-ViT"), trunk, **({"classes": NAMES, "renames": ()} | options))


def test_maps_of_the_named_classes_alone_at_the_size_of_the_picture() -> None:
    task = method(scales=(1.0, 0.5)).eval()
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    with torch.no_grad():
        both = task.activation_maps(image, ["tree", "cat"])
        one = task.activation_maps(image, ["cat"])
        none = task.activation_maps(image, [])
    assert both.full.shape == (2, 50, 70)
    assert both.small.shape == (2, 13, 18)
    torch.testing.assert_close(both.full[1:], one.full)
    assert (none.full.shape, none.small.shape) == ((0, 50, 70), (0, 13, 18))
    assert both.full.amax((1, 2)).le(1).all()


def two_colours(size: int = 48) -> torch.Tensor:
    """uint8 [3, size, size]: dark on the left, light on the right."""
    image = torch.full((3, size, size), 60, dtype=torch.uint8)
    image[:, :, size // 2 :] = 200
    return image


def test_a_crf_moves_a_label_to_the_edge_of_its_colour() -> None:
    mask = torch.zeros(48, 48, dtype=torch.uint8)
    mask[:, 28:] = 1
    found = by_colour(mask, two_colours(), 2, Kernels(3.0, 3.0, 50.0, 5.0, 10.0), 10)
    wanted = (two_colours()[0] > 100).to(torch.uint8)
    assert (found == wanted).float().mean() > 0.98 > (mask == wanted).float().mean()


def test_a_boundary_lies_where_colours_change() -> None:
    boundary = colour_boundary(two_colours(), (12, 12), 30.0)
    assert boundary.shape == (12, 12)
    assert (boundary[:, 5] > 0.99).all()
    assert (boundary[:, [0, 4, 6, 11]] == 0).all()


def masks_of(small: torch.Tensor, full: torch.Tensor, monkeypatch: pytest.MonkeyPatch, **options: Any) -> PseudoMasks:
    """A maker of masks whose network is replaced by given maps."""
    maps = ActivationMaps(torch.arange(len(full)), small, full)
    monkeypatch.setattr("rislab.methods.clims.pseudo_masks.activation_maps", lambda *_: maps)
    return PseudoMasks(ResNetSpec("rislab-tiny-resnet"), classes=NAMES, **options)


@pytest.mark.parametrize("refine", ["none", "random_walk"])
@pytest.mark.parametrize("crf", [False, True])
def test_maps_that_have_collapsed_make_masks(refine: str, crf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All off: background everywhere. All on: the class everywhere that the walk reaches."""
    for value, wanted in ((0.0, 0), (1.0, 1)):
        small, full = torch.full((1, 12, 12), value), torch.full((1, 48, 48), value)
        maker = masks_of(small, full, monkeypatch, refine=refine, crf=crf, doublings=3)
        image = torch.full((3, 48, 48), 90, dtype=torch.uint8)
        assert (maker.mask(image, ["dog"]) == wanted).all()
    assert (maker.mask(image, []) == 0).all()


def test_the_walk_fills_a_colour_and_stays_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small = torch.zeros(1, 12, 12)
    small[:, 4:8, 8:10] = 1.0
    maker = masks_of(small, torch.zeros(1, 48, 48), monkeypatch, threshold=0.2, doublings=6)
    found = maker.mask(two_colours(), ["dog"])
    light = two_colours()[0] > 100
    assert found[light].float().mean() > 0.85
    assert found[:, :20].sum() == 0


def test_files_hold_labels_of_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch.zeros(2, 48, 48)
    full[0, :10], full[1, 30:] = 1.0, 1.0
    maker = masks_of(torch.zeros(2, 12, 12), full, monkeypatch, refine="none")
    batch = WeakPictures(
        [two_colours()],
        [np.zeros((48, 48), np.uint8)],
        NAMES,
        True,
        Viewing(0, 0, 0, 0, "mmseg"),
        [7],
        present=[(1, 3)],
    )
    ((name, content),) = maker.produce(batch).items()
    label = cv2.imdecode(np.frombuffer(content(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert name == "7.png"
    assert (label[:10] == 2).all()
    assert (label[30:] == 4).all()
    assert (label[10:30] == 0).all()


def test_masks_come_from_the_weights_of_the_stage_before() -> None:
    task, maker = method(), PseudoMasks(ResNetSpec("rislab-tiny-resnet"), classes=NAMES, scales=(1.0,))
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    maker.start_from(checkpoint)
    assert not maker.is_trained
    pixels = torch.randn(1, 3, 48, 48)
    assert torch.equal(maker.eval().model(pixels), task.eval().model(pixels))


def test_stages_of_the_table_are_shared() -> None:
    loaded = table.load(ROOT / "ablations" / "clims.yaml")
    for profile in loaded.profiles.values():
        cells = plan.plan(loaded, profile, [0], Path("nowhere"))
        trained = [cell for cell in plan.distinct(cells) if not cell.produces]
        assert (len(cells), len(plan.distinct(cells)), len(trained)) == (32, 25, 17)
        assert {cell.split for cell in cells if cell.stage in ("classifier", "cam", "pseudo")} == {"train"}
        assert {cell.metric for cell in cells if cell.stage == "pseudo"} == {"miou_class"}


@pytest.mark.parametrize("variant", ["repo", "paper"])
def test_release_files_load_strictly(variant: str, tmp_path: Path) -> None:
    task, other = (method(variant=variant, background_prompts=None) for _ in range(2))
    official = to_official(task.state_dict())
    copies = [key for key in official if key.endswith("layer1.0.conv1.weight") or key.endswith("1.4.0.conv1.weight")]
    assert len(copies) == (1 if variant == "paper" else 2)
    assert len(official) > (3 if variant == "repo" else 1) * len(task.model.trunk.state_dict())
    torch.save({f"module.{key}": value for key, value in official.items()}, tmp_path / "release.pth")
    other.load_state_dict(load_official(tmp_path / "release.pth"), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(task.state_dict().values(), other.state_dict().values(), strict=True))
    torch.save(official | {"strange": torch.zeros(1)}, tmp_path / "release.pth")
    if variant == "repo":
        with pytest.raises(DataError, match=r"release\.pth: 1 keys"):
            load_official(tmp_path / "release.pth")


PRESENT = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
"""Four pictures of two processes: three instances and one; then, of one process, none at all."""


def one_rank(rank: int, folder: Path, rows: list[list[int]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    terms, grads = of_rows(rows[rank])
    for gradient in grads:
        dist.all_reduce(gradient)
    for value in terms.values():
        dist.all_reduce(value)
    torch.save(({k: v / 2 for k, v in terms.items()}, [g / 2 for g in grads]), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def of_rows(rows: list[int]) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Terms and gradients of some of four pictures."""
    torch.manual_seed(0)
    task = method(batch_norm="frozen", clamp=False, cbs_threshold=-1.0)
    assert task.matching is not None
    judge = task.matching.judge
    for texts in (judge.classes, judge.background):  # cosines of random towers may be negative
        texts.abs_()
    visual = judge.visual
    judge.embed = lambda pictures: torch.nn.functional.normalize(visual(pictures).abs(), dim=-1)  # type: ignore[method-assign]
    batch = labels(task, images=4, present=PRESENT)
    part = ImageLabels(
        images=batch.images[rows],
        image_ids=rows,
        placements=[batch.placements[i] for i in rows],
        present=PRESENT[rows],
        names=batch.names,
    )
    terms = task.losses(part)
    total = torch.stack(list(terms.values())).sum()
    trained = [p for p in task.parameters() if p.requires_grad]
    return {name: value.detach() for name, value in terms.items()}, list(torch.autograd.grad(total, trained))


@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 2], [1, 3]]], ids=["three and one", "four and none"])
def test_two_processes_have_the_terms_and_gradients_of_one(rows: list[list[int]], tmp_path: Path) -> None:
    terms, grads = of_rows([*rows[0], *rows[1]])
    on_ranks(2, one_rank, tmp_path, rows)
    found, averaged = torch.load(tmp_path / "0.pt", weights_only=True)
    for name, value in terms.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
    for ours, one in zip(averaged, grads, strict=True):
        torch.testing.assert_close(ours, one, atol=1e-5, rtol=1e-3)
