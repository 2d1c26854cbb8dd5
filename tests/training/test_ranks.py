"""Two processes that score: one picture for both of them, label maps, and masks that are exported."""

import json
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.datamodules.referring import ReferringData
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.training.graceful_stop import GracefulStop, StopRequest
from rislab.training.score_callback import ScoreCallback
from tests.data.small import SmallSet
from tests.forks import forking
from tests.methods.every import factories


def data(folder: Path, limit: int | None) -> tuple[ReferringData, SemanticData]:
    return (
        ReferringData(str(folder / "small"), eval_images=1, test_splits=["test"]),
        SemanticData(str(folder / "toy"), "toy_voc", SemanticProtocol.toy, limit_val_images=limit),
    )


def score(folder: Path, out: Path, **options: Any) -> dict[str, float]:
    """Validation scores of label maps of one picture; everything else into files."""
    L.seed_everything(0)
    referring, labels = data(folder, 1)

    def trainer(what: Any) -> L.Trainer:
        callbacks = [ScoreCallback(what, out, 2, answers_bytes=1_000_000), GracefulStop(StopRequest())]
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return L.Trainer(accelerator="cpu", callbacks=callbacks, use_distributed_sampler=False, **quiet, **options)

    cris, clip = factories()["cris"](), factories()["clip"]()
    trainer(referring).predict(cris, datamodule=referring, return_predictions=False)
    found = trainer(labels).validate(clip, datamodule=labels, verbose=False)[0]
    trainer(labels).test(clip, datamodule=labels, verbose=False)
    return dict(found)


def rank(number: int, port: int, folder: Path, answers: Connection) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(number)}
    answers.send(score(folder, folder / "two", strategy="ddp", devices=2))


def test_two_processes_score_as_one_does_with_one_picture_too(tmp_path: Path, free_port: int) -> None:
    SmallSet({"train": 2, "val": 1, "test": 1}).write(tmp_path / "small")
    ToyVocabulary(scenes=25, pairs=2, size=64).write(tmp_path / "toy")
    pipes = [forking().Pipe(duplex=False) for _ in range(2)]
    processes = [
        forking().Process(target=rank, args=(number, free_port, tmp_path, pipes[number][1])) for number in range(2)
    ]
    for process in processes:
        process.start()
    alone = score(tmp_path, tmp_path / "one", devices=1)
    for (receiver, _), process in zip(pipes, processes, strict=True):
        if not receiver.poll(120):
            pytest.fail("a rank gives no answer")
        assert receiver.recv() == pytest.approx(alone, nan_ok=True)
        process.join(30)
    two, one = (
        [json.loads((tmp_path / folder / name).read_text()) for name in ("predictions/masks.json", "metrics.json")]
        for folder in ("two", "one")
    )
    assert two == one
    sentences = [answer["sent_id"] for answer in two[0]]
    assert len(sentences) == len(set(sentences)) > 0
    assert two[1]["splits"]["val"]["images"] == 5
    for name in ("scores.parquet", "answers.parquet", "predictions/label_maps.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
