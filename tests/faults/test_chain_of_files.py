"""CLIMS's chain, small: killed between and within its stages, also while masks are written, it comes to the same bytes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.worlds import ROOT, rislab, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCENES = 40


def chain(folder: Path) -> Path:
    """ablations/clims.yaml with one row and its toy recipes, shrunk: random towers and 28 pictures to train on."""
    table = yaml.safe_load((ROOT / "ablations" / "clims.yaml").read_text())
    toy = table["profiles"]["toy"]
    world = {"scenes": SCENES, "size": 48}
    for name in ("clims/toy", "clims/toy_classifier", "clims/toy_pseudo", "deeplab/toy"):
        config = yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text())
        config["trainer"] |= {"log_every_n_steps": 1}
        if "max_epochs" in config["trainer"]:
            config["trainer"] |= {"max_epochs": 3, "check_val_every_n_epoch": 3}
        config["trial"] = {"checkpoint_every_n_steps": 2, "predictions": 2}
        options = config["model"]["init_args"]
        if "image_size" in options:
            options["image_size"] = 48
        if name == "clims/toy":
            options |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": None}, "long_side": [40, 60]}
        data = config.get("data", {}).get("init_args", {})
        if "benchmark_data" in data:
            data["batch_size"] = 4
            inner = data["benchmark_data"]["init_args"]
            inner["root"], inner["generate"] = str(folder / "weak"), world | {"image_labels": True}
        elif "generate" in data:
            data |= {"batch_size": 4, "root": str(folder / "weak"), "generate": world}
        (folder / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump(config))

    def own(files: list[str]) -> list[str]:
        return [str(folder / f"{file.split('/', 1)[1].replace('/', '-')}") for file in files]

    toy["config"] = own(toy["config"])
    for stage in toy["stages"]:
        stage["config"] = own(stage.get("config", []))
    table |= {"profiles": {"toy": toy}, "claims": [], "baseline": "all"}
    table["rows"] = [row for row in table["rows"] if row["name"] == "all"]
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def command(table: Path, runs: Path) -> list[str]:
    return ["ablate", "run", str(table), "--runs", str(runs), "--jobs", "1", "--threads", "1"]


RESULTS = ("metrics.json", "scores.parquet", "log/metrics.csv", "predictions/label_maps.json", "outputs/manifest.json")


def digests(runs: Path) -> dict[str, str]:
    """A digest of every result file and of every stage's weights; the manifest holds those of the masks."""
    found = {}
    for trial in sorted(runs.glob("*/*--s0--*")):
        for path in (trial / name for name in RESULTS):
            if path.exists():
                found[f"{trial.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        state = torch.load(trial / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        weights = b"".join(value.contiguous().numpy().tobytes() for value in state.values())
        found[f"{trial.name}/weights"] = hashlib.sha256(weights).hexdigest()
    assert sum("manifest" in name for name in found) == 1
    assert sum(name.endswith("/metrics.json") for name in found) == 4
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clims")
    table = chain(folder)
    done = rislab(*command(table, folder / "runs"), patience=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return table, folder / "runs"


MOMENTS = (
    "*--classifier--*/checkpoints/last.ckpt",
    "*--classifier--*/metrics.json",
    "*--cam--*/checkpoints/last.ckpt",
    "*--cam--*/metrics.json",
    "*--pseudo--*/outputs/*.png",
    "*--pseudo--*/outputs/manifest.json",
    "*--pseudo--*/metrics.json",
    "*--deeplab--*/checkpoints/last.ckpt",
)
"""Within a stage, or at its end; of the masks the first, and the manifest before they are scored."""


def test_killed_in_and_between_all_stages_equals_undisturbed(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    table, runs = undisturbed
    for moment in MOMENTS:
        process = subprocess.Popen(
            [sys.executable, "-m", "rislab.cli.main", *command(table, tmp_path / "runs")],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(
            lambda moment=moment, process=process: (
                bool(list((tmp_path / "runs").glob(f"*/{moment}"))) or process.poll() is not None
            ),
            300,
        )
        assert process.poll() is None, f"it ended before {moment}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = rislab(*command(table, tmp_path / "runs"), patience=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path / "runs") == digests(runs)


def test_a_damaged_mask_is_made_again_and_never_trained_on(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    table, runs = undisturbed
    shutil.copytree(runs, tmp_path / "runs")
    (mask,) = (tmp_path / "runs").glob("*/*--pseudo--*/outputs/3.png")
    data = bytearray(mask.read_bytes())
    data[len(data) // 2] ^= 1
    mask.write_bytes(bytes(data))
    (last,) = (tmp_path / "runs").glob("*/*--deeplab--*")
    shutil.rmtree(last)
    done = rislab(*command(table, tmp_path / "runs"), patience=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 4 trials to run" in done.stderr
    assert digests(tmp_path / "runs") == digests(runs)


def test_the_report_shows_all_stages_on_their_splits(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    table, runs = undisturbed
    done = rislab("ablate", "report", str(table), "--runs", str(runs), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "clims" / "report.md").read_text()
    assert "stage cam: split train, protocol cam, background threshold 0.15, CRF: none" in text
    assert "stage pseudo: split train, protocol pseudo\\_masks, CRF: 5 iterations" in text
    page = (tmp_path / "clims" / "report.html").read_text()
    for stage in (", classifier", ", cam", ", pseudo", ""):
        assert page.count(f'alt="label map of all four (CLIMS){stage} for picture') == 2
    assert "Mean of the activation maps" in page, "the curve that shows a collapse"
