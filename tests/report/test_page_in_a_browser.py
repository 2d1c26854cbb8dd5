"""Report pages in a real browser, on a telephone, a tablet and a screen, light and dark, and on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.cli.main import main
from tests.browse.chromium import chromium
from tests.report.trials import finish, planned_table
from tests.worlds import ROOT

WIDTHS = (390, 900, 1440)

WIDER = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = node => node && (["auto", "scroll"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter(node => node.getBoundingClientRect().right > width + 1 && !scrolls(node.parentElement))
    .map(node => `${node.tagName}.${node.className}: ${node.textContent.trim().slice(0, 40)}`);
}"""
"""Elements that reach beyond the window and lie in nothing that scrolls."""

CONTRAST = """() => {
  const bright = text => {
    const values = text.match(/[\\d.]+/g).map(Number);
    const [r, g, b] = values.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [one, two] = ["color", "backgroundColor"].map(name => bright(getComputedStyle(document.body)[name]));
  return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=["cris", "risclip"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole table of ours whose trials are made up."""
    folder = tmp_path_factory.mktemp(request.param)
    content = yaml.safe_load((ROOT / "ablations" / f"{request.param}.yaml").read_text())
    content["profiles"]["toy"]["split"] = "val"  # the one that made-up trials have
    file = folder / f"{request.param}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    for number, cell in enumerate(planned_table(file, folder / "runs", [0, 1, 2])[1]):
        if cell.state != "done":
            finish(cell, 0.01 * number)
    seeds = ["--seeds", "3", "--runs", str(folder / "runs"), "--out", str(folder)]
    assert main(["ablate", "report", str(file), *seeds]) == 0
    return next(folder.rglob("report.html"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_all_can_be_read(browser: Any, report: Path, width: int, scheme: str) -> None:
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDER) == []
        assert page.evaluate(CONTRAST) > 7
        assert not faults


def test_it_can_be_printed(browser: Any, report: Path, tmp_path: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1040, "height": 1470})
        assert page.evaluate(WIDER) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") in (
            "rgb(255, 255, 255)",
            "rgba(0, 0, 0, 0)",
        )
        page.pdf(path=tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").stat().st_size > 10_000


def test_the_papers_column_stands_beside_ours_on_a_telephone(browser: Any, report: Path) -> None:
    """Without a touch; the other columns are one touch away."""
    with browser.new_context(viewport={"width": 390, "height": 900}) as context:
        page = context.new_page()
        page.goto(report.as_uri())
        seen = page.locator(".main tbody td:visible")
        right = [each["x"] + each["width"] for each in (cell.bounding_box() for cell in seen.all())]
        assert max(right) <= 390
        assert page.locator(".main tbody td.paper:visible").count() > 0
        few = seen.count()
        page.check("#all-columns")
        assert seen.count() > few


def test_numbers_are_told_in_full_to_a_pointer(browser: Any, report: Path) -> None:
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.goto(report.as_uri())
        titles = page.eval_on_selector_all(".main td[title]", "cells => cells.map(cell => cell.title)")
        assert all("over 3 seeds, standard deviation" in title for title in titles)
        assert len(titles) > 6
        assert page.locator(".chart circle title").count() > 0
        chart = page.locator(".chart").first.bounding_box()
        assert chart["width"] > 500
