"""What a picture costs: counted and measured on a method that is really built, and written down where it cannot be."""

import json
import os
from pathlib import Path

import pytest
import torch

from rislab.ablation import published
from rislab.ablation.yaml_lines import read_yaml
from rislab.bench import cost, method_costs
from rislab.bench.random_weights import with_random_weights
from rislab.bench.training_step import in_a_process_of_its_own
from rislab.encoders.bert.model import BERT
from rislab.encoders.weight_sources import without_network
from rislab.training.inference import build
from tests.worlds import ROOT, tiny_config


def test_parameters_are_counted_and_work_grows_with_the_picture() -> None:
    recipe = tiny_config()["model"]
    small = cost.measure(recipe)
    assert small["parameters_m"] == sum(p.numel() for p in build(recipe).parameters()) / 1e6
    assert small["picture"] == [96, 96]
    assert min(small[name] for name in ("gflops", "seconds", "threads")) > 0
    assert small["memory_mb"] >= 0
    large = cost.measure(recipe | {"init_args": recipe["init_args"] | {"image_size": 192}})
    assert large["gflops"] > 2 * small["gflops"]


def test_a_closed_vocabulary_is_measured_with_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Background is among the names that DeepLab answers, and no query."""
    monkeypatch.chdir(ROOT)
    (toy, _) = cost.subjects(published.load().of("deeplab"))
    assert cost.measure(toy.recipe)["gflops"] > 0


def test_the_whole_method_is_measured_at_both_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for paper in published.load().methods:
        found = {subject.scale: subject for subject in cost.subjects(paper)}
        assert found.keys() == {"toy", "paper"}, paper.method
        assert found["toy"].digest != found["paper"].digest, paper.method
    (cris, _) = cost.subjects(published.load().of("cris"))
    assert (cris.config, cris.recipe["init_args"]["decoder_layers"]) == ("con+dec3 of cris, toy", 3)
    (clims, _) = cost.subjects(published.load().of("clims"))
    assert clims.recipe["class_path"].endswith("CLIMSTask"), "the stage that is the method, not the last one"


@pytest.mark.parametrize("method", ["lavt", "dmmi"])
def test_a_method_with_bert_is_measured_without_a_file_of_its_vocabulary(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched: the vocabulary has the size of BERT's, and its pieces spell any sentence."""
    monkeypatch.chdir(ROOT)
    paper = {subject.scale: subject for subject in cost.subjects(published.load().of(method))}["paper"]
    with torch.device("meta"), without_network():
        model = with_random_weights(paper.recipe)
    (bert,) = (module for module in model.modules() if isinstance(module, BERT))
    assert bert.embeddings.word_embeddings.num_embeddings == 30522
    ids = bert.tokenizer.ids(cost.TEXT)
    assert len(ids) > len(cost.TEXT.split())
    assert bert.tokenizer.unknown_id not in ids


def test_reco_is_measured_without_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """References stand for one name each, in any company."""
    monkeypatch.chdir(ROOT)
    recipe = read_yaml(ROOT / "experiments" / "reco" / "toy.yaml")["model"]
    archive = {"root": "nowhere", "name": "none"}
    reco = with_random_weights(recipe | {"init_args": recipe["init_args"] | {"archive": archive}})
    work = method_costs.answered(reco, "classes", 3)
    assert method_costs.difference(work.ours(), work.plain()) < 1e-4


def test_what_cannot_be_measured_is_written_down_with_its_reason(tmp_path: Path) -> None:
    model = read_yaml(ROOT / "experiments" / "cris" / "toy.yaml")["model"]
    subject = cost.Subject("cris", "toy", "a recipe", model | {"init_args": model["init_args"] | {"image_size": 100}})
    assert "multiple of 32" in cost.save(subject, tmp_path)
    written = json.loads((tmp_path / "cris-toy.json").read_text())
    assert "multiple of 32" in written["error"]
    assert not cost.is_measured(subject, tmp_path)
    (tmp_path / "cris-toy.json").write_text(json.dumps({"model": subject.digest}))
    assert cost.is_measured(subject, tmp_path)
    other = cost.Subject("cris", "toy", "another recipe", model)
    assert not cost.is_measured(other, tmp_path), "a file of another recipe does not count"


def test_a_measurement_that_was_killed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system ends a process where memory is short: without a word of its own."""
    (tmp_path / "killed.py").write_text("import os, signal\ndef measure(): os.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match="ended by signal 9, as the system does where memory is short"):
        in_a_process_of_its_own("killed")
