"""The smallest real thing: CRIS on a world of a few scenes, for tests that go through the real command line."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def tiny_config(**changes: Any) -> dict[str, Any]:
    """experiments/cris/toy.yaml, shrunk: a random trunk, 24 scenes, two epochs. Nothing is mocked but size.

    changes: dotted keys with `__` for the dots, e.g. ``model__init_args__decoder_layers=0``.
    """
    config = copy.deepcopy(yaml.safe_load((ROOT / "experiments" / "cris" / "toy.yaml").read_text()))
    config["trainer"] |= {"max_epochs": 2, "check_val_every_n_epoch": 1, "log_every_n_steps": 1}
    config["model"]["init_args"] |= {"clip": {"name": "rislab-tiny-RN", "pretrained": None}, "milestones": [1]}
    data = config["data"]["init_args"]
    data |= {"batch_size": 6, "references_per_image": 2, "eval_images": 4, "root": "tiny"}
    data["generate"]["init_args"] |= {"scenes": 40, "size": 64}
    config["trial"] = {"checkpoint_every_n_steps": 2, "predictions": 3}
    _put(config, changes)
    return config


def rislab(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rislab.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=240,
    )


def tiny_table(folder: Path, rows: str = "base: {text_to_pixel: false, decoder_layers: 0}", **changes: Any) -> Path:
    """A table of ours over `tiny_config`, written into `folder`; `rows` is `name: {switches}` a line."""
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(**changes)))
    table = {
        "name": "tiny",
        "title": "A table for tests",
        "paper": {"method": "cris", "title": "CRIS", "venue": "CVPR", "year": 2022, "sources": ["tests"]},
        "profiles": {
            "toy": {
                "config": [str(config)],
                "column": "refcoco",
                "dataset": "a world of a few scenes",
                "is_paper_dataset": False,
                "split": "val",
            }
        },
        "seeds": [0],
        "metrics": ["miou_expr", "oiou", "pr@50"],
        "baseline": "base",
        "rows": [
            {
                "name": name,
                "label": name,
                "switches": {f"model.{key}": value for key, value in switches.items()},
                "paper": {},
            }
            for name, switches in yaml.safe_load(rows).items()
        ],
        "claims": [],
    }
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def tiny_chain(folder: Path, rows: str, **changes: Any) -> Path:
    """A table of RISCLIP's two stages over a random trunk and a world of a few scenes; `rows` as in `tiny_table`."""
    config = yaml.safe_load((ROOT / "experiments" / "risclip" / "toy.yaml").read_text())
    cris = tiny_config()
    config["data"], config["trial"] = cris["data"], cris["trial"]
    config["data"]["init_args"]["protocol"] = "native"
    config["trainer"] |= {"max_epochs": 2, "log_every_n_steps": 1}
    # Random, and the same again in the second stage, because it is the first thing that the seed decides.
    config["model"]["init_args"] |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": None}, "image_size": 64}
    _put(config, changes)
    (folder / "chain.yaml").write_text(yaml.safe_dump(config))
    (folder / "pixel.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}}))
    path = tiny_table(folder, rows)
    table = yaml.safe_load(path.read_text())
    table["paper"]["method"] = "risclip"
    table["profiles"]["toy"] |= {
        "config": [str(folder / "chain.yaml")],
        "stages": {"pixel": [str(folder / "pixel.yaml")]},
    }
    table["metrics"] = ["patch:miou_expr", "miou_expr", "oiou"]
    table["baseline"] = table["rows"][0]["name"]
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def _put(config: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        *path, last = key.split("__")
        place = config
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
