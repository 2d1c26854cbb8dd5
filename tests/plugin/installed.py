"""A package of methods in a folder of its own, and the command line that sees it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.worlds import ROOT, rislab, tiny_config

PACKAGE = Path(__file__).parent / "package"


class Installed:
    """The package in a folder of its own, and the command line that sees it."""

    def __init__(self, folder: Path) -> None:
        self.site, self.work = folder / "site", folder / "work"
        self.work.mkdir()
        source = shutil.copytree(PACKAGE, folder / "source")
        config = tiny_config() | {"model": {"class_path": "rislab_probe.ProbeTask", "init_args": {"image_size": 64}}}
        (source / "rislab_probe" / "probe-config.yaml").write_text(yaml.safe_dump(config))
        install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(self.site), str(source)]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)

    def rislab(self, *arguments: str, code: int = 0, fresh: bool = False, **environment: str) -> tuple[str, str]:
        """(output, errors) of a command, in a new interpreter where it starts ranks of its own (`fresh`)."""
        environment = {"PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)]), "COLUMNS": "200"} | environment
        done = rislab(*arguments, cwd=self.work, fresh=fresh, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    def trials(self) -> dict[str, Path]:
        return {path.name.split("--")[0]: path for path in (self.work / "runs" / "probe").iterdir()}
