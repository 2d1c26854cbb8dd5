"""`rislab demo` in a real browser: the masks of the command line, a second method beside it, and mistakes in one line."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.api.checkpoints import write
from tests.browse.chromium import chromium
from tests.methods.every import factories
from tests.worlds import rislab, rislab_here

pytest.importorskip("gradio", reason="gradio is not installed: the demo was not opened")
TEXTS = ["the red circle", "left star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phone's photo, which lies on its side, and two checkpoints."""
    folder = tmp_path_factory.mktemp("demo")
    write(factories()["cris"], folder / "one.ckpt")
    write(factories()["maskclip"], folder / "two.ckpt")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path, free_ports: Callable[[], int]) -> Iterator[Any]:
    command = [sys.executable, "-m", "rislab.cli.main", "demo", "one.ckpt", "two.ckpt", "--port", str(free_ports())]
    with chromium() as browser:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "http" in line), "")
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert address, line
            with browser.new_context() as context:
                opened = context.new_page()
                others: list[str] = []
                opened.on("request", lambda request: others.append(request.url))
                opened.goto(address[0])
                yield opened
                outside = [url for url in others if not url.startswith((address[0], "data:", "blob:"))]
                assert not outside, "the page works without a network"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def test_it_gives_the_masks_of_the_command_line(page: Any, folder: Path) -> None:
    page.set_input_files("input[type=file]", folder / "photo.jpg")
    page.get_by_label("texts, one a line").fill("\n".join(TEXTS))
    page.get_by_role("button", name="segment").click()
    page.wait_for_function("document.querySelectorAll('img').length >= 3", timeout=60_000)
    for name in ("one.ckpt", "two.ckpt"):
        done = rislab("segment", str(folder / "photo.jpg"), *TEXTS, "--checkpoint", str(folder / name), "--json", "-")
        found = json.loads(done.stdout)
        assert any(entry["area"] for entry in found)
        expected = [entry["segmentation"]["counts"] for entry in found]
        shown = page.locator("body").inner_text()
        assert all(counts in shown for counts in expected)


def test_mistakes_are_one_line(folder: Path) -> None:
    for words, said in (
        (["gone.ckpt"], "gone.ckpt"),
        (["one.ckpt", "one.ckpt"], "given twice"),
        (["one.ckpt", "--port", "99999"], "--port 99999: expected 1 to 65535"),
        (["one.ckpt", "--host", "192.0.2.1"], "--host 192.0.2.1: Cannot assign requested address"),
        (["one.ckpt", "--host", "a" * 99 + "."], "--host aaa"),
    ):
        wrong = rislab_here("demo", *words, cwd=folder)
        assert wrong.returncode == 2
        assert said in wrong.stderr
        assert wrong.stderr.count("\n") == 1
