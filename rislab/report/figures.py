"""Pictures of a report: learning curves as inline SVG, masks over images as data URIs. Same inputs, same bytes."""

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rislab.report.results import Cell, Results
from rislab.report.text import interval
from rislab.report.verdicts import Decided, Judged

# Okabe and Ito's colours, and two more: told apart by colour-blind readers, and on light and dark grounds.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#9A8C00", "#8A8A8A", "#7B5EA7")
TRUTH = (0, 158, 115)
PREDICTED = (230, 159, 0)
WIDEST = 260
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 290, 44, 24, 40, 12


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
    """A logged quantity over each row's steps, averaged over the seeds that reached a step."""
    found = []
    for row in results.rows:
        at: dict[int, list[float]] = {}
        for last in row.cells:
            cell, bare = last.of(metric)
            for step, value in cell.curve(f"{prefix}{bare}") if cell is not None else ():
                at.setdefault(step, []).append(value)
        found.append(Curve(row.row.label, [(step, sum(v) / len(v)) for step, v in sorted(at.items())]))
    return found


def line_chart(curves: Sequence[Curve], y_title: str) -> str:
    """An SVG of all curves that have points; an empty string when none has."""
    drawn = [(curve, colour_of(n)) for n, curve in enumerate(curves) if curve.points]
    if not drawn:
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
            parts.append(f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>')
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
        'xmlns="http://www.w3.org/2000/svg">'
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
    step = next(s for e in range(-6, 7) for s in (10**e, 2 * 10**e, 5 * 10**e) if span / s <= 5)
    start = step * np.floor(low / step)
    count = int(np.ceil((high - start) / step))
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
    first: list[tuple[str, Cell | None]] = [
        (row.row.label, next((cell for cell in row.done if cell.predictions()), None)) for row in results.rows
    ]
    kept = {label: {p["sent_id"]: p for p in cell.predictions()} for label, cell in first if cell is not None}
    source = next((cell for _, cell in first if cell is not None), None)
    if source is None:
        return []
    lines = []
    for wanted in source.predictions():
        try:
            image = _read(source.planned.trial.path / "predictions" / wanted["image"])
        except OSError:
            continue  # the rest of the report does not hang on a picture
        truth = _mask(wanted["target"])
        masks: list[tuple[str, str | None, float | None]] = []
        for label, _ in first:
            said = kept.get(label, {}).get(wanted["sent_id"])
            if said is None:
                masks.append((label, None, None))
                continue
            mask = _mask(said["prediction"])
            union = int((mask | truth).sum())
            iou = 100 * int((mask & truth).sum()) / union if union else 0.0
            masks.append((label, data_uri(_tinted(image, mask, PREDICTED)), iou))
        lines.append(Example(wanted["text"], data_uri(image), data_uri(_tinted(image, truth, TRUTH)), tuple(masks)))
    return lines


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    decoded = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    return np.asarray(decoded).astype(bool)


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
