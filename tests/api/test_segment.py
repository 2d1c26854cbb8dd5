"""`rislab.load` and `segment`: equal masks from Python and the command line, and what each kind of input means."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rislab
from rislab.data import masks
from rislab.errors import ConfigError, DataError
from rislab.testing.contract import names_of, texts_of
from rislab.training import inference
from rislab.training.checkpoints import WholeCheckpointIO
from tests.api.checkpoints import write
from tests.methods.every import factories
from tests.worlds import ROOT, rislab_here

PHOTO = object()
"""Stands for the fixture in parameters."""


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phone held upright: 60 x 40 as stored, 40 x 60 (width x height) as viewers show it."""
    path, exif = tmp_path_factory.mktemp("photo") / "photo.png", Image.Exif()
    exif[0x0112] = 6
    stored = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(stored).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> rislab.Model:
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    write(factories()["cris"], path)
    return rislab.load(path)


@pytest.mark.parametrize("name", sorted(factories()))
def test_masks_of_python_and_command_line_are_equal(name: str, photo: Path, tmp_path: Path) -> None:
    """For every method: from a checkpoint, in a process that knows nothing else of it, and by the method itself."""
    checkpoint = tmp_path / "best.ckpt"
    method = write(factories()[name], checkpoint)
    texts = list(dict.fromkeys(text for text in texts_of(method) if text.strip()))
    loaded = rislab.load(checkpoint)
    assert (loaded.method, loaded.vocabulary) == (name, method.vocabulary)
    answers = loaded.segment(photo, texts)
    picture = np.ascontiguousarray(np.rot90(np.asarray(Image.open(photo)), -1))
    direct = inference.segment(method, picture, texts)
    shown = rislab_here("segment", str(photo), *texts, "--checkpoint", str(checkpoint), "--json", "-")
    assert shown.returncode == 0, shown.stderr
    for answer, own, entry in zip(answers, direct, json.loads(shown.stdout), strict=True):
        assert answer.mask.shape == (60, 40)
        assert np.array_equal(answer.mask, own.mask)
        assert entry["segmentation"] == masks.to_json(masks.encode(answer.mask))
        assert entry | {"image": str(photo)} == answer.to_coco() | {"pixels": int(answer.mask.sum())}
        assert answer.score is not None
        assert (answer.score > method.mask_threshold) == bool(answer.mask.any())
    classes = list(names_of(method))
    labels = loaded.segment(photo, classes=classes)
    shown = rislab_here(
        "segment", str(photo), "--classes", ",".join(classes), "--checkpoint", str(checkpoint), "--json", "-"
    )
    assert [entry["segmentation"] for entry in json.loads(shown.stdout)] == [
        each["segmentation"] for each in labels.to_coco()
    ]
    assert sum(answer.mask.astype(int) for answer in labels).tolist() == np.ones((60, 40), int).tolist()


def test_every_kind_of_picture_is_the_same_picture(model: rislab.Model, photo: Path) -> None:
    texts = ["red circle", "left star"]
    expected = [answer.mask for answer in model.segment(photo, texts)]
    upright = np.ascontiguousarray(np.rot90(np.asarray(Image.open(photo)), -1))
    opaque = np.dstack([upright, np.full(upright.shape[:2], 255, np.uint8)])
    for given in (str(photo), Image.open(photo), upright, opaque, Image.fromarray(opaque)):
        found = model.segment(given, texts)
        assert all(np.array_equal(a.mask, b) for a, b in zip(found, expected, strict=True)), type(given)
    grey = upright[..., 0]
    assert np.array_equal(model.segment(grey, "a")[0].mask, model.segment(np.dstack([grey] * 3), "a")[0].mask)


def test_one_text_is_one_answer_and_lists_say_how_they_are_meant(model: rislab.Model, photo: Path) -> None:
    assert [answer.text for answer in model.segment(photo, "red circle")] == ["red circle"]
    both = model.segment([photo, photo], "red circle")
    assert [[answer.text for answer in answers] for answers in both] == [["red circle"]] * 2
    both = model.segment([photo, photo], ["a", "b"])
    assert [[answer.text for answer in answers] for answers in both] == [["a", "b"]] * 2
    both = model.segment((photo, photo), [["a"], ["b", "c"]])
    assert [[answer.text for answer in answers] for answers in both] == [["a"], ["b", "c"]]
    assert np.array_equal(both[1][0].mask, model.segment(photo, ["b", "c"])[0].mask)
    assert model.segment([], "a") == []


@pytest.mark.parametrize(
    ("picture", "texts", "options", "said"),
    [
        (PHOTO, None, {}, "nothing to segment"),
        (PHOTO, [], {}, "texts is empty"),
        (PHOTO, "  ", {}, "texts is empty"),
        (PHOTO, ["a", ""], {}, r"texts\[1\] is empty"),
        (PHOTO, ["a", 3], {}, r"texts\[1\] is a int, expected a text"),
        (PHOTO, 3, {}, "texts is a int"),
        (PHOTO, [["a"]], {}, "belongs to a list of pictures"),
        ([PHOTO, PHOTO], [["a"]], {}, "1 lists for 2 pictures"),
        ([PHOTO], [[]], {}, r"texts\[0\] is empty"),
        ([PHOTO, PHOTO], [["a"], "b"], {}, r"texts\[1\] is 'b': expected texts alone"),
        (PHOTO, "a", {"classes": ["a"]}, "both given"),
        (PHOTO, None, {"classes": "dog, cat"}, "expected a list of names"),
        (PHOTO, None, {"classes": []}, "classes is empty"),
        (PHOTO, None, {"classes": ["a", "a"]}, "'a' is given more than once"),
        (PHOTO, "a", {"background": True}, "background belongs to classes"),
        (3, "a", {}, "picture is a int, expected a path"),
        (np.zeros((3, 8, 8), np.uint8), "a", {}, r"channels come last"),
        (np.zeros((2, 8, 8, 3), np.uint8), "a", {}, "several pictures are a list"),
        (np.zeros((8, 8, 3)), "a", {}, "an array of float64"),
        (np.zeros((0, 8, 3), np.uint8), "a", {}, "no pixels"),
        (torch.zeros(3, 8, 8), "a", {}, r"torch.Tensor.*permute"),
        ([np.zeros((8, 8, 3)), 3], "a", {}, "picture 0 is an array"),
        ("none.jpg", "a", {}, "none.jpg: no such file"),
        (__file__, "a", {}, "not a readable image"),
        (Image.fromarray(np.zeros((8, 8), np.float32)), "a", {}, "pixels of 32 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_end_in_one_line(
    picture: Any, texts: Any, options: dict[str, Any], said: str, model: rislab.Model, photo: Path
) -> None:
    given = [photo if each is PHOTO else each for each in picture] if isinstance(picture, list) else picture
    given = photo if picture is PHOTO else given
    with pytest.raises(rislab.RislabError, match=said) as error:
        model.segment(given, texts, **options)
    assert "\n" not in str(error.value)


def test_a_closed_vocabulary_says_what_it_knows(photo: Path, tmp_path: Path) -> None:
    write(factories()["deeplab"], tmp_path / "best.ckpt")
    closed = rislab.load(tmp_path / "best.ckpt")
    assert closed.vocabulary is not None
    with pytest.raises(ConfigError, match=closed.vocabulary[0]):
        closed.segment(photo, "the cup on the left")


def test_answers_are_written_by_suffix(model: rislab.Model, photo: Path, tmp_path: Path) -> None:
    answers = model.segment(photo, ["red circle", "a"])
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
        with Image.open(answers.save(tmp_path / f"all.{suffix}")) as drawn:
            assert (drawn.format, drawn.height > drawn.width) == (kind, True)
    assert json.loads(answers.save(tmp_path / "all.json").read_text()) == answers.to_coco()
    with Image.open(answers[0].save_mask(tmp_path / "mask.png")) as mask:
        assert np.array_equal(np.asarray(mask) > 0, answers[0].mask)
    assert answers[0].plot().width == answers.plot().width
    assert [answer.text for answer in answers[1:]] == ["a"]
    for path, write_it in (("x.jpgg", answers.save), ("x.jpg", answers[0].save_mask)):
        with pytest.raises(ConfigError, match=r"names no format"):
            write_it(tmp_path / path)
    assert not list(tmp_path.glob("x*"))
    empty = rislab.Answer("a", np.zeros((2, 3), np.bool_), 0.0)
    assert (empty.to_coco()["bbox"], empty.to_coco()["area"]) == ([0, 0, 0, 0], 0)
    dot = np.zeros((5, 7), np.bool_)
    dot[2:4, 1:6] = True
    assert rislab.Answer("a", dot, 0.9).to_coco()["bbox"] == [1, 2, 5, 2]


def test_load_says_what_it_was_given(tmp_path: Path) -> None:
    write(factories()["cris"], tmp_path / "best.ckpt")
    for source, options, error, said in (
        ("none.ckpt", {}, DataError, "none.ckpt: no such file, directory or row of a table"),
        (tmp_path, {}, DataError, r"no trial with weights; expected checkpoints/best.ckpt"),
        (tmp_path / "best.ckpt", {"seed": 1}, ConfigError, "seed belongs to a row of a table"),
        (tmp_path / "best.ckpt", {"device": "cudaa"}, ConfigError, r"no device 'cudaa' \(did you mean 'cuda'"),
        (None, {}, ConfigError, "None is no path"),
        (b"best.ckpt", {}, ConfigError, "b'best.ckpt' is no path"),
        ("cris:base", {"seed": "0"}, ConfigError, "seed is '0', expected a whole number"),
        ("cris:base", {"profile": 5}, ConfigError, "no profile 5"),
        ("cris:base", {"data": 5}, ConfigError, "5 is no path"),
        (tmp_path / "best.ckpt", {"method": "criss"}, ConfigError, "did you mean 'cris'"),
        (tmp_path / "best.ckpt", {"config": "experiments/cris/none.yaml"}, ConfigError, "none.yaml"),
        ("criss:base", {}, ConfigError, "did you mean 'cris'"),
        ("cris:bas", {}, ConfigError, "did you mean 'base'"),
        ("cris:base", {"runs": tmp_path / "runs"}, ConfigError, r"cris:base \(toy, seed 0\) is pending.*trains it"),
        ("cris:base", {"method": "cris"}, ConfigError, "released"),
    ):
        with pytest.raises(error, match=said) as found:
            rislab.load(source, **options)
        assert "\n" not in str(found.value)


def test_a_released_file_names_its_recipe_or_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its method: the one recipe that fits; where none or several fit, they are named."""
    from rislab.methods.cris.official import to_official
    from tests.worlds import tiny_config

    method = factories()["cris"]()
    torch.save({"state_dict": to_official(method.state_dict())}, tmp_path / "release.pth")
    write(factories()["cris"], tmp_path / "best.ckpt")
    recipe = tiny_config()["model"]
    recipe["init_args"] |= {"image_size": 64, "word_len": 8, "fpn_out": [16, 32, 16], "num_head": 2, "dim_ffn": 32}
    recipe["init_args"] |= {"decoder_layers": 1, "dropout": 0.0}
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "cris"
    folder.mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"release.pth: its weights fit no recipe of cris \(tried: experiments/cris/gref"
    ):
        rislab.load("release.pth", method="cris")
    (folder / "mine.yaml").write_text(json.dumps({"model": recipe}))
    found = rislab.load("release.pth", method="cris")
    assert (found.method, found.network.state_dict().keys()) == ("cris", method.state_dict().keys())
    other = recipe | {"init_args": recipe["init_args"] | {"word_len": 9}}
    (folder / "other.yaml").write_text(json.dumps({"model": other}))
    with pytest.raises(ConfigError, match=r"differ otherwise.*mine.yaml, experiments/cris/other.yaml"):
        rislab.load("release.pth", method="cris")
    assert rislab.load("release.pth", config=folder / "other.yaml").method == "cris"


def test_many_pictures_in_one_call(model: rislab.Model, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        Image.open(photo).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    write(factories()["cris"], tmp_path / "best.ckpt")
    given = ["--checkpoint", "best.ckpt", "--text", "red circle", "--text", "a"]
    done = rislab_here("segment", "photos", str(photo), *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"masks/{name}.png" for name in ("a", "a-2", "b", "photo")]
    assert "photos: 1 file is no picture and was left out (notes.txt)" in done.stderr
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a-2.png", "a.png", "b.png", "photo.png"]
    done = rislab_here("segment", "photos", *given, "--masks", "m", "--json", "all.json", cwd=tmp_path)
    assert sorted(path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*.png")) == [
        f"{name}/{number}.png" for name in ("a-2", "a", "b") for number in (0, 1)
    ]
    entries = json.loads((tmp_path / "all.json").read_text())
    names = [name for name in ("a.jpg", "a.png", "b.png") for _ in range(2)]
    assert [entry["image"] for entry in entries] == [f"photos/{name}" for name in names]
    done = rislab_here("segment", str(photo), "red circle", "--checkpoint", "best.ckpt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "photo-masks.png\n")
    strange = tmp_path / "100% #1 \x1b[2J\nü.png"
    shutil.copy(photo, strange)
    done = rislab_here("segment", strange.name, "red circle", "--checkpoint", "best.ckpt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "100% #1 \\x1b[2J\\nü-masks.png\n"), (
        "one line, and nothing a terminal obeys"
    )
    assert (tmp_path / f"{strange.stem}-masks.png").is_file()
    for arguments, said in (
        (["photos", *given, "--out", "x.png"], "3 pictures need a folder, not a file"),
        (["photos", *given, "--out", "photos"], "is one of the pictures, and would be overwritten"),
        (["photos/a.png", "photos/b.png", "--checkpoint", "best.ckpt"], "photos/b.png is a file, not a sentence"),
        (["photos", "gone", *given], "gone: no such image or folder; with --text, all other arguments are pictures"),
        ([str(photo), "red", " ", "--checkpoint", "gone.ckpt"], "sentence 2 is empty"),
        ([str(photo), "--text", "", "--checkpoint", "gone.ckpt"], "sentence 1 is empty"),
        (["photos/notes.txt", *given], "notes.txt: not a readable image"),
        ([str(photo), *given, "--out", "x.jpgg"], "did you mean '.jpg'"),
        ([str(photo), *given, "--classes", "a,b"], "--text and --classes are both given"),
    ):
        done = rislab_here("segment", *arguments, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "x.png").exists()


def test_names_and_sentences_that_are_no_utf8_are_written(photo: Path, tmp_path: Path) -> None:
    """An old archive's Latin-1 name: the masks of a whole folder are not lost over it."""
    latin = os.fsdecode(b"gr\xfcn")
    (tmp_path / "photos").mkdir()
    shutil.copy(photo, tmp_path / "photos" / f"{latin}.jpg")
    write(factories()["cris"], tmp_path / "best.ckpt")
    given = ("photos", "--text", latin, "--checkpoint", "best.ckpt", "--json")
    done = rislab_here("segment", *given, "all.json", "--masks", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "all.json").read_text())
    assert (entry["image"], entry["text"]) == (f"photos/{latin}.jpg", latin)
    printed = rislab_here("segment", *given, "-", cwd=tmp_path).stdout
    assert json.loads(printed.encode()) == [entry]
    assert (tmp_path / "m" / latin / "0.png").is_file()


def test_a_place_that_cannot_be_written_is_one_line(model: rislab.Model, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answers = model.segment(photo, "red circle")
    for save, name in ((answers.save, "x.png"), (answers.save, "x.json"), (answers[0].save_mask, "m.png")):
        with pytest.raises(rislab.RislabError, match=r"file.*: \w+") as caught:
            save(tmp_path / "file" / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="None is no path"):
        answers.save(None)  # type: ignore[arg-type]


def test_letters_and_outlines_grow_with_the_picture() -> None:
    from rislab.api.drawing import overlay

    mask = np.zeros((480, 480), np.bool_)
    mask[100:200, 100:200] = True
    small = overlay(np.zeros((480, 480, 3), np.uint8), [mask], ["cup"])
    large = overlay(np.zeros((1920, 1920, 3), np.uint8), [mask.repeat(4, 0).repeat(4, 1)], ["cup"])
    assert large.size == (4 * small.width, 4 * small.height)

    def ink(image: Image.Image) -> int:
        legend = np.asarray(image.convert("L"))[image.width :]
        return int((legend < 100).sum())

    assert 12 < ink(large) / ink(small) < 20


def test_importing_rislab_is_fast_and_its_names_are_frozen() -> None:
    code = (
        "import sys, time\nbegan = time.process_time()\nimport rislab\nspent = time.process_time() - began\n"
        "print(spent, [name for name in ('torch', 'numpy', 'PIL', 'cv2') if name in sys.modules])\n"
        "assert not [name for name in rislab.__all__ if not hasattr(rislab, name)]\n"
        "try:\n    rislab.laod\nexcept AttributeError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    seconds, _, modules = first.partition(" ")
    assert (float(seconds) < 0.1, modules) == (True, "[]")
    assert second == "module 'rislab' has no attribute 'laod'"


def test_a_checkpoint_has_a_world_written_into_the_cache_alone(tmp_path: Path) -> None:
    """ReCo's archive may be generated; a file that is not ours must not say where."""
    path = tmp_path / "best.ckpt"
    archive: dict[str, Any] = {"name": "a", "generate": {"scenes": 5, "pairs": 1, "size": 48}}
    for root in (str(tmp_path / "elsewhere"), "../elsewhere", "~/elsewhere"):
        recipe = {"class_path": "rislab.methods.reco.task.ReCoTask", "init_args": {"archive": archive | {"root": root}}}
        WholeCheckpointIO(recipe).save_checkpoint({"state_dict": {}}, path)
        with pytest.raises(ConfigError, match="option 'archive' of its recipe is a dict, expected"):
            rislab.load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["best.ckpt"]
