"""The benchmarks of ReCo's paper: its official files written small, scored beside numpy that knows nothing of rislab."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rislab.data.batch import LabelledPictures
from rislab.datamodules.label_maps import LabelMapsData
from rislab.datamodules.label_mixture import LabelMixtureData
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.errors import ConfigError, DataError
from rislab.evaluation.base import Scored
from tests.worlds import rislab

GROUPS = [
    *np.repeat([9, 11, 8, 7, 6, 10, 5, 2, 3, 0, 1, 4], [1, 8, 6, 10, 8, 10, 8, 10, 10, 6, 6, 8]).tolist(),
    17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22, 26,
    14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21,
    24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26,
    26, 19, 19, 24,
]  # fmt: skip
"""The group of each of COCO-Stuff's 182 ids less one, as a release counts them. Source: xu-ji/IIC and NoelShin/reco."""
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
"""Ids of COCO-Stuff, counted from 1, that no picture has."""
SIZES = ((64, 97), (411, 350))


def middle(values: np.ndarray, resize_to: int = 320) -> np.ndarray:
    """Nearest pixel, short side 320, the square in the middle; by indices alone."""
    height, width = values.shape[:2]
    new = [max(resize_to, int(resize_to * side / min(height, width))) for side in (height, width)]
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(new, (height, width), strict=True))
    top, left = (round((n - resize_to) / 2) for n in new)
    return values[rows][:, columns][top : top + resize_to, left : left + resize_to]


def reference(labels: list[np.ndarray], answers: list[np.ndarray], classes: int) -> dict[str, float]:
    """ReCo's two figures: one matrix over all pictures, labels below 0 or above the classes left out."""
    matrix = np.zeros((classes, classes))
    for label, answer in zip(labels, answers, strict=True):
        for there in range(classes):
            for said in range(classes):
                matrix[there, said] += np.count_nonzero((label == there) & (answer == said))
    hits = np.diag(matrix)
    with np.errstate(invalid="ignore"):
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
    return {"miou_class": 100 * float(np.nanmean(iou)), "aacc": 100 * float(hits.sum() / matrix.sum())}


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, "PNG")


def release(root: Path, name: str, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two pictures in the files of a release; gives pictures and what the labels mean, -1 where nothing is scored."""
    pictures, meant = [], []
    for number, (height, width) in enumerate(SIZES):
        picture = rng.integers(0, 256, (height, width, 3))
        if name.startswith("coco"):
            stored = rng.choice([*(i - 1 for i in range(1, 183) if i not in UNUSED), 255], (height, width))
            png(root / "cocostuff" / "images" / "val2017" / f"{number:012d}.jpg", picture)
            png(root / "cocostuff" / "annotations" / "val2017" / f"{number:012d}.png", stored)
            found = np.array([*GROUPS, *[-1] * 74])[stored]
        elif name == "cityscapes27":
            stored = rng.integers(0, 34, (height, width))
            stem = f"frankfurt/frankfurt_000000_{number:06d}"
            png(root / "cityscapes" / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png", picture)
            png(root / "cityscapes" / "gtFine" / "val" / f"{stem}_gtFine_labelIds.png", stored)
            found = np.maximum(stored - 7, -1)
        else:
            stored = rng.choice([*range(19), 255], (height, width))
            png(root / "kitti_step" / "val" / "0002" / f"{number:06d}.png", picture)
            instances = rng.integers(0, 256, (height, width, 2))
            png(
                root / "kitti_step" / "panoptic_maps" / "val" / "0002" / f"{number:06d}.png",
                np.dstack([stored, instances]),
            )
            found = np.where(stored == 255, -1, stored)
        pictures.append(picture)
        meant.append(found)
    if name.startswith("coco"):
        png(root / "cocostuff" / "images" / "val2017" / "not_listed.jpg", picture)
        listed = root / "cocostuff" / "curated" / "val2017" / "Coco164kFull_Stuff_Coarse.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("".join(f"{number:012d}\n" for number in range(len(SIZES))))
    if name != "kitti_step":
        pictures, meant = [middle(each) for each in pictures], [middle(each) for each in meant]
    return pictures, meant


class Guess:
    """Answers names at random. kept: what it said, by number of the name."""

    vocabulary, multi_scale, mask_threshold = None, False, 0.5

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def label(self, batch: LabelledPictures) -> list[torch.Tensor]:
        rng = np.random.default_rng(len(self.kept))
        for label in batch.labels:
            said = rng.integers(0, len(batch.names), label.shape)
            # Right for about half of the pixels, where labels are names.
            right = (rng.random(label.shape) < 0.5) & (label < len(batch.names))
            self.kept.append(np.where(right, label, said))
        return [torch.from_numpy(each) for each in self.kept[-len(batch.labels) :]]


@pytest.mark.parametrize(
    ("name", "protocol", "names", "classes"),
    [
        ("coco_stuff27", "reco_nearest", 171, 27),
        ("coco_stuff27_released", "reco_nearest", 171, 27),
        ("cityscapes27", "reco_nearest", 27, 27),
        ("kitti_step", "reco_full", 19, 19),
    ],
)
def test_pictures_labels_and_scores(tmp_path: Path, name: str, protocol: str, names: int, classes: int) -> None:
    pictures, meant = release(tmp_path, name, np.random.default_rng(0))
    data = SemanticData(str(tmp_path), name, SemanticProtocol[protocol])
    evaluation, method = data.evaluation, Guess()
    assert (len(data.names), len(data.classes)) == (names, classes)
    assert "-" not in "".join(data.names)
    rows = []
    for batch, picture, label in zip(data.val_dataloader(), pictures, meant, strict=True):
        assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), picture)
        assert np.array_equal(batch.labels[0], np.where(label < 0, 255, label))
        scored: Scored = method  # type: ignore[assignment]
        rows.append(evaluation.rows(batch, evaluation.answers(scored, batch, evaluation.predict(scored, batch))))
    counted = np.concatenate(rows).T
    scores = evaluation.arithmetic.scores(dict(zip(evaluation.arithmetic.columns, counted, strict=True)))
    # Names by number -> what they count as: the released list leaves out the ids of a count from 0.
    unused = UNUSED if name.endswith("released") else {number - 1 for number in UNUSED}
    counts_as = np.arange(names)
    if classes < names:
        counts_as = np.array([group for number, group in enumerate(GROUPS) if number not in unused])
    expected = reference(meant, [counts_as[said] for said in method.kept], classes)
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    release(tmp_path, "coco_stuff27", np.random.default_rng(0))
    release(tmp_path, "kitti_step", np.random.default_rng(0))
    data = SemanticData(str(tmp_path), "coco_stuff27", SemanticProtocol.tcl)
    said = r"COCO-Stuff \(27\) is for scoring alone"
    with pytest.raises(ConfigError, match=said):
        LabelMapsData(data)
    with pytest.raises(ConfigError, match=said):
        LabelMixtureData(SemanticData(str(tmp_path), "kitti_step"), ["coco_stuff27"])
    with pytest.raises(ConfigError, match="no names 'mmseg' of cityscapes27 were found in a source; there are reco"):
        SemanticData(str(tmp_path), "cityscapes27", SemanticProtocol.tcl)
    png(tmp_path / "kitti_step" / "panoptic_maps" / "val" / "0002" / "000000.png", np.zeros(SIZES[0]))
    with pytest.raises(
        DataError, match=r"000000\.png: these label maps are RGB, the label in one channel; this one is L"
    ):
        next(iter(SemanticData(str(tmp_path), "kitti_step").val_dataloader()))


def test_check_looks_at_a_variant_where_its_own_files_are(tmp_path: Path) -> None:
    release(tmp_path, "coco_stuff27", np.random.default_rng(0))
    release(tmp_path, "cityscapes27", np.random.default_rng(0))
    release(tmp_path, "kitti_step", np.random.default_rng(0))
    done = rislab("data", "check", str(tmp_path))
    for line in ("COCO-Stuff (27)", "Cityscapes (27)", "KITTI-STEP (19)", "2 pictures (published: 2981)"):
        assert line in done.stdout, done.stdout
    assert "value that is no label" not in done.stdout
