"""ReCo: references from an archive, what each switch changes, label maps in parts, files of embeddings."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rislab.ablation.identity import digest, resolve
from rislab.data.archive import Archive, ArchiveSpec
from rislab.data.batch import LabelledPictures, Viewing
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.encoders.deit.load import DeiTSpec
from rislab.errors import ConfigError, DataError
from rislab.methods.reco import references
from rislab.methods.reco.cosegment import cosegment, matches, mean_match, patch_weights, sliced_as_released
from rislab.methods.reco.inference import picture_of
from rislab.methods.reco.references import References
from rislab.methods.reco.task import ReCoTask
from rislab.nn.dense_crf import mean_field
from rislab.nn.sliding import boxes, mean_of_windows

ARCHIVE = ArchiveSpec(
    "toy-archive-of-five", "five", "VOCdevkit/VOC2012/JPEGImages", generate=ToyVocabulary(scenes=5, pairs=1, size=48)
)
NAMES = ("dog", "cat", "sky")


def tiny(**switches: Any) -> ReCoTask:
    """The method small and with random weights, for the contract suite."""
    options: dict[str, Any] = {"k": 3, "image_size": 48, "archive_size": 48, "contexts": ("tree", "sky")} | switches
    options = {"archive": ARCHIVE, "templates": "photo"} | options
    clip = CLIPSpec("rislab-tiny-ViT")
    return ReCoTask(clip, clip, DeiTSpec("rislab-tiny-DeiT"), **options)


def method(**switches: Any) -> ReCoTask:
    torch.manual_seed(0)
    return tiny(**switches).eval()


def pictures(count: int = 2, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@torch.no_grad()
def test_blockwise_matches_are_those_of_the_whole_matrix() -> None:
    """The formulas of co-segmentation, with all k h w x k h w cosines at once."""
    k, height, width = 4, 3, 5
    features = torch.randn(k, 8, height, width)
    attention, contexts = torch.rand(k, 2, 2), F.normalize(torch.randn(2, 8), dim=1)
    units = F.normalize(features, dim=1)
    rows = units.flatten(2).transpose(1, 2).flatten(0, 1)
    weights = F.interpolate(attention[:, None], (height, width), mode="bilinear")[:, 0].flatten()
    weights = weights * (1 - (rows @ contexts.T).sigmoid()).prod(1)
    torch.testing.assert_close(patch_weights(units, attention, contexts).flatten(), weights)
    matrix = (rows @ rows.T) * weights
    patches = height * width
    for sliced in (False, True):
        stops = [(2 * j + 1 if sliced else j + 1) * patches for j in range(k)]
        expected = torch.stack([matrix[:, j * patches : stop].amax(1) for j, stop in enumerate(stops)], 1)
        ours = matches(units, weights.view(k, height, width))
        ours = sliced_as_released(ours) if sliced else ours
        torch.testing.assert_close(ours.flatten(0, 2), expected)
    m = matches(units, weights.view(k, height, width))
    dropped = torch.stack([m[i][..., [j for j in range(k) if j != i]].mean(-1) for i in range(k)])
    torch.testing.assert_close(mean_match(m, "drop"), dropped)
    found = cosegment(features, attention, contexts)
    for i, (row, column) in enumerate(found.seeds.tolist()):
        assert found.patch_score[i, row, column] == found.patch_score[i].max()
    seeds = torch.stack([features[i, :, r, c] for i, (r, c) in enumerate(found.seeds.tolist())])
    torch.testing.assert_close(found.reference, F.normalize(seeds.mean(0), dim=0))


def test_what_all_pictures_have_is_found() -> None:
    """One patch is in every picture; everything else is noise. A context that looks like it is avoided."""
    common, other = F.normalize(torch.randn(2, 32), dim=1)
    features = torch.randn(5, 32, 4, 4) * 0.3
    places = [(0, 1), (3, 3), (2, 0), (1, 2), (0, 0)]
    for i, (row, column) in enumerate(places):
        features[i, :, row, column] = 4 * common
        features[i, :, 3 - row, 3 - column] = 4 * other + 0.5 * torch.randn(32)
    found = cosegment(features, None, torch.zeros(0, 32))
    assert [tuple(seed) for seed in found.seeds.tolist()] == places
    torch.testing.assert_close(found.reference, common)
    avoided = cosegment(features, None, common[None])
    assert [tuple(seed) for seed in avoided.seeds.tolist()] == [(3 - row, 3 - column) for row, column in places]


SWITCHES: dict[str, dict[str, Any]] = {
    "full": {},
    "no guidance": {"text_attention": False},
    "no elimination": {"context_elimination": False},
    "other contexts": {"contexts": ("sky", "tree")},
    "as released": {"coseg_columns": "official_slice"},
    "own image dropped": {"own_image": "drop"},
    "weighted": {"ref_type": "weighted"},
    "winner": {"ref_type": "winner"},
    "fewer pictures": {"k": 2},
}


@torch.no_grad()
def test_each_switch_changes_the_references_and_no_two_alike() -> None:
    # Features that differ between patches: at its start the encoder's are nearly all alike.
    made = {}
    for name, switches in SWITCHES.items():
        task = method(**switches)
        torch.manual_seed(1)
        torch.nn.init.normal_(task.model.encoder.vit.patch_embed.proj.weight, std=0.3)
        made[name] = task.references(["a", "b", "tree", "sky"])
    for (one, a), (other, b) in itertools.combinations(made.items(), 2):
        assert not torch.allclose(a, b, atol=1e-6), f"{one} and {other} give the same references"


@torch.no_grad()
def test_contexts_lend_their_vectors() -> None:
    task = method()
    tree, vegetation = task.references(["tree", "vegetation"])
    assert torch.equal(tree, vegetation)
    with_them = task.embed(["vegetation", "dog"]).last_similarity
    assert torch.isnan(with_them).tolist() == [True, False]
    assert method(context_elimination=False).embedder._taken("vegetation") == "vegetation"
    assert not torch.equal(task.texts(["tree"]), task.texts(["vegetation"])), "their names stay their own"
    assert task.embedder._taken("vegetation") == "tree"
    assert method(contexts=("sky",)).embedder._taken("vegetation") == "vegetation"


@torch.no_grad()
@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_label_maps_in_parts_are_those_of_everything_at_once(crf: bool, background: bool) -> None:
    task, names = method(crf=crf), tuple(f"name {n}" for n in range(11))
    image = pictures(1, 50, 81)[0]
    viewing = Viewing(48, 200, 48, 24, "x")
    where = boxes(50, 81, 48, 24)
    whole = [task.segment_vocabulary(image[None, :, y1:y2, x1:x2], names)[0] for y1, y2, x1, x2 in where]
    shown = mean_of_windows(whole, where, (50, 81))
    large = F.interpolate(shown[None], (37, 60), mode="bilinear", align_corners=False)[0]
    probability = (100 * large).softmax(0)
    task.bg_thresh = float(probability.amax(0).median())
    best = large
    if crf:
        picture = picture_of(task.normalise(image[None])[0], task.mean, task.std)
        assert (picture.flip(2).int() - image.permute(1, 2, 0).int()).abs().max() <= 1
        best = F.interpolate(mean_field(shown.softmax(0), picture)[None], (37, 60), mode="bilinear")[0]
    expected = best.argmax(0)
    if background:
        expected = torch.where(probability.amax(0) > task.bg_thresh, expected + 1, 0)
        assert 0 < (expected == 0).float().mean() < 1, "the threshold decides something"
    batch = LabelledPictures([image], [np.zeros((37, 60), np.uint8)], names, background, viewing, [0])
    decided = (best.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-5) & (
        (probability.amax(0) - task.bg_thresh).abs() > 1e-5
    )
    assert decided.float().mean() > 0.95
    assert torch.equal(task.label(batch)[0][decided], expected[decided])
    shares = task.with_background(shown[None])[0]
    torch.testing.assert_close(shares[1:].sum(0), torch.ones(50, 81))


@torch.no_grad()
def test_dense_clip_is_not_computed_where_nothing_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = method(dense_clip_inference=False, text_attention=False)
    monkeypatch.setattr(task.model.dense, "forward", lambda *_: pytest.fail("dense CLIP was computed"))
    assert task.segment_vocabulary(pictures(), NAMES).shape == (2, 3, 48, 64)


@torch.no_grad()
def test_an_archive_is_indexed_once_and_a_picture_seen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    seen: list[int] = []
    task = method()
    monkeypatch.setattr(task.model, "index", lambda pixels: (seen.append(len(pixels)), torch.ones(len(pixels), 64))[1])
    monkeypatch.setattr(references, "PART", 2)
    encoded = task.model.encoder.forward
    shown: list[int] = []
    monkeypatch.setattr(task.model.encoder, "forward", lambda pixels: (shown.append(len(pixels)), encoded(pixels))[1])
    first = task.references(NAMES)
    assert seen == [2, 2, 1], "parts of the index"
    assert sum(shown) <= 5, "classes share pictures"
    del task.embedder
    seen.clear()
    assert torch.equal(task.references(NAMES), first)
    assert seen == [], "the index lies in the cache"
    files = references.index_files(task.embedder)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    references.index_files(task.embedder)
    assert seen == [2], "only the damaged part is made again"


@torch.no_grad()
def test_references_are_a_file(tmp_path: Path) -> None:
    task = method()
    made = task.embed(NAMES)
    made.save(tmp_path / "made.safetensors")
    read = references.load(tmp_path / "made.safetensors", 64)
    assert read.names == NAMES
    assert torch.equal(read.vectors, made.vectors)
    assert (
        torch.equal(
            read.last_similarity,
            made.last_similarity,
        )
        or torch.isnan(made.last_similarity).any()
    )
    assert read.settings["k"] == 3
    assert read.settings["archive"] == "five"
    given = method(archive=None, references=str(tmp_path / "made.safetensors"))
    assert torch.equal(given.references(["sky", "dog"]), made.vectors[[2, 0]])
    both = method(references=str(tmp_path / "made.safetensors"))
    assert torch.equal(both.references(["dog", "tree"])[0], made.vectors[0])
    with pytest.raises(ConfigError, match=r"model\.references has no 'dogs' \(did you mean 'dog'\?\)"):
        given.references(["dogs"])


def test_official_embeddings_are_read_without_running_them(tmp_path: Path) -> None:
    vectors = F.normalize(torch.randn(2, 64), dim=1)
    torch.save({"road": vectors[0], "car": vectors[1]}, tmp_path / "official.pkl")
    read = references.load(tmp_path / "official.pkl", 64)
    assert read.names == ("road", "car")
    assert torch.equal(read.vectors, vectors)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    with (tmp_path / "evil.pkl").open("wb") as file:
        pickle.dump({"road": Evil()}, file)
    with pytest.raises(DataError):
        references.load(tmp_path / "evil.pkl", 64)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (References(("a",), torch.ones(2, 4) / 2, torch.zeros(2), {}), "1 names and vectors (2, 4), expected a vector"),
        (References(("a",), torch.ones(1, 4), torch.zeros(1), {}), "vectors are not of unit length"),
        (References(("a",), torch.ones(1, 9) / 3, torch.zeros(1), {}), "vectors of 9 channels, the encoder has 4"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, saved: References, message: str) -> None:
    saved.save(tmp_path / "bad.safetensors")
    with pytest.raises(DataError) as said:
        references.load(tmp_path / "bad.safetensors", 4)
    assert message in str(said.value)
    assert "\n" not in str(said.value)


def test_errors_of_options() -> None:
    with pytest.raises(ConfigError, match=r"model\.k is 6, and archive five has 5 pictures"):
        method(k=6).references(["a"])
    with pytest.raises(ConfigError, match=r"model\.archive is null"):
        method(archive=None).references(["a"])
    with pytest.raises(ConfigError, match="a name stands there twice"):
        method(contexts=("sky", "sky"))


def test_an_archive_is_any_folder_or_a_benchmarks_pictures(tmp_path: Path) -> None:
    for name in ("n02/b.JPEG", "n02/a.JPEG", "n01/c.png", "n01/notes.txt", "n01/._c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            Image.new("RGB", (30, 20), "red").save(tmp_path / name, "PNG")
    found = Archive(ArchiveSpec(str(tmp_path), "imagenet"))
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == ["n01/c.png", "n02/a.JPEG", "n02/b.JPEG"]
    assert found.pictures([2, 0], 16, "bicubic").shape == (2, 3, 16, 16)
    before = found.digest()
    (tmp_path / "n02" / "a.JPEG").write_bytes(b"damaged")
    assert Archive(ArchiveSpec(str(tmp_path), "imagenet")).digest() != before
    with pytest.raises(DataError, match=r"a\.JPEG"):
        found.pictures([1], 16, "bicubic")
    toy = ToyVocabulary(scenes=10, pairs=1, size=48)
    train = Archive(ArchiveSpec(str(tmp_path / "toy"), "toy", benchmark="toy_voc", generate=toy))
    assert [path.stem for path in train.paths] == ["2026_000000", "2026_000005"], "those of the training split alone"
    with pytest.raises(DataError, match="archive x: no folder"):
        Archive(ArchiveSpec(str(tmp_path / "none"), "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="archive x: no pictures in"):
        Archive(ArchiveSpec(str(tmp_path / "empty"), "x"))


def test_the_place_of_an_archive_is_no_part_of_a_trial() -> None:
    def hashed(**changes: Any) -> str:
        archive = {"root": "data/imagenet/train", "name": "imagenet-train"} | changes
        options = {
            "clip": {"name": "RN50x16"},
            "retrieval_clip": {"name": "ViT-L-14-336"},
            "encoder": {"name": "dino-s16"},
        }
        recipe = {"class_path": "rislab.methods.reco.task.ReCoTask", "init_args": options | {"archive": archive}}
        return digest(resolve(recipe, hashed=True))

    assert hashed(root="/elsewhere", workers=8) == hashed()
    assert hashed(name="imagenet-val") != hashed()
