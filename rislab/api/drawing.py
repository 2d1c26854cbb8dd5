"""Masks over a picture, with a legend."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from rislab.report.figures import colour_of

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SMALLEST_SIDE = 480
"""Of a drawing, in pixels; also the side at which lines and letters have their basic sizes."""
FONT, LINE, MARGIN, SWATCH, OUTLINE = 16, 24, 8, 16, 2
"""Basic sizes in pixels, of a picture whose shorter side is `SMALLEST_SIDE`."""


def unit(height: int, width: int) -> float:
    """The factor by which lines and letters of a picture are larger than the basic sizes: those of a photo stay readable."""
    return max(1.0, min(height, width) / SMALLEST_SIDE)


def overlay(image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]], texts: Sequence[str]) -> Image.Image:
    """A picture with each mask tinted and outlined, and a legend below. Small pictures are enlarged.

    Args:
        image: uint8 RGB [h, w, 3].
        masks: bool [h, w] each.
        texts: One for each mask.
    """
    scale = max(1, round(SMALLEST_SIDE / min(image.shape[:2])))
    large = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    picture = _tinted(large, [np.repeat(np.repeat(mask, scale, axis=0), scale, axis=1) for mask in masks])
    said = [text if mask.any() else f"{text} (nothing found)" for mask, text in zip(masks, texts, strict=True)]
    return _with_legend(picture, said, range(len(said)))


def captioned(image: NDArray[np.uint8], mask: NDArray[np.bool_], texts: Sequence[str]) -> Image.Image:
    """RGB [h, w, 3], faded but for one mask [h, w], and every text that means it below."""
    said = texts if mask.any() else [f"{text} (nothing meant)" for text in texts]
    grey = image.mean(axis=2, keepdims=True) * 0.35 + 150
    faded = np.where(mask[..., None], image, grey).astype(np.uint8)
    return _with_legend(_outlined(faded, mask), said, [0] * len(said))


def _outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    drawn = cv2.drawContours(image.copy(), outline, -1, ImageColor.getrgb(colour_of(0)), thickness=_thickness(image))
    return Image.fromarray(np.asarray(drawn, np.uint8))


def _thickness(image: NDArray[np.uint8]) -> int:
    return round(OUTLINE * unit(*image.shape[:2]))


def _tinted(image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]) -> Image.Image:
    canvas = image.astype(np.float32)
    for number, mask in enumerate(masks):
        tint = np.array(ImageColor.getrgb(colour_of(number)), np.float32)
        canvas[mask] = 0.55 * canvas[mask] + 0.45 * tint
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, outline, -1, tint.tolist(), thickness=_thickness(image))
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _with_legend(picture: Image.Image, texts: Sequence[str], colours: Sequence[int]) -> Image.Image:
    scale = unit(picture.height, picture.width)
    font = ImageFont.load_default(FONT * scale)
    line, margin, swatch = (round(size * scale) for size in (LINE, MARGIN, SWATCH))
    left, gap = margin + swatch + round(10 * scale), (line - swatch) // 2
    sheet = Image.new("RGB", (picture.width, picture.height + line * len(texts) + 2 * margin), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        y = picture.height + margin + number * line
        draw.rectangle((margin, y + gap, margin + swatch, y + gap + swatch), fill=colour_of(colour))
        said = _fit(draw, text, font, sheet.width - margin - left)
        draw.text((left, y + round(2 * scale)), said, fill="black", font=font)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """The text on one line, cut with an ellipsis where it does not fit."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
