"""A mixture of label sets: a batch has the names and labels of one set, and an epoch shows every picture of each."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from rislab.data.geometry import Stretch
from rislab.data.required_mixture import label_mixture
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.datamodules.label_mixture import LabelMixtureData, batches_of
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.errors import ConfigError, DataError
from tests.data.small import Recorder, trainer

SETS = ["toy_voc", "toy_voc16"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture") / "world"
    ToyVocabulary(scenes=45, pairs=2, size=64).write(folder)
    return folder


def ready(root: Path, **options: Any) -> LabelMixtureData:
    given = {"sets": SETS, "batch_size": 2} | options
    module = LabelMixtureData(SemanticData(str(root), "toy_voc", SemanticProtocol.toy), **given)
    module.trainer = trainer()
    method = Recorder(48)
    method.geometry = Stretch(48)  # type: ignore[assignment]  # labels fill the frame
    module.trainer.strategy.connect(method)
    module.setup("fit")
    return module


def test_a_batch_is_of_one_set_with_its_own_names(root: Path) -> None:
    module = ready(root)
    batches = list(module.train_dataloader())
    size = len(module.sets[0].items("train"))
    assert Counter(image_id for batch in batches for image_id in batch.image_ids).most_common(1)[0][1] == 1
    assert {batch.has_background for batch in batches} == {True, False}
    for batch in batches:
        assert {image_id < size for image_id in batch.image_ids} == {batch.has_background}
        labels = set(batch.labels.unique().tolist()) - {255}
        assert labels <= {*range(16 + batch.has_background)}
    # The same picture in both sets: what is background in one is ignored in the other, and its kinds are one lower there.
    with_background, without = (
        {
            i % size: (b.images[n], b.labels[n].int())
            for b in batches
            if b.has_background == flag
            for n, i in enumerate(b.image_ids)
        }
        for flag in (True, False)
    )
    both = with_background.keys() & without.keys()
    assert both
    for number in both:
        (picture, labels), (same, other) = with_background[number], without[number]
        assert torch.equal(picture, same)
        assert torch.equal(labels.where(labels != 255, 0) - 1, other.where(other != 255, -1))


def test_processes_share_a_step_of_one_set_and_a_resume_changes_no_byte(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [batch.images.numpy().tobytes() for batch in ready(root).train_dataloader()]
    loader = ready(root, num_workers=1).train_dataloader()
    loader.load_state_dict({"epoch": 0, "given": 2, "of": len(alone)})
    assert [batch.images.numpy().tobytes() for batch in loader] == alone[2:]
    loader.close()
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(LabelMixtureData, "rank_and_world_size", property(lambda _, rank=rank: (rank, 2)))
        ranks.append(list(ready(root).train_dataloader()))
    assert [batch.names for batch in ranks[0]] == [batch.names for batch in ranks[1]]
    assert not {i for batch in ranks[0] for i in batch.image_ids} & {i for batch in ranks[1] for i in batch.image_ids}


def test_shares_are_those_of_the_batches(root: Path) -> None:
    assert batches_of([100, 20], 10, None) == [10, 2]
    assert batches_of([100, 20], 10, [1, 1]) == [6, 6]
    assert batches_of([100, 20], 10, [99, 1]) == [12, 1]
    batches = list(ready(root, shares=[1.0, 3.0]).train_dataloader())
    assert sum(batch.has_background for batch in batches) == round(len(batches) / 4)


def test_what_is_wrong_is_named(root: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"sets": []}, "sets: names no set"),
        ({"sets": ["toy_voc", "toy_voc"]}, "sets: toy_voc is there twice"),
        ({"sets": ["toy_vok"]}, "no benchmark 'toy_vok'.*did you mean"),
        ({"shares": [1.0]}, r"shares is \[1.0\], expected 2 numbers above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            ready(root, **options)
    with pytest.raises(DataError, match="do not fill one batch of 500 on each of 1 processes"):
        ready(root, batch_size=500).train_dataloader()
    options = {
        "benchmark_data": {"init_args": {"root": str(tmp_path)}},
        "sets": ["ade20k", "voc20"],
        "train_split": "train",
    }
    missing = [each.path for each in label_mixture(options)]
    assert any("ADEChallengeData2016" in path for path in missing)
    assert any(path.endswith("Segmentation/train.txt") for path in missing)
