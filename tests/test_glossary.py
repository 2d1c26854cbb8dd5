"""Words that docs/glossary.md lists as not used are not used, in code, tests or docs."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = (".py", ".md", ".yaml", ".toml", ".html", "Makefile")
HISTORY = {"CHANGELOG.md", "docs/glossary.md"}
NAMES = "rislab/data/names/"
"""Class names of benchmarks: a house is a class."""


def not_used() -> list[str]:
    """The first column of the table under "Not used"."""
    _, _, section = (ROOT / "docs" / "glossary.md").read_text().partition("## Not used")
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return [word.strip() for row in rows[1:] for word in row.split(",")]


def test_no_word_of_the_list_is_used() -> None:
    words = not_used()
    assert "house" in words
    pattern = re.compile(rf"(?<![A-Za-z.])({'|'.join(words)})s?(?![A-Za-z])", re.IGNORECASE)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    used = [
        f"{name}:{number}: {match[0]}"
        for name in tracked
        if name.endswith(SUFFIXES) and name not in HISTORY and not name.startswith(NAMES) and (ROOT / name).exists()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        for match in pattern.finditer(line)
        if name != "tests/test_glossary.py"
    ]
    assert not used, "\n".join(used)
