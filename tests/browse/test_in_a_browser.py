"""The pages of `rislab ablate browse`, opened from disk in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rislab.browse.contents import Contents
from rislab.browse.write import write
from rislab.data import masks
from rislab.report.statistics import Sums, critical, image_variance
from tests.browse.chromium import chromium
from tests.browse.made import made

FIRST_PAINT = 1000
"""Milliseconds until all cards of the first page stand there."""
FILTER = 100
"""Milliseconds from an input to the frame after it."""
TYPED = """([id, value]) => new Promise((resolve) => {
  const began = performance.now(), field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
})"""

PAINTED = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((value, at) => at % 4 === 3 && value > 0).length;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, Path]:
    folder = tmp_path_factory.mktemp("toy")
    shown = made(folder / "source", units=1536, pictures=512, rows=7)
    return shown, write(shown, folder / "browse", "copy")


@pytest.fixture
def page(browser: Any, table: tuple[Contents, Path]) -> Iterator[Any]:
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        opened = context.new_page()
        faults: list[str] = []
        requests: list[str] = []
        opened.on("pageerror", lambda error: faults.append(str(error)))
        opened.on("request", lambda request: requests.append(request.url))
        yield opened
        assert not faults
        assert all(url.startswith("file://") for url in requests), "nothing comes from a network"


def opened(page: Any, file: Path, view: str = "") -> Any:
    page.goto(f"{file.as_uri()}{view}")
    page.wait_for_function("document.body.dataset.ready !== undefined")
    return page


def shown_numbers(page: Any) -> list[int]:
    return [int(each) for each in page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.unit)")]


def test_a_toy_table_is_small_and_quick(page: Any, table: tuple[Contents, Path]) -> None:
    _, file = table
    total = sum(each.stat().st_size for each in file.parent.rglob("*") if each.is_file())
    assert total < 8_000_000
    stands = "performance.getEntriesByType('paint').find(each => each.name === 'first-contentful-paint').startTime"
    firsts = []
    for _ in range(3):  # other processes of the machine may come between
        opened(page, file)
        assert page.locator(".card").count() == 20
        firsts.append(page.evaluate(f"Math.max({stands}, Number(document.body.dataset.ready))"))
    filters = [page.evaluate(TYPED, ["q", text]) for text in ("red", "red -left", '"small circle"', "", "s")]
    sorts = [page.evaluate(TYPED, ["sort", by]) for by in ("most", "a-worst", "gain")]
    print(
        f"{total / 1e6:.2f} MB, first page {min(firsts):.0f} ms, filters {max(filters):.0f} ms, orders {max(sorts):.0f} ms"
    )
    assert min(firsts) < FIRST_PAINT
    assert sorted(filters + sorts)[len(filters + sorts) // 2] < FILTER


def test_numbers_are_those_of_the_report(page: Any, table: tuple[Contents, Path]) -> None:
    shown, file = table
    opened(page, file, "#a=r6&b=r1&q=red&length=3-4%7C5-7&position=with")
    chosen = [
        n
        for n, unit in enumerate(shown.units)
        if any(word.startswith("red") for word in unit.text.split()) and 3 <= unit.words <= 7 and unit.has_position
    ]
    assert 20 < len(chosen) < 1000
    a, b = (np.rint(100 * shown.entries[at].scores[chosen]) / 100 for at in (6, 1))
    picture = np.unique([shown.units[n].picture for n in chosen], return_inverse=True)[1]
    top = np.bincount(picture, weights=a - b)[:, None]
    left = Sums(top, np.bincount(picture).astype(float)[:, None]).without_each() / 100
    half = critical(0.05, len(left) - 1) * image_variance(left).value ** 0.5
    text = page.locator("#summary").inner_text().replace("−", "-")
    mean = (a - b).mean()
    assert f"{len(chosen):,} of 1,536 shown, in {len(left)} pictures" in text
    assert (
        f"row 6 {a.mean():.2f}, row 1 {b.mean():.2f}; A - B {mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"
        in text
    )
    assert f"A is better in {(a > b).sum()}, B in {(a < b).sum()}, equal in {(a == b).sum()}" in text
    order = sorted(range(len(chosen)), key=lambda n: (-(a - b)[n].round(2), chosen[n]))
    assert shown_numbers(page) == [chosen[n] for n in order[:20]]


def test_masks_are_the_ones_that_were_kept(page: Any, table: tuple[Contents, Path]) -> None:
    shown, file = table
    opened(page, file)
    few = masks.to_json(masks.encode(np.eye(5, 4, dtype=bool)))["counts"]
    for counts, size in ((shown.units[0].target, (96, 96)), (shown.entries[3].masks[7], (96, 96)), (few, (5, 4))):
        got = page.evaluate("([counts, height, width]) => [...Masks.decode(counts, height, width)]", [counts, *size])
        assert got == masks.decode({"size": list(size), "counts": counts.encode()}).ravel().tolist()
    page.wait_for_selector(".card[data-drawn]")
    first = page.locator(".card").first
    assert first.locator("canvas").count() == 4
    unit = shown_numbers(page)[0]
    drawn = first.locator('[data-what="truth"] canvas').evaluate(PAINTED)
    assert drawn == masks.area({"size": [96, 96], "counts": shown.units[unit].target.encode()})


def test_a_view_is_its_url(page: Any, table: tuple[Contents, Path]) -> None:
    _, file = table
    opened(page, file)
    page.select_option("#a", label="row 2 (r2)")
    page.select_option("#sort", "most")
    page.fill("#q", "circle -left")
    page.click("#filters summary")
    page.check('input[name="error-a"][value="2"]')
    page.get_by_role("button", name="next →").click()
    first, numbers, summary = page.url, shown_numbers(page), page.locator("#summary").inner_text()
    assert "#" in first
    page.goto("about:blank")
    page.goto(first)
    page.wait_for_function("document.body.dataset.shown !== undefined")
    assert shown_numbers(page) == numbers
    assert page.locator("#summary").inner_text() == summary
    assert page.url == first
    page.evaluate("location.hash = '#a=nonsense&b=&seed=99&sort=up&page=7000&length=none&open=-4'")
    page.wait_for_function("Number(document.body.dataset.shown) === 1536")
    assert len(shown_numbers(page)) == 16


def test_keys_alone_are_enough(page: Any, table: tuple[Contents, Path]) -> None:
    _, file = table
    opened(page, file)
    first, second = shown_numbers(page)[:2]
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.locator("#detail[open]").count() == 1
    assert f"open={second}" in page.url
    assert page.locator("#detail .others .panel").count() == 7
    page.keyboard.press("p")
    assert f"open={first}" in page.url
    page.keyboard.press("Escape")
    page.wait_for_function("!location.hash.includes('open=')")
    page.keyboard.press("n")
    assert "page=2" in page.url
    page.keyboard.press("x")
    assert page.input_value("#a") == "0"
    page.keyboard.press("/")
    page.keyboard.type("star n")
    assert page.input_value("#q") == "star n"
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    assert page.input_value("#q") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1440])
def test_every_screen(browser: Any, table: tuple[Contents, Path], width: int, scheme: str) -> None:
    _, file = table
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:
        page = opened(context.new_page(), file)
        page.wait_for_selector(".card[data-drawn]")
        inside = "document.documentElement.scrollWidth <= window.innerWidth"
        assert page.evaluate(inside)
        page.click("#filters summary")
        assert page.evaluate(inside)
        ink, ground = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        light = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, ground)]
        assert (light[0] < light[1]) == (scheme == "light")
        page.locator(".card").first.click()
        assert page.locator("#detail[open]").count() == 1
        assert page.evaluate(
            "document.getElementById('detail').scrollWidth <= document.getElementById('detail').clientWidth"
        )


def test_texts_are_texts(browser: Any, tmp_path: Path) -> None:
    shown = made(tmp_path / "source", units=3, pictures=2, rows=2)
    evil = "<img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"
    units = [type(unit)(**{**vars(unit), "text": evil}) for unit in shown.units]
    content = type(shown)(**{**vars(shown), "units": units, "title": evil, "notes": (evil,)})
    with browser.new_context() as context:
        page = opened(context.new_page(), write(content, tmp_path / "browse"))
        assert page.locator("h1").inner_text() == evil
        assert page.title() == evil
        assert page.locator("img[src=x]").count() == 0


def test_all_seeds_are_a_mean(browser: Any, tmp_path: Path) -> None:
    shown = made(tmp_path / "source", units=40, pictures=10, rows=2, seeds=3)
    with browser.new_context() as context:
        page = opened(context.new_page(), write(shown, tmp_path / "browse"))
        mean = np.mean([entry.scores for entry in shown.entries if entry.row == "r1"])
        assert f"row 1 {mean:.2f}" in page.locator("#summary").inner_text()
        page.select_option("#seed", "2")
        one = np.mean([entry.scores for entry in shown.entries if entry.row == "r1" and entry.seed == 2])
        assert f"row 1 {one:.2f}" in page.locator("#summary").inner_text()
        assert "seed=2" in page.url
