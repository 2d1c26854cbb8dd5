"""Code blocks of README and docs, and the commands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.worlds import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"(?:^|[ ;])needs (?P<what>[a-z][\w\[\] ]*)$")
"""The mark of what no test executes, at the end of a comment: behind a command, or alone in the first line of its block."""


@dataclass(frozen=True)
class Command:
    """A line of a shell block.

    Attributes:
        text: without its comment; continued lines are one.
        needs: what its mark says, or "".
    """

    text: str
    needs: str


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: that shows it.
        line: of its first line in the page.
        language: behind the fence.
        text: between the fences.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[Command]:
        """Those of a shell block; the mark of the block is each one's."""
        of_block = ""
        for number, line in enumerate(self.text.replace("\\\n", " ").splitlines()):
            if line.startswith("#"):
                of_block = _mark(line) if number == 0 else of_block
                continue
            command, _, comment = (part.strip() for part in re.sub(r"\s+#\s", "\0", line, count=1).partition("\0"))
            if command:
                yield Command(command, _mark(comment) or of_block)


def _mark(comment: str) -> str:
    found = NEEDS.search(comment.removeprefix("#").strip())
    return found["what"] if found else ""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["language"], found["text"])
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text())
