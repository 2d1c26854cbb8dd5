"""The toy world: official files, same bytes for the same seed, and sentences that are true of one thing only."""

import errno
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from rislab.cli.main import parser
from rislab.data import masks
from rislab.data.benchmark_trees import class_names
from rislab.data.prompted_nouns import candidates
from rislab.data.refer import Refer
from rislab.data.toy import captions, kinds
from rislab.data.toy import world as toy_world
from rislab.data.toy.language import KINDS, sentences
from rislab.data.toy.scene import COLOURS, GROUNDS, PATTERNS, SHAPES, SIZES, Thing, scene
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.data.toy.world import SETS, ToyWorld
from rislab.data.toy.writers import SHARES, GRefCOCO, RefZOM, Writer
from rislab.errors import DataError

SIZE = 96


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "toy"
    ToyWorld(60, SIZE, 3).write(root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes(world: Path, tmp_path: Path) -> None:
    ToyWorld(60, SIZE, 3).write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(world)
    ToyWorld(60, SIZE, 4).write(tmp_path / "other")
    assert contents(tmp_path / "other") != contents(world)


def test_a_folder_that_holds_something_else_is_left_alone(world: Path, tmp_path: Path) -> None:
    before = contents(world)
    with pytest.raises(DataError, match="holds the toy world"):
        ToyWorld(61, SIZE, 3).write(world)
    assert contents(world) == before
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="no toy world"):
        ToyWorld(60, SIZE, 3).write(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"x"}
    with pytest.raises(DataError, match="is a file"):
        ToyWorld(60, SIZE, 3).write(tmp_path / "mine.txt")


def test_a_world_of_an_earlier_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, root = ToyWorld(20, 48, 3), tmp_path / "toy"
    recipe.write(root)
    first = contents(root)
    monkeypatch.setattr(toy_world, "VERSION", toy_world.VERSION + 1)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds the toy world"):
        recipe.write(root)  # a user keeps something there
    (root / "notes.txt").unlink()
    with pytest.raises(DataError, match="holds the toy world"):
        ToyWorld(21, 48, 3).write(root)
    recipe.write(root)
    assert {name for name, data in contents(root).items() if first[name] != data} == {"world.json"}
    monkeypatch.setattr(toy_world, "VERSION", toy_world.VERSION - 1)
    with pytest.raises(DataError, match="holds the toy world"):
        recipe.write(root)  # never back


def test_a_world_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe, message in (
        ((19, 96, 0), "20 scenes"),
        ((20, 47, 0), "48 pixels"),
        ((20, 96, -1), "seed .* got -1"),
        ((20, 96, 0, -1), "test_scenes .* got -1"),
        ((20, 96, 0, 0, "colours"), "places or attributes, got 'colours'"),
    ):
        with pytest.raises(DataError, match=message):
            ToyWorld(*recipe)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(toy_world.RefCOCO, "write", full)
    with pytest.raises(DataError, match="No space left"):
        ToyWorld(20, 48, 0).write(tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


def test_test_scenes_are_added_and_change_nothing_else(tmp_path: Path) -> None:
    plain, more = tmp_path / "plain", tmp_path / "more"
    ToyWorld(20, 48, 3).write(plain)
    ToyWorld(20, 48, 3, test_scenes=15).write(more)
    pictures = {name: data for name, data in contents(more).items() if name.endswith(".jpg")}
    assert len(pictures) == 35
    assert all(pictures[name] == data for name, data in contents(plain).items() if name.endswith(".jpg"))
    for kind in SETS:
        before, after = (Refer(root, kind.folder, kind.split_by).references for root in (plain, more))
        assert after[: len(before)] == before
        added = after[len(before) :]
        assert {reference.split for reference in added} == {"test"}
        assert min(reference.image_id for reference in added) > 20, "splits part images"
    shapes = {e.sent.split()[-1] for r in Refer(more, "refcoco", "unc").split("test") for e in r.expressions}
    assert shapes >= set(SHAPES), "every shape is meant, unlike in testA and testB"
    with pytest.raises(DataError, match="holds the toy world"):
        ToyWorld(20, 48, 3).write(more)


def test_the_command_writes_the_default_world() -> None:
    options = parser().parse_args(["data", "toy", "--out", "x"])
    assert ToyWorld(options.scenes, options.size, options.seed) == ToyWorld()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ToyWorld(60, SIZE, 3).write(tmp_path / "toy", stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.folder)
def test_files_are_official(world: Path, kind: type[Writer]) -> None:
    folder = world / kind.folder
    (path,) = (path for path in folder.iterdir() if path.name != "instances.json")
    records = json.loads(path.read_text()) if path.suffix == ".json" else pickle.loads(path.read_bytes())
    wanted = {"ref_id", "ann_id", "image_id", "category_id", "file_name", "split", "sent_ids", "sentences"}
    if kind is RefZOM:
        wanted = wanted - {"category_id"} | {"source"}
    assert all(record.keys() == wanted for record in records)
    assert {record["split"] for record in records} == {kind.splits[split] for split in SHARES}
    instances = json.loads((folder / "instances.json").read_text())
    images = {image["id"]: image for image in instances["images"]}
    assert all(record["file_name"] != images[record["image_id"]]["file_name"] for record in records)
    assert len(instances["annotations"]) > len(records) / 2, "unreferred objects are annotated, too"
    forms = {type(a["segmentation"]).__name__ for a in instances["annotations"]}
    assert forms == {"list", "dict"}
    data = Refer(world, kind.folder, kind.split_by)  # our reader accepts it whole
    by_split: dict[str, set[int]] = {}
    for reference in data.references:
        by_split.setdefault(reference.split, set()).add(reference.image_id)
        assert not reference.ann_ids or masks.area(data.target(reference)) > 30
    splits = list(by_split.values())
    assert not any(a & b for i, a in enumerate(splits) for b in splits[i + 1 :]), "splits part images"


@pytest.mark.parametrize("kind", [RefZOM, GRefCOCO], ids=lambda kind: kind.folder)
def test_one_several_none(world: Path, kind: type[Writer]) -> None:
    """Each sentence, read from its words alone, means what its reference says: one thing, several or none."""
    data = Refer(world, kind.folder, kind.split_by)
    instances = json.loads(data.instances_file.read_text())
    kinds = {"one": 0, "several": 0, "none": 0}
    for reference in data.references:
        drawn = scene(np.random.default_rng([3, reference.image_id - 1]), SIZE)
        first = min(a["id"] for a in instances["annotations"] if a["image_id"] == reference.image_id)
        meant = [ann_id - first for ann_id in reference.ann_ids]
        (expression,) = reference.expressions
        found = sorted({i for part in expression.sent.split(" and ") for i in understood(part, drawn.things)})
        assert found == sorted(meant), expression.sent
        kinds["none" if not meant else "one" if len(meant) == 1 else "several"] += 1
    assert min(kinds.values()) > 15, kinds


def test_a_world_of_attributes_has_zero_targets_that_no_word_alone_tells(tmp_path: Path) -> None:
    """Every word of them fits a thing of the picture, all together fit none; the other sets stay as they are."""
    plain, root = tmp_path / "plain", tmp_path / "attributes"
    ToyWorld(60, 48, 3).write(plain)
    ToyWorld(60, 48, 3, grouped="attributes").write(root)
    unchanged = [kind.folder for kind in SETS if kind not in (RefZOM, GRefCOCO)]
    before, after = contents(plain), contents(root)
    assert all(after[name] == data for name, data in before.items() if name.split("/")[0] in ("images", *unchanged))
    forms: dict[bool, set[int]] = {False: set(), True: set()}
    for reference in Refer(root, RefZOM.folder, RefZOM.split_by).references:
        things = scene(np.random.default_rng([3, reference.image_id - 1]), 48).things
        (text,) = (expression.sent for expression in reference.expressions)
        assert not re.search(r"\b(left|right|top|bottom|low|above|below)", text)
        if not reference.ann_ids:
            assert understood(text, things) == []
            assert all(understood(word, things) for word in text.split()), text
        if len(reference.ann_ids) < 2:
            forms[not reference.ann_ids].add(len(text.split()))
    assert forms[True] == {2, 3, 4}, "as long as true descriptions are"
    assert forms[True] <= forms[False]
    zero = sum(not ref.ann_ids for ref in Refer(root, RefZOM.folder, RefZOM.split_by).references)
    assert zero > 25, "about three of five pictures have one"


def test_masks_are_what_is_visible(world: Path) -> None:
    """The annotation against the scene drawn again: not a pixel differs."""
    data = Refer(world, "refcoco", "unc")
    for reference in data.references[:40]:
        drawn = scene(np.random.default_rng([3, reference.image_id - 1]), SIZE)
        stored = masks.decode(data.target(reference)).astype(bool)
        assert any(np.array_equal(stored, mask) for mask in drawn.masks)
        image = cv2.imread(str(data.image_file(reference.image_id)))
        assert np.abs(image[..., ::-1].astype(int) - drawn.image).mean() < 8  # JPEG


def understood(text: str, things: tuple[Thing, ...]) -> list[int]:
    """Who a sentence means, read from its words alone: independent of the code that wrote it."""
    words = re.sub(r"[^a-z ]", "", text.lower())
    words = re.sub(r"(circle|square|triangle|cross(?=es)|shape)e?s\b", r"\1", words)
    sides = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
    where = lambda t: (t.x, t.y)  # noqa: E731

    def looks(part: str) -> list[int]:
        found = list(range(len(things)))
        for options, name in ((SHAPES, "shape"), (COLOURS, "colour"), (SIZES, "size"), (PATTERNS, "pattern")):
            said = [word for word in part.split() if word in options]
            assert len(said) <= 1, part
            found = [i for i in found if not said or getattr(things[i], name) == said[0]]
        return found

    relation = re.search(r"\b(left of|right of|above|below)\b", words)
    if relation:
        axis, sign = sides[relation[1].split()[0]]
        (anchor,) = looks(words[relation.end() :])
        edge = where(things[anchor])[axis]
        return [
            i for i in looks(words[: relation.start()]) if i != anchor and sign * (where(things[i])[axis] - edge) > 0
        ]
    place = re.search(r"\b(left|right|top|bottom|leftmost|rightmost|topmost|lowest)\b", words)
    if place:
        axis, sign = {"l": (0, -1), "r": (0, 1), "t": (1, -1), "b": (1, 1)}[
            "b" if place[1] == "lowest" else place[1][0]
        ]
        return [max(looks(words), key=lambda i: sign * where(things[i])[axis])]
    return looks(words)


@pytest.mark.parametrize("dataset", sorted(KINDS))
def test_every_sentence_is_true_of_its_target_alone(dataset: str) -> None:
    rng = np.random.default_rng(1)
    queries = 0
    for _ in range(60):
        drawn = scene(rng, SIZE)
        for target in range(len(drawn.things)):
            for text in sentences(rng, drawn.things, target, dataset, SIZE):
                assert understood(text, drawn.things) == [target], text
                queries += 1
    assert queries > 200


def test_plus_has_no_positions(world: Path) -> None:
    texts = [e.sent for r in Refer(world, "refcoco+", "unc").references for e in r.expressions]
    assert not any(re.search(r"\b(left|right|top|bottom|low|above|below)", text) for text in texts)


def test_language_is_needed() -> None:
    """What a model could score that never reads: one thing at random, or all of them at once."""
    rng = np.random.default_rng(0)
    one, everything, alike = [], [], []
    for _ in range(150):
        drawn = scene(rng, SIZE)
        union = np.any(drawn.masks, axis=0)
        for target, mask in zip(drawn.things, drawn.masks, strict=True):
            one.append(1 / len(drawn.masks))
            everything.append((mask & union).sum() / union.sum())
            others = [t for t in drawn.things if t is not target]
            alike.append(any(t.shape == target.shape or t.colour == target.colour for t in others))
    assert np.mean(one) < 0.3
    assert np.mean(everything) < 0.3
    assert np.mean(alike) > 0.9, "a target nearly always has a distractor that shares its shape or colour"


def test_caption_pairs_are_repeatable() -> None:
    images, texts = captions.pairs(30, 64, 5)
    again, same = captions.pairs(30, 64, 5)
    assert np.array_equal(images, again)
    assert texts == same
    assert images.shape == (30, 64, 64, 3)
    assert len(set(texts)) > 20


def test_captions_of_kinds_are_true_and_repeatable() -> None:
    for whole in (True, False):
        images, texts = captions.kinds_pairs(60, 64, 5, whole)
        again, same = captions.kinds_pairs(60, 64, 5, whole)
        assert np.array_equal(images, again)
        assert texts == same
        assert len(set(texts)) > 20
        relations = sum(any(f" {word} " in text for word in ("of", "above", "below")) for text in texts)
        assert (relations > 20) == whole, "a phrase for one thing says nothing of the others"
    assert not np.array_equal(images, captions.kinds_pairs(60, 64, 6, whole)[0])


def test_captions_name_the_ground_where_it_is_of_a_kind() -> None:
    images, texts = captions.kinds_pairs(60, 64, 5, True, grounds=True)
    named = [
        (image, text.split()[-1]) for image, text in zip(images, texts, strict=True) if text.split()[-1] in GROUNDS
    ]
    assert 30 < len(named) < 60, "most captions, not all"
    assert {name for _, name in named} == set(GROUNDS)
    nearest = [
        min(GROUNDS, key=lambda kind: np.abs(np.median(image, (0, 1)) - GROUNDS[kind]).sum()) for image, _ in named
    ]
    assert np.mean([kind == name for kind, (_, name) in zip(nearest, named, strict=True)]) > 0.9
    for name in GROUNDS:
        assert candidates(f"striped pink circle on {name}", "pattern", "noun_phrase") == ("striped pink circle", name)
    with pytest.raises(DataError, match="grounds: true of a toy vocabulary is for captioned pictures"):
        ToyVocabulary(grounds=True, image_labels=True)


def test_kinds_have_names_and_space() -> None:
    names = class_names("toy", "mmseg")
    scenes = [kinds.kinds_scene(np.random.default_rng([1, n]), SIZE) for n in range(60)]
    things = [thing for drawn in scenes for thing in drawn.things]
    assert len(names) == len(kinds.KINDS)
    for thing in things:
        assert set(names[kinds.kind_of(thing) - 1].split()) == {thing.pattern, thing.colour, "shape"}
    assert {kinds.kind_of(thing) for thing in things} == set(range(1, len(names) + 1))
    share = np.mean([np.any(drawn.masks, axis=0).mean() for drawn in scenes])
    assert 0.2 < share < 0.45, "it stays a segmentation problem: most of a picture is ground"
    assert min(len(drawn.things) for drawn in scenes) == 2
