"""Few-shot folds from their official files: which episodes, which masks, and what is wrong with files said in one line."""

import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rislab.data.batch import Episodes
from rislab.data.episodes import FSS1000, Coco20i, EpisodeFiles, Pascal5i, _picked, files_of, stretched
from rislab.data.geometry import Letterbox, Stretch
from rislab.data.required_episodes import episodes as required
from rislab.data.toy.folds import ToyFolds, blocks
from rislab.datamodules.episodes import EpisodesData
from rislab.errors import ConfigError, DataError
from tests.data.small import Recorder, trainer

SETS = ("pascal5i", "coco20i", "fss1000")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "world"
    ToyFolds(scenes=150, size=48).write(folder)
    return folder


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """For tests that damage it."""
    return Path(shutil.copytree(world, tmp_path / "copy"))


def files(root: Path, name: str) -> EpisodeFiles:
    return files_of(name, root, names=None if name == "fss1000" else ToyFolds().names(name))


def ready(root: Path, name: str = "pascal5i", geometry: Any = None, **options: Any) -> EpisodesData:
    module = EpisodesData(str(root), name, size=40, generate=ToyFolds(scenes=150, size=48), **options)  # type: ignore[arg-type]
    module.trainer = trainer()
    method = Recorder(32)
    method.geometry = geometry or Stretch(32)
    module.trainer.strategy.connect(method)
    return module


def test_official_folds_are_blocks_in_voc_and_interleaved_in_coco(tmp_path: Path) -> None:
    voc, coco = Pascal5i(tmp_path), Coco20i(tmp_path)
    assert [voc.names[n] for n in voc.classes(0, "val")] == ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    assert [voc.names[n] for n in voc.classes(3, "val")] == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    assert coco.classes(1, "val") == tuple(range(1, 80, 4))
    assert [coco.names[n] for n in (0, 3, 9, 57, 62)] == ["person", "motorbike", "trafficlight", "sofa", "tvmonitor"]


def test_pascal_repeats_its_list_in_file_order_and_trains_on_the_other_folds(world: Path) -> None:
    found = files(world, "pascal5i")
    listed = (world / "splits/pascal/val/fold2.txt").read_text().split()
    episodes = found.episodes(2, "val", 2 * len(listed) + 1)
    said = [f"{Path(pair.picture).stem}__{pair.class_id + 1:02d}" for pair in episodes]
    assert said == listed * 2 + listed[:1]
    assert {pair.class_id for pair in episodes} <= {8, 9, 10, 11}
    trained = {pair.class_id for pair in found.training(2)}
    assert trained == set(range(16)) - {8, 9, 10, 11}


def test_coco_draws_are_numpys_legacy_ones(world: Path) -> None:
    """As the official code draws: from lists, with the global generator, `replace=False` included."""
    found = files(world, "coco20i")
    with (world / "splits/coco/val/fold1.pkl").open("rb") as file:
        held = pickle.load(file)
    classes = [1, 5, 9, 13]
    np.random.seed(0)
    official = []
    for _ in range(50):
        number = np.random.choice(classes, 1, replace=False)[0]
        official.append((np.random.choice(held[number], 1, replace=False)[0], number))
    assert [(pair.picture, pair.class_id) for pair in found.episodes(1, "val", 50)] == official
    pairs = found.training(1)
    assert {pair.class_id for pair in pairs} == set(range(16)) - set(classes)
    order = found.order(pairs, np.random.default_rng(0))
    assert len(order) == len({pair.picture for pair in pairs})
    many = np.concatenate([found.order(pairs, np.random.default_rng(seed)) for seed in range(300)])
    share = Counter(pairs[at].class_id for at in many)
    assert len(share) == 12
    assert all(0.06 < count / len(many) < 0.11 for count in share.values())  # uniform over classes, not over pairs


def test_fss_is_every_picture_of_sorted_classes(world: Path) -> None:
    found = files(world, "fss1000")
    assert isinstance(found, FSS1000)
    tested = found.episodes(0, "test", 1)
    assert len(tested) == 4 * 10
    assert [Path(pair.picture).name for pair in tested[:3]] == ["1.jpg", "10.jpg", "2.jpg"]
    names = sorted((world / "splits/fss/test.txt").read_text().split())
    assert [found.names[n] for n in found.classes(0, "test")] == names
    assert found.classes(0, "test") == (12, 13, 14, 15)
    assert found.classes(0, "val") == (10, 11)
    assert found.names[tested[10].class_id] == Path(tested[10].picture).parent.name


@pytest.mark.parametrize("name", SETS)
def test_a_mask_is_its_class_against_the_rest(world: Path, name: str) -> None:
    """The class's words name the colour under the mask."""
    from rislab.data.toy.scene import PAINTS

    found = files(world, name)
    pairs = {pair.class_id: pair for pair in found.episodes(0, found.test, 60)}
    assert len(pairs) == 4
    seen = set()
    for number, pair in pairs.items():
        image, mask = found.sample(pair)
        seen |= set(np.unique(mask).tolist())
        inside = cv2.erode((mask == 1).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        colour = image[inside].mean(0)  # stripes are darker: the hue counts
        words = found.names[number].replace("_", " ").split()
        hues = {paint: np.array(rgb) / sum(rgb) for paint, rgb in PAINTS.items()}
        best = min(hues, key=lambda paint: float(np.abs(hues[paint] - colour / colour.sum()).sum()))
        assert best == words[1], (found.names[number], colour)
    assert seen == ({0, 1, 255} if name == "pascal5i" else {0, 1})


def test_every_word_of_a_toy_fold_is_trained_on_in_other_kinds() -> None:
    from rislab.data.toy.kinds import KINDS

    folds = blocks()
    assert sorted(kind for fold in folds for kind in fold) == list(range(len(KINDS)))
    for held in folds:
        rest = [KINDS[kind] for fold in folds if fold is not held for kind in fold]
        assert {KINDS[kind][1] for kind in held} <= {colour for _, colour in rest}


def test_batches_hold_masks_at_the_frame_in_training_and_at_the_square_in_evaluation(world: Path) -> None:
    module = ready(world, batch_size=3, eval_batch=5, episodes=12)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, Episodes)
    assert (batch.images.shape, batch.masks.shape) == ((3, 3, 32, 32), (3, 32, 32))
    assert not set(batch.class_index.tolist()) & {0, 1, 2, 3}
    (loader,) = module.test_dataloader()
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert batches[0].masks.shape == (5, 40, 40)
    assert [number for batch in batches for number in batch.numbers] == list(range(12))
    image_id = batches[1].image_ids[0]
    suffix, data = module.picture(image_id)
    assert suffix == ".jpg"
    pair = module.files.episodes(0, "val", 12)[5]
    assert data == (world / "VOC2012" / pair.picture).read_bytes()
    assert len(list(module.val_dataloader())) == 3
    control = ready(world, eval_batch=5, episodes=12, permuted_names=True)
    (permuted,) = control.test_dataloader()
    assert next(iter(control.val_dataloader())).names == batches[0].names, "the same network is chosen"
    other = next(iter(permuted))
    assert torch.equal(other.masks, batches[0].masks)
    assert other.names == (*batches[0].names[1:4], batches[0].names[0], *batches[0].names[4:])


@pytest.mark.parametrize("name", ["pascal5i", "coco20i"])
def test_a_checkpoint_can_be_chosen_on_classes_that_are_not_tested(world: Path, name: str) -> None:
    module = ready(world, name, val_split="other_folds", fold=1, episodes=60, limit_val_episodes=30)
    module.setup("fit")
    held, train = set(module.files.classes(1, "val")), module.files.training(1)
    seen = [number for batch in module.val_dataloader() for number in batch.class_index.tolist()]
    assert len(seen) == 30
    assert {number % 4 if name == "coco20i" else number // 4 for number in seen} == {0, 2, 3}
    assert not held & set(seen)
    drawn = module.files.drawn(1, module.val_split, 60)
    assert not {pair.picture for pair in drawn} & {pair.picture for pair in train}
    assert module.validation.classes == module.files.classes(1, "other_folds") == tuple(sorted({*range(16)} - held))
    assert set(module.evaluation.classes) == held
    counts = {name: np.ones(len(seen), np.int64) for name in module.validation.arithmetic.columns}
    assert 0 < module.validation.arithmetic.scores(counts | {"class": np.array(seen)})["miou_fold"] <= 100


@pytest.mark.parametrize("name", ["pascal5i", "coco20i"])
def test_training_can_leave_out_pictures_of_tested_classes(world: Path, name: str) -> None:
    module = ready(world, name, fold=2, without_tested=True, batch_size=3)
    held = set(module.files.classes(2, "val"))
    kept, everything = module._training(), module.files.training(2)

    def holds_tested(picture: str) -> bool:
        values = np.array(Image.open(module.files.root / module.files.label_path(picture)))
        return bool(held & {value - 1 for value in np.unique(values).tolist()})

    assert {pair.picture for pair in kept} == {p.picture for p in everything if not holds_tested(p.picture)}
    assert 0 < len(kept) < len(everything)
    module.setup("fit")
    assert len(module.train_dataloader()) == (
        len(kept) // 3 if name == "pascal5i" else len({pair.picture for pair in kept}) // 3
    )


def test_fss_is_validated_on_its_own_classes(world: Path) -> None:
    module = ready(world, "fss1000")
    seen = {number for batch in module.val_dataloader() for number in batch.class_index.tolist()}
    assert seen == set(module.validation.classes)
    assert not seen & set(module.evaluation.classes)


def test_a_letterboxed_method_is_scored_at_the_same_square(world: Path) -> None:
    module = ready(world, geometry=Letterbox(32), eval_batch=2, episodes=2)
    (loader,) = module.test_dataloader()
    batch = next(iter(loader))
    assert batch.masks.shape == (2, 40, 40)
    logits = torch.full((2, 8, 8), 5.0)
    answers = module.evaluation.answers(type("Method", (), {"mask_threshold": 0.5})(), batch, {"logits": logits})
    assert [answer.shape for answer in answers] == [(40, 40)] * 2
    assert all(answer[4:-4, 4:-4].all() for answer in answers)


@pytest.mark.parametrize("name", SETS)
def test_epochs_are_drawn_from_the_seed_and_shared_out(world: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ids(rank: int = 0, world_size: int = 1, **options: Any) -> list[list[int]]:
        monkeypatch.setattr(EpisodesData, "rank_and_world_size", property(lambda _: (rank, world_size)))
        module = ready(world, name, batch_size=2, **options)
        loader = module.train_dataloader()
        return [batch.numbers for batch in (*loader, *loader)]

    alone = ids()
    assert alone == ids()
    assert alone != ids(seed=1)
    half = len(alone) // 2
    assert alone[:half] != alone[half:]
    shards = [ids(rank, 2) for rank in range(2)]
    assert len(shards[0]) == len(shards[1])
    together = [number for pair in zip(*shards, strict=True) for batch in pair for number in batch]
    assert Counter(together[: 4 * (half // 2)]) == Counter(n for batch in alone[: 2 * (half // 2)] for n in batch)


def test_masks_are_stretched_as_torch_does() -> None:
    """Single precision decides some places: of 29 pixels stretched to 480, and of most sides of photos."""
    for height, width, size in ((37, 53, (48, 30)), (29, 500, (480, 480)), (375, 1, (480, 7)), (96, 41, (48, 41))):
        mask = np.random.default_rng(height).integers(0, 255, (height, width), np.uint8)
        by_torch = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")
        assert np.array_equal(stretched(mask, size), by_torch[0, 0].byte().numpy())
    for old in range(1, 700):
        places = torch.arange(old, dtype=torch.float32)[None, None]
        picked = torch.nn.functional.interpolate(places, 480, mode="nearest")[0, 0].long()
        assert np.array_equal(_picked(old, 480), picked.numpy()), old


def write_png(path: Path, values: np.ndarray[Any, Any]) -> None:
    Image.fromarray(values).save(path)


def test_what_is_wrong_with_files_is_said(copy: Path) -> None:
    pascal, coco, fss = (files(copy, name) for name in SETS)
    lists = copy / "splits/pascal/val/fold0.txt"
    pair = pascal.episodes(0, "val", 1)[0]
    label = copy / "VOC2012" / pascal.label_path(pair.picture)
    write_png(label, np.full((48, 48), 17, np.uint8))
    with pytest.raises(DataError, match=r"\.png: value 17 is no label of PASCAL-5i \(16 classes\)"):
        pascal.sample(pair)
    write_png(label, np.zeros((48, 40), np.uint8))
    with pytest.raises(DataError, match=r"40x48 pixels, its picture .*jpg has 48x48"):
        pascal.sample(pair)
    label.unlink()
    with pytest.raises(DataError, match=r"PASCAL-5i: 1 files are missing, the first is .*\.png"):
        pascal.check([pair, pair])
    for text, message in (
        ("", r"fold0\.txt: holds no pair"),
        ("2026_000002", r"fold0\.txt:1: '2026_000002', expected IMAGE__CLASS"),
        ("2026_000002__01\n../x__01", r"fold0\.txt:2: '\.\./x__01', expected IMAGE__CLASS"),
        ("2026_000002__07", r"fold0\.txt:1: class '07', fold 0 has 1 to 4"),
        ("2026_000002__zz", r"fold0\.txt:1: class 'zz', fold 0 has 1 to 4"),
    ):
        lists.write_text(text)
        with pytest.raises(DataError, match=message):
            pascal.episodes(0, "val", 5)
    path = copy / "splits/coco/val/fold0.pkl"
    good = pickle.loads(path.read_bytes())
    for content, message in (
        (good | {4: []}, r"fold0\.pkl: class 4, '.*': no picture, so no episode of it can be drawn"),
        (good | {4: ["../../etc/passwd.jpg"]}, r"fold0\.pkl: class 4, .* is no name of a picture"),
        ([1], r"fold0\.pkl: expected a dict from class numbers"),
        ({"a": 1}, r"fold0\.pkl: expected a dict from class numbers"),
        (Path("x"), r"fold0\.pkl: asks for pathlib"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=message):
            coco.episodes(0, "val", 5)
    values = copy / "COCO2014" / coco.label_path(coco.training(0)[0].picture)
    write_png(values, np.full((48, 48), 255, np.uint8))
    with pytest.raises(DataError, match="value 255 is no label of COCO-20i"):
        coco.sample(coco.training(0)[0])
    (copy / "splits/fss/val.txt").write_text("a/b\n")
    with pytest.raises(DataError, match=r"val\.txt: the name 'a/b' has a folder in it"):
        fss.episodes(0, "val", 0)


def test_grey_fss_masks_are_cut_at_128(copy: Path) -> None:
    found = files(copy, "fss1000")
    pair = found.episodes(0, "test", 0)[0]
    values = np.full((48, 48), 127, np.uint8)
    values[:10] = 128
    for stored in (values, np.stack([values] * 3, axis=-1)):
        write_png(copy / "FSS-1000" / found.label_path(pair.picture), stored)
        assert np.array_equal(found.sample(pair)[1], (values >= 128).astype(np.uint8))
        assert np.array_equal(found.sample(pair)[1], np.array(Image.fromarray(stored).convert("L")) >= 128)


def test_impossible_options_and_absent_classes_are_named(world: Path, copy: Path) -> None:
    with pytest.raises(ConfigError, match="fold is 2: FSS-1000 has no folds"):
        EpisodesData(str(world), "fss1000", fold=2)
    with pytest.raises(ConfigError, match="val_split is other_folds: FSS-1000 has no folds"):
        EpisodesData(str(world), "fss1000", val_split="other_folds")
    with pytest.raises(ConfigError, match="without_tested: FSS-1000 has no folds"):
        EpisodesData(str(world), "fss1000", without_tested=True)
    with pytest.raises(ConfigError, match=r"no set of episodes 'pascal'.*did you mean 'pascal5i'"):
        EpisodesData(str(world), "pascal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        EpisodesData(str(world), batch_size=0)
    lists = copy / "splits/pascal/val/fold0.txt"
    lists.write_text("".join(line for line in lists.read_text().splitlines(True) if not line.strip().endswith("__02")))
    with pytest.warns(UserWarning, match=r"no episode of .*; such a class counts 0"):
        ready(copy, episodes=30).setup("test")
    with pytest.raises(DataError, match="do not fill one batch of 1000"):
        ready(world, batch_size=1000).train_dataloader()


def test_a_plan_names_what_is_not_there(tmp_path: Path, world: Path) -> None:
    options = {"root": str(tmp_path), "name": "coco20i", "fold": 3, "split_files": None, "generate": None}
    missing = [each.path.removeprefix(f"{tmp_path}/") for each in required(options)]
    assert missing == [
        *("COCO2014/train2014", "COCO2014/val2014", "COCO2014/annotations"),
        *("splits/coco/trn/fold3.pkl", "splits/coco/val/fold3.pkl"),
    ]
    options |= {"name": "pascal5i", "fold": 1}
    lists = [f"splits/pascal/trn/fold{fold}.txt" for fold in (0, 2, 3)] + ["splits/pascal/val/fold1.txt"]
    read = [each.path.removeprefix(f"{tmp_path}/") for each in required(options)]
    assert read[2:] == lists
    others = [each.path.removeprefix(f"{tmp_path}/") for each in required(options | {"val_split": "other_folds"})]
    assert others[2:] == lists + [f"splits/pascal/val/fold{fold}.txt" for fold in (0, 2, 3)]
    for name in SETS:
        assert not list(required(options | {"root": str(world), "name": name}))


def test_a_world_is_written_once_and_replaces_nothing(tmp_path: Path) -> None:
    recipe = ToyFolds(scenes=90, size=48)
    recipe.write(tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    recipe.write(tmp_path / "a")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    recipe.write(tmp_path / "b")
    for path in sorted(p for p in before if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    with pytest.raises(DataError, match="choose another folder"):
        ToyFolds(scenes=91, size=48).write(tmp_path / "a")
