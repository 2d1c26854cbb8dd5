"""Pictures of a report: learning curves as inline SVG, masks over images as data URIs. Same inputs, same bytes."""

import base64
import colorsys
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as html_escape
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rislab.printable import printable
from rislab.report.formatting import interval
from rislab.report.results import Cell, Results
from rislab.report.verdicts import Decided, Judged

# Okabe and Ito's colours, and two more: told apart by colour-blind readers, and on light and dark grounds.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#9A8C00", "#8A8A8A", "#7B5EA7")
TRUTH = (0, 158, 115)
PREDICTED = (230, 159, 0)
WIDEST = 260
MOST_PIXELS = 40_000_000
"""Of a picture or mask that is drawn. What trials keep is far smaller."""

MOST_EXAMPLES = 64
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 290, 44, 24, 40, 12


def escape(text: str) -> str:
    """Text inside of markup that is made here."""
    return html_escape(printable(text))


def colour_of(number: int) -> str:
    """`#RRGGBB` of the class or curve with that number: the palette's, and after it hues a golden angle apart, none twice."""
    if number < len(PALETTE):
        return PALETTE[number]
    parts = colorsys.hsv_to_rgb((number * 0.381966) % 1, 0.62, 0.82)
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


@dataclass(frozen=True)
class Curve:
    label: str
    points: Sequence[tuple[int, float]]


def validation_curves(results: Results) -> list[Curve]:
    """The table's first metric on the validation split."""
    return curves(results, results.table.metrics[0], "val/")


def curves(results: Results, metric: str, prefix: str = "") -> list[Curve]:
    """A logged quantity over each row's steps, averaged over the seeds that reached a step.

    Folds have pictures of their own, and so epochs of other lengths: of them the first points are averaged, the second ones, and
    so on as far as all have got that have any.
    """
    found = []
    for row in results.rows:
        by_fold: dict[str, dict[int, list[float]]] = {}
        for last in row.cells:
            cell, bare = last.of(metric)
            for step, value in cell.curve(f"{prefix}{bare}") if cell is not None else ():
                by_fold.setdefault(last.planned.fold, {}).setdefault(step, []).append(value)
        each = [[(step, fmean(values)) for step, values in sorted(at.items())] for at in by_fold.values()]
        points = [
            (round(fmean(step for step, _ in some)), fmean(value for _, value in some))
            for some in zip(*each, strict=False)
        ]
        found.append(Curve(row.row.label, points))
    return found


def line_chart(curves: Sequence[Curve], y_title: str) -> str:
    """An SVG of all curves that have points; an empty string when none has two: one value stands in the table."""
    drawn = [(curve, colour_of(n)) for n, curve in enumerate(curves) if curve.points]
    if all(len(curve.points) < 2 for curve, _ in drawn):
        return ""
    steps = [step for curve, _ in drawn for step, _ in curve.points]
    values = [value for curve, _ in drawn for _, value in curve.points]
    x_end = max(steps) or 1
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / x_end

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} over training steps" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for step in (0, x_end // 2, x_end):
        parts.append(f'<text class="tick" x="{x(step):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{step}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{HEIGHT - 2}" text-anchor="middle">training step</text>')
    for curve, colour in drawn:
        parts.append(f"<g><title>{escape(curve.label)}</title>")
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve.points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        for step, value in curve.points:
            parts.append(
                f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}">'
                f"<title>{escape(curve.label)}, step {step:g}: {value:.2f}</title></circle>"
            )
        parts.append("</g>")
    parts.append("</svg>")
    return "".join(parts)


def legend(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """(colour, label) of the curves that a chart shows."""
    return [(colour_of(n), curve.label) for n, curve in enumerate(curves) if curve.points]


def interval_chart(test: Decided, reach: float) -> str:
    """An SVG of one comparison: its interval and difference on an axis of -reach to reach points, 0 in the middle.

    Right of the line that the difference must exceed (0, or the claim's own margin) is what the claim says.
    """

    def x(value: float) -> float:
        return 90 + 84 * max(-1.0, min(1.0, value / reach))

    zero = '<line class="zero" x1="90" x2="90" y1="0" y2="22"/>' if test.line else ""
    line = x(test.line)
    return (
        f'<svg class="interval {test.decision}" viewBox="0 0 180 22" role="img" aria-label="{escape(interval(test))}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(interval(test))}</title>'
        f'<rect class="side" x="{line:.1f}" y="2" width="{178 - line:.1f}" height="18" rx="3"/>{zero}'
        f'<line class="line" x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="22"/>'
        f'<line class="reach" x1="{x(test.low):.1f}" x2="{x(test.high):.1f}" y1="11" y2="11"/>'
        f'<circle cx="{x(test.difference):.1f}" cy="11" r="4.5"/></svg>'
    )


def reach(judged: Sequence[Judged]) -> float:
    """Half width of the axis that shows all intervals of a table, so that they can be compared by eye."""
    ends = [abs(end) for claim in judged for test in claim.tests for end in (test.low, test.high, test.line)]
    return 1.02 * max(ends, default=1.0) or 1.0


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that span [low, high]."""
    span = max(high - low, 1e-6)
    power = math.floor(math.log10(span / 5))
    step = next(s for s in (m * 10.0**e for e in range(power - 1, power + 3) for m in (1, 2, 5)) if span / s <= 5)
    start = step * math.floor(low / step)
    count = math.ceil((high - start) / step)
    return [float(round(start + step * k, 9)) for k in range(max(count, 1) + 1)]


@dataclass(frozen=True)
class Example:
    """One line of the qualitative grid. Every picture is a data URI; None where a row has no mask."""

    text: str
    image: str
    truth: str
    masks: tuple[tuple[str, str | None, float | None], ...]  # row label, picture, IoU in percent


def examples(results: Results) -> list[Example]:
    """The expressions that the trials kept masks of: picture, truth and what each row said (its first finished seed)."""
    first = results.first_that(Cell.predictions)
    kept = {label: {p["sent_id"]: p for p in cell.predictions()} for label, cell in first if cell is not None}
    source = next((cell for _, cell in first if cell is not None), None)
    if source is None:
        return []
    lines = []
    for wanted in source.predictions()[:MOST_EXAMPLES]:
        # The rest of the report does not hang on a picture.
        image, truth = read_picture(source, wanted["image"], "RGB"), read_mask(wanted["target"])
        if image is None or truth is None:
            continue
        image = _fitted(image, truth.shape)
        masks: list[tuple[str, str | None, float | None]] = []
        for label, _ in first:
            said = kept.get(label, {}).get(wanted["sent_id"])
            mask = read_mask(said["prediction"]) if said is not None else None
            if mask is None or mask.shape != truth.shape:
                masks.append((label, None, None))
                continue
            union = int((mask | truth).sum())
            iou = 100 * int((mask & truth).sum()) / union if union else 0.0
            masks.append((label, data_uri(_tinted(image, mask, PREDICTED)), iou))
        lines.append(Example(wanted["text"], data_uri(image), data_uri(_tinted(image, truth, TRUTH)), tuple(masks)))
    return lines


def read_picture(cell: Cell, name: str, mode: str | None = None) -> NDArray[np.uint8] | None:
    """A picture beside the kept predictions, [h, w] or [h, w, 3]; None for one that is not there, not whole, or far too large.

    Args:
        mode: Pillow's, to convert to; None for a picture as it is.
    """
    path = cell.picture(name)
    if path is None:
        return None
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:  # of the header: nothing has been decoded
                return None
            pixels = np.asarray(picture.convert(mode) if mode else picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return pixels if pixels.dtype == np.uint8 and pixels.ndim in (2, 3) else None


def read_mask(rle: dict[str, Any]) -> NDArray[np.bool_] | None:
    """bool [h, w]; None for one that is not whole, or far too large."""
    size = rle["size"]
    if len(size) != 2 or not 0 < size[0] * size[1] <= MOST_PIXELS or _pixels(rle["counts"]) != size[0] * size[1]:
        return None
    try:
        decoded = coco_mask.decode({"size": size, "counts": rle["counts"].encode()})
    except (ValueError, TypeError):
        return None
    return np.asarray(decoded).astype(bool)


def _pixels(counts: str) -> int | None:
    """What the runs of COCO's compressed counts add up to; None where they are no such text.

    Looked at before anything is decoded: the decoder takes the runs as they come.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            run = value - (1 << shift if code & 16 else 0) + (runs[-2] if len(runs) > 2 else 0)
            if run < 0:
                return None
            runs.append(run)
            value = shift = 0
    return None if shift else sum(runs)


def _fitted(image: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """[h, w, 3] at a mask's size: some conventions compare on a square."""
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _tinted(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The masked part in shades of `colour`, edged, the rest faded grey, so that a mask is seen on any ground."""
    shade = image.mean(axis=2, keepdims=True)
    grey = (shade * 0.45 + 120).repeat(3, axis=2)
    inside = np.array(colour) * (0.55 + 0.6 * shade / 255)
    edge = mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))
    result = np.where(mask[..., None], inside, grey)
    result[edge] = np.array(colour) * 0.45
    return result.clip(0, 255).astype(np.uint8)


def data_uri(image: NDArray[np.uint8]) -> str:
    """A JPEG, at most WIDEST wide."""
    picture = Image.fromarray(image)
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
