"""The documentation site builds without a warning, and has what it makes from the source."""

import os
import re
import subprocess
import sys
from pathlib import Path

import rislab
from rislab.ablation import signature
from rislab.report import reference_pages
from tests.worlds import ROOT


def test_it_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for name in signature.methods():
        page = (tmp_path / "methods" / name / "index.html").read_text()
        assert all(f"<code>{option}</code>" in page for option in signature.read(signature.methods()[name]).options)
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text()
    assert "rislab ablate export-sweep" in commands
    assert "margin_of_interest" in (tmp_path / "reference" / "table-schema" / "index.html").read_text()
    api = (tmp_path / "reference" / "api" / "index.html").read_text()
    assert all(f">rislab.{name}<" in api for name in rislab.__all__ if name not in ("__version__", "RislabError"))
    assert "make ablation-cris" in (tmp_path / "index.html").read_text()


def test_every_option_of_every_method_is_described() -> None:
    """The page of a method has a meaning for each option: none is left without a word."""
    for name, class_path in signature.methods().items():
        page = reference_pages.method_page(name, class_path, ROOT / "experiments")
        rows = re.findall(r"^\| `(\w+)` \|.*?\| ([^|]*) \| [^|]* \|$", page, re.MULTILINE)
        assert not [option for option, meaning in rows if not meaning.strip()], name


def test_a_line_may_describe_several_options() -> None:
    summary, meanings = reference_pages.described(
        "A.\n\nArgs:\n    one, two: of both,\n        long.\n    three: alone.\n\nRaises:\n    X: y."
    )
    assert summary == "A."
    assert meanings == {"one": "of both, long.", "two": "of both, long.", "three": "alone."}


def test_a_list_in_a_docstring_is_a_list_of_its_own() -> None:
    text = reference_pages.as_markdown("Ours:\n- one\n  goes on\n- two\nAfter.")
    assert text == "Ours:\n\n- one\n  goes on\n- two\n\nAfter."
