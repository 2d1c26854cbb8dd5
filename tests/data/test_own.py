"""`rislab data import` and `data export`: the user's own files, as typed."""

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rislab.data import masks
from rislab.data.own import splits
from rislab.data.own.build import cleaned
from rislab.data.refer import Refer
from rislab.errors import DataError
from tests.worlds import ROOT, rislab_here

PHOTOS = ROOT / "docs" / "own-data"
HEIGHT, WIDTH = 40, 60


def picture(path: Path, seed: int = 0, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def table(folder: Path, *lines: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(file: Path, out: Path, *options: str) -> dict[str, Any]:
    done = rislab_here("data", "import", str(file), "--out", str(out), "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def targets(root: Path, name: str) -> dict[tuple[str, str], bytes]:
    """The mask of every sentence, by the name of its picture and its text."""
    refer = Refer(root, name, "own")
    sources = {image["id"]: image["source"] for image in json.loads(refer.instances_file.read_text())["images"]}
    return {
        (Path(sources[ref.image_id]).stem, e.raw): bytes(refer.target(ref)["counts"])
        for ref in refer.references
        for e in ref.expressions
    }


def test_the_toy_photos_become_a_sound_set(tmp_path: Path) -> None:
    done = rislab_here("data", "import", str(PHOTOS / "photos.csv"), "--out", str(tmp_path / "DATA/mine"))
    assert done.returncode == 0, done.stderr
    assert "photos.csv:98: no picture 'photos/21.jpg'" in done.stderr
    assert "photos.csv:99: no text" in done.stderr
    assert "2 of 98 rows are left out" in done.stderr
    assert "96 sentences about 20 pictures" in done.stdout
    checked = rislab_here("data", "check", str(tmp_path / "DATA"), "--json", "--strict")
    assert checked.returncode == 0, checked.stdout
    (one,) = json.loads(checked.stdout)["data_sets"]
    assert {name: split["images"] for name, split in one["splits"].items()} == {"train": 16, "val": 2, "test": 2}
    assert sum(split["zero_target"] for split in one["splits"].values()) == 1
    refer = Refer(tmp_path / "DATA", "mine", "own")
    by_split = {split: {ref.image_id for ref in refer.split(split)} for split in refer.splits}
    assert sum(map(len, by_split.values())) == len(set.union(*by_split.values())), "a picture is in one split"
    pickled = pickle.loads((tmp_path / "DATA/mine/refs(own).p").read_bytes())
    assert {"ref_id", "ann_id", "image_id", "category_id", "file_name", "split", "sent_ids", "sentences"} == set(
        pickled[0]
    )


def test_every_form_of_an_object_gives_the_same_mask(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png", ord(name))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 5:25] = 1
    Image.fromarray(mask * 255).save(tmp_path / "mask.png")
    runs = json.dumps(masks.to_json(masks.encode(mask)))
    file = table(
        tmp_path,
        "image;text;mask;polygon;rle;bbox",
        "a.png;one;mask.png;;;",
        "b.png;one;;5 10 25 10 25 20 5 20;;",
        f"c.png;one;;;{json.dumps(runs)[0]}{runs.replace(chr(34), chr(34) * 2)}{chr(34)};",
        "d.png;one;;;;5,10,20,10",
    )
    imported(file, tmp_path / "DATA/set")
    assert set(targets(tmp_path / "DATA", "set").values()) == {masks.encode(mask)["counts"]}


def test_bad_rows_are_listed_by_line_and_the_rest_is_imported(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg", ord(name))
    (tmp_path / "half.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:500])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "small.png")
    bad = {
        "a.jpg,,,,1 1 5 5,": "no text",
        "aa.jpg,x,,,1 1 5 5,": "no picture 'aa.jpg'",
        "half.jpg,x,,,1 1 5 5,": "not a readable picture",
        "a.jpg,x,small.png,,,": "8x8 pixels, the picture has 60x40",
        "a.jpg,x,none.png,,,": "no such file",
        "a.jpg,x,,,,": "says nowhere where the object is",
        "a.jpg,x,small.png,,1 1 5 5,": "gives mask and box",
        "a.jpg,x,,0.1 0.1 0.9 0.1 0.5 0.9,,": "expected pixels, not fractions",
        "a.jpg,x,,1 1 2 2,,": "a polygon of 4 numbers",
        "a.jpg,x,,1 1 2 nan 3 3,,": "no pixel position",
        "a.jpg,x,,1 1 2 two 3 3,,": "expected numbers",
        "a.jpg,x,,,30 30 50 39,": "leaves the picture of 60x40; corners x1, y1, x2, y2 are not expected",
        "a.jpg,x,,,1 1 0 5,": "both above 0",
        "a.jpg,x,,,1 1 5,": "box has 3 numbers",
        "a.jpg,x,,100 100 120 100 120 120,,": "no pixel in the picture",
        "a.jpg,x,,,1 1 5 5,va/l": "split 'va/l'",
        "a.jpg,fine,,,1 1 5 5,val": "is in split 'train'",
        'a.jpg,"good, this",,,1 1 5 5,': "says what",
        "a.jpg,x,,,1 1 5 5,train,more": "7 cells, the header has 6",
        "a\0.jpg,x,,,1 1 5 5,": "is no path",
        "~no-such-user/a.jpg,x,,,1 1 5 5,": "~no-such-user",
        "a.jpg,x,~no-such-user/m.png,,,": "~no-such-user",
    }
    good = ['a.jpg,"good, this",,,1 1 5 5,train', 'b.jpg,"of two\nlines",,,1 1 5 5,test']
    file = table(tmp_path, "picture,text,mask,polygon,box,split", *good, *bad)
    found = imported(file, tmp_path / "DATA/set")
    # The header is line 1, the second good row has two lines.
    assert [each["where"] for each in found["left_out"]] == [f"{file}:{line}" for line in range(5, 5 + len(bad))]
    for each, reason in zip(found["left_out"], bad.values(), strict=True):
        assert reason in each["reason"]
    assert found["rows"] == len(bad) + len(good)
    assert {name: split["sentences"] for name, split in found["splits"].items()} == {"train": 1, "test": 1}
    strict = rislab_here("data", "import", str(file), "--out", str(tmp_path / "DATA/other"), "--strict")
    assert strict.returncode == 2
    assert "nothing was written" in strict.stderr
    assert not (tmp_path / "DATA/other").exists()
    assert not (tmp_path / "DATA/images/other").exists()
    only_bad = table(tmp_path, "picture,text,mask,polygon,box,split", *bad, name="bad.csv")
    done = rislab_here("data", "import", str(only_bad), "--out", str(tmp_path / "DATA/none"))
    assert done.returncode == 0, "the row that repeats another one is the first of its kind here"
    nothing = table(tmp_path, "picture,text,box", "a.jpg,,1 1 5 5", name="nothing.csv")
    done = rislab_here("data", "import", str(nothing), "--out", str(tmp_path / "DATA/nothing"))
    assert done.returncode == 2
    assert "1 of 1 rows are left out, and none is left to import" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "picture,txt,box\n", "unknown column 'txt' (did you mean 'text'?)"),
        ("a.csv", "picture,text,box\n", "a.csv: holds no row"),
        ("a.json", "[]", "a.json: holds no row"),
        ("a.csv", "picture,text\n", "no column says where the object is"),
        ("a.csv", "text,box\n", "no column 'picture'"),
        ("a.csv", "picture,image,text,box\n", "'picture' is given more than once"),
        ("a.csv", "", "empty file"),
        ("a.csv", b"picture,text,box\n\xff\xfe", "not text in UTF-8"),
        ("a.json", "{}", "neither COCO's"),
        ("a.json", "{", "not readable JSON"),
        ("a.json", '{"images": 3, "annotations": []}', "'images' is 3, expected a list"),
        ("a.xml", "", "a file of type .xml; expected CSV"),
    ],
)
def test_a_file_of_another_form_is_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = rislab_here("data", "import", str(tmp_path / name), "--out", str(tmp_path / "DATA/set"))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "DATA").exists()


def test_the_place_of_a_set_is_checked_first(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = table(tmp_path, "picture,text,box", "a.jpg,x,1 1 5 5")
    for name, said in (
        ("refcoco", "published set"),
        ("images", "folder of pictures"),
        ("a b", "no name of a data set"),
    ):
        done = rislab_here("data", "import", str(file), "--out", str(tmp_path / "DATA" / name))
        assert done.returncode == 2
        assert said in done.stderr
    first = imported(file, tmp_path / "DATA/set")
    again = rislab_here("data", "import", str(file), "--out", str(tmp_path / "DATA/set"))
    assert again.returncode == 2
    assert "--replace" in again.stderr
    assert imported(file, tmp_path / "DATA/set", "--replace")["version"] == first["version"], "the same files"
    picture(tmp_path / "a.jpg", 1)
    assert imported(file, tmp_path / "DATA/set", "--replace")["version"] != first["version"], "another picture"
    assert sorted(path.name for path in (tmp_path / "DATA").iterdir()) == ["images", "set"]
    (tmp_path / "DATA/mine").mkdir()
    (tmp_path / "DATA/mine/thesis.txt").touch()
    done = rislab_here("data", "import", str(file), "--out", str(tmp_path / "DATA/mine"), "--replace")
    assert done.returncode == 2
    assert (tmp_path / "DATA/mine/thesis.txt").exists()


def test_photos_are_kept_upright_and_objects_belong_to_what_viewers_show(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 0, orientation=6)
    picture(tmp_path / "plain.jpg", 0)
    upright = np.rot90(np.asarray(Image.open(tmp_path / "plain.jpg")), -1)
    shape = (WIDTH, HEIGHT)
    for name, size in (("shown.png", shape), ("stored.png", shape[::-1])):
        Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / name)
    file = table(tmp_path, "picture,text,mask", "a.jpg,shown,shown.png", "a.jpg,stored,stored.png")
    found = imported(file, tmp_path / "DATA/set")
    (left_out,) = found["left_out"]
    assert left_out["where"].endswith(":3")
    assert "drawn on the stored 60x40 pixels: --orientation stored" in left_out["reason"]
    refer = Refer(tmp_path / "DATA", "set", "own")
    assert (refer.image(1) == upright).all()
    found = imported(file, tmp_path / "DATA/other", "--orientation", "stored")
    assert [each["where"].rpartition(":")[2] for each in found["left_out"]] == ["2"]
    assert Refer(tmp_path / "DATA", "other", "own").image(1).shape == (HEIGHT, WIDTH, 3)


def test_coco_sentences_and_categories(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    square, other = [[5, 5, 15, 5, 15, 15, 5, 15]], [[30, 5, 40, 5, 40, 15, 30, 15]]
    captions = ["Red cup", "the left one"]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 3, "name": "cup"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "segmentation": square,
                "captions": captions,
                "iscrowd": "0",
            },
            {"id": 2, "image_id": 7, "category_id": 4, "segmentation": square},
            {"id": 3, "image_id": 7, "category_id": 4, "bbox": [30, 5, 10, 10]},
            {"id": 4, "image_id": 8, "category_id": 4, "segmentation": square},
            {"id": 5, "image_id": 7, "category_id": 9, "segmentation": square},
            {"id": 6, "image_id": 7, "category_id": 3, "segmentation": square, "iscrowd": 1},
            {"id": 7, "image_id": 7, "category_id": 3, "segmentation": square, "text": "x", "iscrowd": "true"},
            {"id": 8, "image_id": 7, "category_id": 3, "segmentation": square, "text": "x", "iscrowd": "maybe"},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = imported(tmp_path / "coco.json", tmp_path / "DATA/set")
    reasons = {each["where"].rpartition(" ")[2]: each["reason"] for each in found["left_out"]}
    assert reasons.keys() == {"4", "5", "6", "7", "8"}
    assert "a region of many objects" in reasons["6"]
    assert "a region of many objects" in reasons["7"]
    assert "iscrowd: 'maybe', expected 0, 1, true or false" in reasons["8"]
    assert "image_id 8 is in no record" in reasons["4"]
    assert "category_id 9" in reasons["5"]
    read = targets(tmp_path / "DATA", "set")
    one, both = masks.from_segmentation(square, HEIGHT, WIDTH), masks.from_segmentation(square + other, HEIGHT, WIDTH)
    assert read["a", "Red cup"] == read["a", "the left one"] == one["counts"]
    assert read["a", "dog"] == both["counts"], "a category's name means all of its objects"


def random_mask(seed: int) -> NDArray[np.uint8]:
    """A mask with holes, several parts and pixels on the edges."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((HEIGHT, WIDTH)) < rng.choice([0.02, 0.5, 0.95])).astype(np.uint8)
    mask[0, 0] = mask[-1, -1] = 1
    return np.asarray(mask, np.uint8)


@pytest.mark.parametrize("form", ["coco", "labelme", "png"])
def test_predictions_go_out_and_come_back_to_the_pixel(tmp_path: Path, form: str) -> None:
    lines = []
    for number in range(4):
        picture(tmp_path / f"photo {number}.jpg", number, orientation=6 if number == 3 else 1)
        lines += [f"photo {number}.jpg,sentence {k} of {number},10 10 5 5,test" for k in range(2)]
    imported(table(tmp_path, "picture,text,box,split", *lines), tmp_path / "DATA/set")
    refer = Refer(tmp_path / "DATA", "set", "own")
    answers, expected = [], {}
    for ref in refer.references:
        for e in ref.expressions:
            mask = random_mask(e.sent_id)
            mask = mask if refer.images[ref.image_id].height == HEIGHT else np.ascontiguousarray(mask.T)
            mask = mask * 0 if e.sent_id == 2 else mask
            rle = masks.encode(mask)
            answers.append({"sent_id": e.sent_id, "segmentation": masks.to_json(rle)})
            if e.sent_id != 2 or form == "png":
                expected[f"photo {ref.image_id - 1}", e.raw] = rle["counts"]
    (tmp_path / "masks.json").write_text(json.dumps(answers))
    out = tmp_path / ("out.json" if form == "coco" else "out")
    command = ["data", "export", str(tmp_path / "masks.json"), "--data", str(tmp_path / "DATA/set"), "--split", "test"]
    done = rislab_here(*command, "--to", form, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "empty masks" in done.stderr
    again = tmp_path / "out.csv" if form == "png" else out
    # labelme's files lead to the set's own copies, the others to the user's.
    imported(again, tmp_path / "DATA/again", *([] if form == "labelme" else ["--pictures", str(tmp_path)]))
    if form == "png":
        assert [row["mask"] for row in csv.DictReader((tmp_path / "out.csv").open())].count("none") == 1
    read = targets(tmp_path / "DATA", "again")
    if form == "labelme":
        read = {(name.split("-", 1)[1].replace("-", " "), text): mask for (name, text), mask in read.items()}
    assert read == expected
    other = rislab_here(*command, "--to", "png" if form == "coco" else "coco", "--out", str(out))
    assert other.returncode == 2
    assert "is there already" in other.stderr


def test_a_trial_stops_when_its_set_was_imported_anew(tmp_path: Path) -> None:
    from rislab.datamodules.referring import ReferringData

    picture(tmp_path / "a.jpg")
    file = table(tmp_path, "picture,text,box", "a.jpg,x,1 1 5 5")
    version = imported(file, tmp_path / "DATA/set")["version"]
    given = {"root": str(tmp_path / "DATA"), "dataset": "set", "split_by": "own", "version": version}
    assert ReferringData(**given).refer.references
    instances = tmp_path / "DATA/set/instances.json"
    before = instances.read_bytes()
    instances.write_bytes(before.replace(b'"area": 25', b'"area": 24'))
    with pytest.raises(DataError, match=r"instances\.json: was changed after its import"):
        _ = ReferringData(**given).refer
    instances.write_bytes(before)
    imported(table(tmp_path, "picture,text,box", "a.jpg,y,1 1 5 5"), tmp_path / "DATA/set", "--replace")
    with pytest.raises(DataError, match="was imported anew since"):
        _ = ReferringData(**given).refer


def test_a_table_takes_the_set_that_data_names(tmp_path: Path) -> None:
    found = imported(PHOTOS / "photos.csv", tmp_path / "DATA/mine")

    def plan(*options: str) -> dict[str, Any]:
        runs = str(tmp_path / "runs")
        done = rislab_here(
            "ablate", "plan", "cris", "--profile", "own", "--runs", runs, "--json", "--rows", "base", *options
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    here = plan("--data", str(tmp_path / "DATA/mine"))
    assert here["missing_data"] == []
    shutil.copytree(tmp_path / "DATA", tmp_path / "elsewhere")
    hashes = [one["trials"][0]["hash"] for one in (here, plan("--data", str(tmp_path / "elsewhere/mine")))]
    assert hashes[0] == hashes[1], "where it lies does not count"
    assert (
        found["version"]
        != imported(PHOTOS / "photos.csv", tmp_path / "DATA/mine", "--replace", "--seed", "1")["version"]
    )
    assert plan("--data", str(tmp_path / "DATA/mine"))["trials"][0]["hash"] != hashes[0], "other splits are other data"
    assert any("refs(own).p" in name for name in plan("--data", str(tmp_path / "nowhere"))["missing_data"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 200), st.lists(st.integers(0, 10), min_size=1, max_size=5).filter(any))
def test_splits_are_whole_and_no_split_is_empty(pictures: int, weights: list[int]) -> None:
    wanted = {f"s{at}": weight / sum(weights) for at, weight in enumerate(weights)}
    found = splits.counts(pictures, wanted)
    assert sum(found.values()) == pictures
    positive = [name for name, share in wanted.items() if share > 0]
    assert all(found[name] == 0 for name in wanted if name not in positive)
    if pictures >= len(positive):
        assert all(found[name] > 0 for name in positive)
    digests = [f"{n:064x}" for n in range(pictures)]
    assert splits.assigned(digests, wanted, 0) == splits.assigned(digests[::-1], wanted, 0)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1).filter(str.strip))
def test_a_cleaned_sentence_is_never_empty(text: str) -> None:
    assert cleaned(text)
    assert cleaned("The RED cup, please!") == "the red cup please"
