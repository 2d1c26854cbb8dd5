"""`run_trial` in a process of its own, with a stand-in for the training."""

import subprocess
import sys
from pathlib import Path

from rislab.ablation.trial import TrialDir

ELSEWHERE = """
import os, sys, time
from rislab.training import trial
trial.HEARTBEAT_SECONDS = 0.02
def train(_arguments, asked):
    home = os.getcwd()
    os.chdir("/")
    time.sleep(0.3)
    os.chdir(home)
trial.RislabCLI = train
trial.run_trial(sys.argv[1], 1)
"""


def test_a_heartbeat_while_a_config_is_read_finds_the_lock(tmp_path: Path) -> None:
    """Readers of configs change the working directory for a moment; a trial given by a relative path is still ours."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "trial"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    log = tmp_path / "trial" / "log" / "stdout.txt"
    assert done.returncode == 0, done.stderr + log.read_text()
    assert TrialDir(tmp_path / "trial").status()["state"] == "done"
