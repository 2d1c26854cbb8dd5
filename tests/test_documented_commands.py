"""Every command that README, docs, Makefile and configs show can still be typed: options, files and targets exist."""

import contextlib
import io
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation import signature
from rislab.ablation.table import load
from rislab.cli.main import TRAINING, parser
from tests.worlds import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINE = re.compile(r"^(?: {4}|\$ )?(?P<command>(?:rislab|make|wandb sweep) [^\n]*)$", re.MULTILINE)
OWN = {"experiments", "ablations", "sweeps"}
"""Folders of this tree: a path below one of them that a command names must exist."""


def shown(text: str) -> list[list[str]]:
    """The commands in code blocks of a page, as words; what a page abbreviates by dots is left out."""
    found = []
    for block in re.split(r"^```.*$", text, flags=re.MULTILINE):
        for match in LINE.finditer(block.replace("\\\n", " ")):
            line = re.split(r"\s+#\s|\s+[|>]\s", match["command"])[0]
            for command in line.split(" && "):
                with contextlib.suppress(ValueError):  # prose with an apostrophe that begins with the program's name
                    words = shlex.split(command)
                    if not any(word in ("...", "…") for word in words):
                        found.append(words)
    return found


CASES = [(page, words) for page in PAGES for words in shown(page.read_text())]


def own_paths(words: list[str]) -> list[Path]:
    values = [word.partition("=")[2] or word for word in words]
    return [ROOT / value for value in values if value.partition("/")[0] in OWN and "/" in value]


def options_exist(words: list[str]) -> None:
    """LightningCLI's own parser would import torch: each `--model.init_args.X` is looked up in the class of the config."""
    config: dict[str, Any] = {}
    for name, value in itertools.pairwise(words):
        if name == "--config":
            config |= yaml.safe_load((ROOT / value).read_text())
    for word in words:
        match = re.match(r"--(model|data)\.(?:init_args\.)?(\w+)", word)
        if match and match[2] not in ("init_args", "class_path"):
            assert match[2] in signature.read(config[match[1]]["class_path"]).options, word


def is_prose(words: list[str]) -> bool:
    """A sentence whose line begins with the program's name: no word after it is a command."""
    return words[0] == "rislab" and words[1] not in parser_commands()


def parser_commands() -> set[str]:
    return {name for action in parser()._actions for name in (action.choices or ())}


@pytest.mark.parametrize(("page", "words"), CASES, ids=[f"{page.stem}-{' '.join(words)[:60]}" for page, words in CASES])
def test_it_can_be_typed(page: Path, words: list[str]) -> None:
    if is_prose(words):
        return
    missing = [str(path.relative_to(ROOT)) for path in own_paths(words) if "{" not in path.name and not path.exists()]
    assert not [name for name in missing if not name.startswith("sweeps/cris-refcoco")], missing
    if words[0] == "make":
        makes(words[1:])
    elif words[0] == "rislab":
        options_exist(words) if words[1] in TRAINING else parses(words)


def parses(words: list[str]) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            options = parser().parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}\n{errors.getvalue()}")
    table = getattr(options, "table", None)
    if isinstance(table, str) and table.islower() and "/" not in table and table not in ("mine", "own"):
        load(ROOT / "ablations" / f"{table}.yaml")


def makes(words: list[str]) -> None:
    targets = re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if "=" in word:
            assert word.partition("=")[0] in (ROOT / "Makefile").read_text(), word
            continue
        family = re.match(r"(ablation|plan|status|watch)-(.+)", word)
        if family and f"{family[1]}-%" in targets:
            assert family[2] == "probe" or (ROOT / "ablations" / f"{family[2]}.yaml").exists(), word
        else:
            assert word in targets, word


def test_something_is_shown() -> None:
    """The search finds commands at all, in the README and elsewhere."""
    assert len(CASES) > 40
    assert {page.name for page, _ in CASES} >= {"README.md", "data.md", "clusters.md", "wandb.md"}


def test_every_config_says_a_command_that_names_it_right() -> None:
    """The head of a config shows how it is run; the path in it is the config's own."""
    for path in sorted((ROOT / "experiments").rglob("*.yaml")):
        head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
        for match in re.finditer(r"--config (\S+\.yaml)", head):
            assert (ROOT / match[1]).exists(), f"{path.relative_to(ROOT)}: {match[1]}"
