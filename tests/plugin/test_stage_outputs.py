"""A stage that makes files for a stage of another class: shared, resumed, noticed when damaged, the same on two processes."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from rislab.ablation import integrity
from tests.plugin.installed import Installed
from tests.worlds import tiny_config

RESULTS = ("metrics.json", "scores.parquet", "log/metrics.csv")


class Chain(Installed):
    """The package with a table of two rows, which share their first stage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        world = {"class_path": "rislab.data.toy.vocabulary.ToyVocabulary"}
        world["init_args"] = {"scenes": 45, "pairs": 2, "size": 64}  # type: ignore[assignment]
        scored = {"root": str(folder / "world"), "name": "toy_voc", "protocol": "toy", "generate": world}
        scored |= {"limit_val_images": 2}
        data = {
            "class_path": "rislab.datamodules.label_maps.LabelMapsData",
            "init_args": {
                "batch_size": 2,
                "benchmark_data": {"class_path": "rislab.datamodules.semantic.SemanticData", "init_args": scored},
            },
        }
        trainer = tiny_config()["trainer"] | {"max_epochs": 2, "devices": 1}
        common = {"seed_everything": 0, "trainer": trainer, "data": data}
        model = {"class_path": "rislab_probe.stages.BrightnessLabels"}
        self.write("labels.yaml", common | {"model": model, "trial": {"test": False}})
        self.write("probe.yaml", {"model": {"class_path": "rislab_probe.stages.LabelProbe"}, "trial": {"test": True}})
        rows = [
            {"name": name, "label": name, "switches": {"probe:model.bias": bias}, "paper": {}}
            for name, bias in (("plain", False), ("shifted", True))
        ]
        profile = {
            "config": ["labels.yaml"],
            "column": "toy",
            "dataset": "a world of a few scenes",
            "is_paper_dataset": False,
            "split": "val",
            "stages": [
                {"name": "labels"},
                {"name": "probe", "config": ["probe.yaml"], "from": "labels", "takes": "outputs"},
            ],
        }
        self.write(
            "chain.yaml",
            {
                "name": "chain",
                "title": "Two stages",
                "paper": {
                    "method": "probe",
                    "title": "none",
                    "venue": "none",
                    "year": 2026,
                    "arxiv": "0",
                    "sources": ["x"],
                },
                "profiles": {"toy": profile},
                "seeds": [0],
                "metrics": ["miou_class"],
                "baseline": "plain",
                "rows": rows,
                "claims": [],
            },
        )

    def write(self, name: str, content: object) -> None:
        (self.work / name).write_text(yaml.safe_dump(content, sort_keys=False))

    def run(self, runs: str, **environment: str) -> str:
        """What the command says on stdout and stderr."""
        return "".join(self.rislab("ablate", "run", "chain.yaml", "--runs", runs, "--jobs", "1", **environment))

    def trial(self, runs: str, name: str) -> Path:
        (found,) = (self.work / runs / "chain").glob(f"{name}--s0--*")
        return found

    def results(self, runs: str) -> dict[str, bytes]:
        trials = [self.trial(runs, name) for name in ("plain--probe", "shifted--probe")]
        files = {f"{trial.name}/{name}": (trial / name).read_bytes() for trial in trials for name in RESULTS}
        outputs = self.trial(runs, "plain--labels") / "outputs"
        return files | {path.name: path.read_bytes() for path in outputs.iterdir()}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("chain"))
    shown = made.run("runs")
    assert "3 done" in shown, "two rows of two stages, of which they share the first"
    return made


def test_the_files_of_a_stage_are_complete_and_shared(chain: Chain) -> None:
    outputs = chain.trial("runs", "plain--labels") / "outputs"
    listed = json.loads((outputs / "manifest.json").read_text())["files"]
    assert sorted(listed) == sorted(path.name for path in outputs.glob("*.png"))
    assert len(listed) == 9
    plan, _ = chain.rislab("ablate", "plan", "chain.yaml", "--json")
    trials = json.loads(plan)["trials"]
    assert len({trial["hash"] for trial in trials}) == 3
    file = chain.trial("runs", "shifted--probe") / "config.yaml"
    text = file.read_text()
    config = yaml.safe_load(text)
    assert config["data"]["init_args"]["labels_from"].endswith("outputs")
    config["data"]["init_args"]["labels_from"] = "/elsewhere/outputs"
    file.write_text(yaml.safe_dump(config))
    assert integrity.inspect(file.parent, thorough=True).is_done, "where the outputs lie is no part of the trial"
    config["data"]["init_args"]["batch_size"] = 7
    file.write_text(yaml.safe_dump(config))
    assert integrity.inspect(file.parent, thorough=True).reason == "config.yaml is the config of another trial"
    file.write_text(text)
    report, _ = chain.rislab("ablate", "report", "chain.yaml")
    assert "report.html" in report


def test_a_stage_that_dies_again_and_again_goes_on_with_the_files_that_it_has(chain: Chain) -> None:
    chain.run("killed", PROBE_DIES_AFTER="3")
    attempts = (chain.trial("killed", "plain--labels") / "attempts.jsonl").read_text()
    assert attempts.count("begin") == 3, "nine files, three a start; the last start makes none"
    assert chain.results("killed") == chain.results("runs")


@pytest.mark.parametrize("fault", ["changed", "gone", "manifest"])
def test_damaged_files_are_made_again_and_never_trained_on(chain: Chain, fault: str) -> None:
    runs = f"damaged-{fault}"
    shutil.copytree(chain.work / "runs", chain.work / runs)
    outputs = chain.trial(runs, "plain--labels") / "outputs"
    match fault:
        case "changed":
            data = bytearray((outputs / "4.png").read_bytes())
            data[-20] ^= 1
            (outputs / "4.png").write_bytes(bytes(data))
        case "gone":
            (outputs / "4.png").unlink()
        case "manifest":
            (outputs / "manifest.json").write_text('{"files": ')
    shutil.rmtree(chain.trial(runs, "shifted--probe"))
    assert "2 of 3 trials to run" in chain.run(runs), (
        "the stage and the row that reads it; the other row has its result"
    )
    assert chain.results(runs) == chain.results("runs")


def test_training_by_hand_refuses_damaged_files(chain: Chain) -> None:
    shutil.copytree(chain.work / "runs", chain.work / "by-hand")
    outputs = chain.trial("by-hand", "plain--labels") / "outputs"
    (outputs / "0.png").write_bytes(b"")
    config = chain.trial("by-hand", "plain--probe") / "config.yaml"
    options = ["--trainer.default_root_dir", "elsewhere", "--data.init_args.labels_from", str(outputs)]
    _, errors = chain.rislab("fit", "--config", str(config), *options, code=2)
    assert "0.png is not what the stage wrote" in errors
    assert len(errors.strip().splitlines()) == 1


def test_two_processes_make_the_same_files(chain: Chain) -> None:
    config = chain.trial("runs", "plain--labels") / "config.yaml"
    options = ["--trainer.default_root_dir", "two", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    chain.rislab("fit", "--config", str(config), *options, fresh=True)
    one, two = chain.trial("runs", "plain--labels") / "outputs", chain.work / "two" / "outputs"
    assert {path.name: path.read_bytes() for path in two.iterdir()} == {
        path.name: path.read_bytes() for path in one.iterdir()
    }
