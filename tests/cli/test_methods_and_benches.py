"""`rislab methods` and `rislab bench`, as typed."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from rislab.ablation import signature
from rislab.bench import training_step
from tests.worlds import rislab, rislab_here, untrained


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements take place in this process: another one costs seconds, and memory is not what these tests look at."""

    def measure(module: str, **options: Any) -> Any:
        return importlib.import_module(module).measure(**options)

    monkeypatch.setattr(training_step, "in_a_process_of_its_own", measure)


def test_methods_are_listed_without_torch() -> None:
    done = rislab("methods", "--json", fresh=True)
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found.keys() == signature.methods().keys()
    assert found["risclip"]["stages"] == ["patch", "pixel"]
    assert found["cris"]["tables"] == ["cris"]
    assert all(one["about"] and one["experiments"] for one in found.values())


def test_one_method_with_its_switches_and_sizes() -> None:
    done = rislab("methods", "cris", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    options = {option["name"]: option for option in found["options"]}
    assert options["decoder_layers"]["tables"] == ["cris"]
    assert options["decoder_layers"]["default"] == 3
    assert options["clip"]["required"]
    assert all(name in found["documentation"] for name in options)
    # The paper's table counts 146.85 M for the full model on R50; CLIP's temperature is in its count.
    assert abs(found["parameters"]["refcoco_r50"]["total"] / 1e6 - 146.85) < 0.01
    for name in ("clims", "dmmi", "groupvit", "lavt"):  # files of stages, vocabularies, tensors in the constructor
        sizes = json.loads(rislab_here("methods", name, "--json").stdout)["parameters"]
        assert all(size.get("total", 0) > 0 or "vocab.txt" in size["unknown"] for size in sizes.values()), sizes
        assert any("total" in size for size in sizes.values()), f"{name}: {sizes}"
    wrong = rislab_here("methods", "risklip")
    assert wrong.returncode == 2
    assert "did you mean 'risclip'" in wrong.stderr


def test_bench_data_prints_a_ratio() -> None:
    done = rislab("bench", "data", "--images", "16", "--size", "64", "--epochs", "1", "--workers", "0", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["ratio"] > 1
    assert 100 < found["kilobytes"] < 220


def test_bench_step_compares_frozen_with_trained(tmp_path: Path) -> None:
    done = rislab(
        "bench", "step", "--config", untrained(tmp_path, "risclip/toy"), "--images", "1", "--steps", "1", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["all trained"]["trained_millions"] > 3 * found["as it is"]["trained_millions"]
    assert found["all trained"]["teraflops"] > found["as it is"]["teraflops"] > 0


@pytest.mark.usefixtures("here")
def test_bench_labels_compares_with_a_loop_over_the_classes(tmp_path: Path) -> None:
    tcl = ["bench", "labels", "--config", untrained(tmp_path, "tcl/toy_voc"), "--size", "70", "100", "--classes", "6"]
    done = rislab_here(*tcl, "--loop", "--pamr", "on", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["measured"]
    assert found["same_label_percent"] > 99.9
    assert found["ratio"]["seconds"] == found["loop"]["seconds"] / found["rislab"]["seconds"]
    done = rislab_here(*tcl, "--official", "--json")
    (found,) = json.loads(done.stdout)["measured"]
    assert found["same_label_percent"] > 99.9
    for config, option, said in (
        ("maskclip/toy", "--official", "--official is TCL's way, the config names MaskCLIPTask"),
        ("cris/toy", "--loop", "features of a picture serve every name, such as clip, maskclip and tcl; CRISTask has"),
        ("maskclip/toy", "--pamr=on", "--pamr: MaskCLIPTask has no option pamr"),
        ("tcl/toy", "--classes=0", "--classes is 0, expected 1 or more"),
    ):
        wrong = rislab_here("bench", "labels", "--config", f"experiments/{config}.yaml", "--classes", "2", option)
        assert wrong.returncode == 2
        assert said in wrong.stderr


@pytest.mark.usefixtures("here")
def test_bench_grouping_compares_with_the_plain_way() -> None:
    config = ["bench", "grouping", "--config", "experiments/groupvit/toy.yaml"]
    small = ["--size", "96", "130", "--classes", "6", "--batch", "4", "--cached-batch", "12", "--micro-batch", "5"]
    done = rislab_here(*config, *small, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["labels"]["same_label_percent"] > 99.9
    assert found["texts"]["gradient_difference"] < 1e-3
    assert found["caching"]["gradient_difference"] < 1e-3
    ours, plain = found["caching"]["rislab"], found["caching"]["plain"]
    assert found["caching"]["ratio"]["seconds"] == plain["seconds"] / ours["seconds"]
    shown = rislab_here(*config, *small, "--work", "labels")
    assert "100.00 %" in shown.stdout
    for wrong, said in (
        (["--config", "experiments/tcl/toy.yaml"], "the measurement is of GroupViT, the config names TCLTask"),
        (["--batch", "1"], "--batch is 1, expected 2 or more"),
    ):
        refused = rislab_here(*config, *wrong)
        assert refused.returncode == 2
        assert said in refused.stderr


@pytest.mark.usefixtures("here")
def test_bench_weak_gives_what_the_plain_way_gives(tmp_path: Path) -> None:
    small = ("--images", "2", "--side", "96", "--size", "70", "100")
    done = rislab_here("bench", "weak", "--config", untrained(tmp_path, "clims/toy"), *small, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step"]["difference"] < 1e-3
    assert found["maps"]["difference"] < 1e-3
    wrong = rislab_here("bench", "weak", "--config", "experiments/deeplab/toy.yaml", "--side", "9")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "--side is 9, expected 64 or more" in wrong.stderr
