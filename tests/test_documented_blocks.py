"""Every shell and Python block of README and docs is executed, here or by a named test, or says what it needs.

A command that is not executed ends its comment with `needs WHAT` (or its block begins with `# needs WHAT`), where readers see it.
Everything else runs here, in a folder with a small toy world in the place of DATA and /data.
"""

import ast
import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rislab.data import masks
from rislab.data.batch import MaskQueries
from rislab.data.refer import Refer
from rislab.data.toy.world import ToyWorld
from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.load import load as load_bert
from rislab.encoders.pretrained import cached_file, made_once
from rislab.files import write_json
from tests.api.checkpoints import write
from tests.documents import PAGES, Block, blocks, prose
from tests.e2e import test_add_a_method
from tests.methods.every import factories
from tests.test_documented_commands import parser_commands
from tests.worlds import ROOT, rislab_here

WHAT = {
    "data": "released data sets",
    "weights": "released weights, checkpoints or parity cases",
    "trials": "finished trials of a table, or of a run by hand",
    "minutes": "minutes of training or measuring",
    "a cluster": "SLURM",
    "wandb": "wandb's servers",
    "rislab[pdf]": "an extra",
}
"""All that a command may be said to need."""

ELSEWHERE = {
    ("README.md", "python"): "tests/api/test_readme.py",
    ("own-data.md", "bash"): "tests/e2e/test_own_data.py",
    ("own-data.md", "python"): "tests/e2e/test_own_data.py",
    ("add-a-method.md", "bash"): "tests/e2e/test_add_a_method.py",
}
"""Tests that execute all blocks of a language of a page."""

EVERY = [block for page in PAGES for block in blocks(page)]
PROGRAMS = re.compile(
    rf"^(?:\w+=\S+ )*(?:make|wandb|sbatch|export|pip|source|rislab(?= (?:{'|'.join(sorted(parser_commands()))})\b))\b"
)


def of(language: str) -> list[Block]:
    found = [b for b in EVERY if b.language == language and (b.page.name, language) not in ELSEWHERE]
    return [block for block in found if block.text not in test_add_a_method.files().values()]


def test_every_block_is_fenced_and_of_a_known_language() -> None:
    """So none escapes: what is indented, or of no language, is neither highlighted nor executed."""
    for page in PAGES:
        assert not re.search(r"\n\n {4}\S", prose(page)), f"{page.name}: an indented block; expected ``` and a language"
    assert [block.where for block in EVERY if block.language not in ("bash", "python", "yaml", "text")] == []
    for block in EVERY:
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict), block.where
        elif block.language == "python":
            ast.parse(block.text)
        elif block.language == "text":
            assert not [line for line in block.text.splitlines() if PROGRAMS.match(line)], block.where


def test_named_tests_read_their_page() -> None:
    for (page, _), test in ELSEWHERE.items():
        assert f'"{page}"' in (ROOT / test).read_text(), f"{test} executes nothing of {page}"


def test_marks_are_of_the_list() -> None:
    needs = [(block.where, command) for block in of("bash") for command in block.commands() if command.needs]
    assert [(where, command) for where, command in needs if command.needs not in WHAT] == []
    assert {command.needs for _, command in needs} == WHAT.keys()
    for block in of("bash"):
        for command in block.commands():
            assert command.needs or PROGRAMS.match(command.text), f"{block.where}: {command.text}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages assume: data in three sets, masks of a split, pictures, a checkpoint, a CSV file of one's own."""
    made = tmp_path_factory.mktemp("pages")
    ToyWorld(scenes=60, size=64, seed=0).write(made / "DATA")
    for split, names in (("testA", ("masks.json", "mine.json", "theirs.json")), ("val", ("PREDICTIONS",))):
        for shift, name in enumerate(names):
            write_json(made / name, predictions(made / "DATA", split, shift))
    own = ROOT / "docs" / "own-data"
    (made / "mine.csv").write_text((own / "photos.csv").read_text())
    for name in ("photos", "masks"):
        (made / name).symlink_to(own / name)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    for name in ("photo.jpg", "a.jpg"):
        picture.save(made / name)
    write(factories()["cris"], made / "best.ckpt")
    (made / "sweeps").mkdir()
    return made


def predictions(root: Path, split: str, shift: int) -> list[dict[str, Any]]:
    """The true masks of a split, moved to the right."""
    refer = Refer(root, "refcoco", "unc")
    found = []
    for reference in refer.split(split):
        moved = masks.encode(np.roll(masks.decode(refer.target(reference)), shift, axis=1))
        found += [{"sent_id": e.sent_id, "segmentation": masks.to_json(moved)} for e in reference.expressions]
    return found


@pytest.mark.parametrize("page", sorted({block.page for block in of("bash")}), ids=lambda page: page.stem)
def test_commands_run(page: Path, folder: Path) -> None:
    for block in of("bash"):
        if block.page != page:
            continue
        for command in block.commands():
            if not command.needs:
                for part in command.text.split(" && "):
                    run(part, folder, block.where)


def run(command: str, folder: Path, where: str) -> None:
    command, _, output = command.partition(" > ")
    program, *words = shlex.split(command)
    if program == "make":
        # This environment is used as it is: `-o` keeps make from setting one up.
        line = ["make", "-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}", *words]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    else:
        assert program == "rislab", f"{where}: {command}: nothing here executes {program}"
        placed = [re.sub(r"^/data\b", str(folder / "DATA"), word) for word in words]
        done = rislab_here(*placed, cwd=folder)
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    if output:
        (folder / output).write_text(done.stdout)


@dataclass
class Recipe:
    """Of a tiny encoder, for the page that shows how one is kept."""

    steps: int = 3


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    scope: dict[str, Any] = {
        **{"ClassVar": ClassVar, "MaskQueries": MaskQueries},
        **{"encoder": load_bert(BERTSpec("rislab-tiny-BERT", None)), "texts": ["the red circle"], "spans": [(4, 7)]},
        **{"Recipe": Recipe, "Path": Path, "cached_file": cached_file, "made_once": made_once, "asdict": asdict},
        **{"NAME": "tiny", "SIZES": {}, "pretrain": lambda recipe: {"weight": torch.zeros(recipe.steps)}},
        **{"tiny": factories()["maskclip"]},
    }
    found = of("python")
    assert len(found) >= 5
    with redirect_stdout(io.StringIO()):
        for block in found:
            exec(compile(block.text, block.where, "exec"), scope)
        scope["test_contract"]()
    assert scope["erased"].ids.tolist() != scope["tokens"].ids.tolist()
    assert scope["words"].shape[:2] == scope["tokens"].ids.shape
    assert scope["pretrained_path"]().is_file()
