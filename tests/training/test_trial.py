"""`run_trial` in a process of its own, with a stand-in for the training."""

import os
import time
from pathlib import Path
from typing import Any

from rislab.ablation.trial import TrialDir
from tests.forks import forking


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
