"""Masks over a picture, with a legend."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from rislab.report.figures import colour_of

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SMALLEST_SIDE = 480
MARGIN = 8


def overlay(image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]], texts: Sequence[str]) -> Image.Image:
    """RGB [h, w, 3] with each mask [h, w] tinted and outlined, and a legend below. Small pictures are enlarged."""
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
    return Image.fromarray(
        np.asarray(cv2.drawContours(image.copy(), outline, -1, ImageColor.getrgb(colour_of(0)), thickness=2), np.uint8)
    )


def _tinted(image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]) -> Image.Image:
    canvas = image.astype(np.float32)
    for number, mask in enumerate(masks):
        tint = np.array(ImageColor.getrgb(colour_of(number)), np.float32)
        canvas[mask] = 0.55 * canvas[mask] + 0.45 * tint
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, outline, -1, tint.tolist(), thickness=2)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _with_legend(picture: Image.Image, texts: Sequence[str], colours: Sequence[int]) -> Image.Image:
    font = ImageFont.load_default(16)
    line = 24
    sheet = Image.new("RGB", (picture.width, picture.height + line * len(texts) + 2 * MARGIN), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        y = picture.height + MARGIN + number * line
        draw.rectangle((MARGIN, y + 4, MARGIN + 16, y + 20), fill=colour_of(colour))
        draw.text((MARGIN + 26, y + 2), _fit(draw, text, font, sheet.width - 2 * MARGIN - 26), fill="black", font=font)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """The text on one line, cut with an ellipsis where it does not fit."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
