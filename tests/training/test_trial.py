"""`run_trial` in a process of its own, with a stand-in for the training."""

import os
import time
from pathlib import Path
from typing import Any

import yaml

from rislab.ablation.trial import TrialDir
from tests.forks import forking
from tests.worlds import tiny_config


def run_elsewhere(folder: str) -> None:
    from rislab.training import trial

    def train(_arguments: list[str], request: Any) -> None:
        home = Path.cwd()
        os.chdir("/")
        time.sleep(0.3)
        os.chdir(home)

    os.chdir(folder)
    trial.HEARTBEAT_SECONDS = 0.02
    trial.RislabCLI = train  # type: ignore[assignment,misc]
    trial.run_trial("trial", 1)


def test_a_heartbeat_while_a_config_is_read_finds_the_lock(tmp_path: Path) -> None:
    """Readers of configs change the working directory for a moment; a trial given by a relative path is still ours."""
    process = forking().Process(target=run_elsewhere, args=(str(tmp_path),))
    process.start()
    process.join(60)
    log = tmp_path / "trial" / "log" / "stdout.txt"
    assert process.exitcode == 0, log.read_text()
    assert TrialDir(tmp_path / "trial").status()["state"] == "done"


def scored_until_the_result(config: str, ends: bool) -> None:
    """`rislab fit` of a method without training; unless `ends`, the process dies where it would write its result."""
    from rislab.cli.main import main
    from rislab.training import score_callback

    if not ends:
        score_callback.write_metrics = lambda *_: os._exit(9)  # type: ignore[assignment]
    raise SystemExit(main(["fit", "--config", config]))


def test_what_is_done_has_its_weights(tmp_path: Path) -> None:
    """A stage after this one starts from them: a kill between the two must not leave a result without weights."""
    config = tiny_config()
    options = {"clip": {"name": "rislab-tiny-ViT", "pretrained": None}, "image_size": 64, "templates": "sentence"}
    config["model"] = {"class_path": "rislab.methods.clip.task.CLIPTask", "init_args": options}
    config["data"]["init_args"] |= {"root": str(tmp_path / "tiny"), "protocol": "native"}
    config["trainer"] |= {"default_root_dir": str(tmp_path / "trial")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    weights, result = tmp_path / "trial/checkpoints/best.ckpt", tmp_path / "trial/metrics.json"
    for ends, code in ((False, 9), (True, 0)):
        process = forking().Process(target=scored_until_the_result, args=(str(path), ends))
        process.start()
        process.join(120)
        assert process.exitcode == code
        assert weights.exists()
        assert result.exists() == ends
