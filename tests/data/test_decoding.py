"""Pictures, masks and label maps in every form in which tools write them: read as meant, or refused by name and mode."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from rislab.data import decoding
from rislab.data.decoding import Expected, label_map, mask, picture
from rislab.errors import DataError

MASK = np.zeros((6, 9), np.bool_)
MASK[1:4, 2:7] = True
SIZE = Expected(6, 9, "the image has")
VALUES = MASK.astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(stored: np.ndarray, depth: int, colour: int, *extra: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of exactly these samples: uint8 or uint16 [h, w] or [h, w, c], of `depth` bits, in PNG's colour type."""
    height, width = size or stored.shape[:2]
    rows = []
    for row in stored:
        if depth == 16:
            rows.append(row.astype(">u2").tobytes())
        elif depth == 8:
            rows.append(row.astype(np.uint8).tobytes())
        else:
            bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            rows.append(np.packbits(bits.astype(np.uint8).ravel()).tobytes())
    about = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def channels(*planes: Any) -> np.ndarray:
    return np.stack([np.broadcast_to(plane, MASK.shape) for plane in planes], -1)


WHITE_BLACK = chunk(b"PLTE", bytes([255, 255, 255, 0, 0, 0]))

GOOD_MASKS = {
    "1 bit": png(VALUES, 1, 0),
    "2 bits": png(VALUES * 3, 2, 0),
    "4 bits, value 1": png(VALUES, 4, 0),
    "grey, 0 and 1": png(VALUES, 8, 0),
    "grey, 0 and 255": png(VALUES * 255, 8, 0),
    "grey, soft edge": png(np.where(MASK, np.arange(1, 10, dtype=np.uint8), 0), 8, 0),
    "16 bits, value 1": png(VALUES, 16, 0),
    "palette, index 0 is white": png(VALUES, 8, 3, WHITE_BLACK),
    "palette of 1 bit": png(VALUES, 1, 3, WHITE_BLACK),
    "palette, opaque": png(VALUES, 8, 3, WHITE_BLACK, chunk(b"tRNS", b"\xff\xff")),
    "RGB": png(channels(VALUES * 255, VALUES * 255, VALUES * 255), 8, 2),
    "RGB of 16 bits, value 1": png(channels(VALUES, VALUES, VALUES), 16, 2),
    "red on black": png(channels(VALUES * 200, 0, 0), 8, 2),
    "RGBA, opaque": png(channels(VALUES, VALUES, VALUES, 255), 8, 6),
    "grey and opacity, half clear everywhere": png(channels(VALUES, 128), 8, 4),
}

BAD_MASKS = {
    "RGBA, the mask in opacity": (png(channels(255, 255, 255, VALUES * 255), 8, 6), "mode RGBA, and its opacity"),
    "RGBA, clear everywhere": (png(channels(255, 255, 255, 0), 8, 6), "mode RGBA, and its opacity"),
    "grey and opacity": (png(channels(255, VALUES * 255), 8, 4), "mode LA .*, and its opacity"),
    "grey and opacity of 16 bits": (png(channels(9, VALUES), 16, 4), "mode LA .*, and its opacity"),
    "palette, index 1 is clear": (
        png(VALUES, 8, 3, WHITE_BLACK, chunk(b"tRNS", b"\xff\x00")),
        "mode palette with a clear colour",
    ),
    "grey, 0 is clear": (png(VALUES, 8, 0, chunk(b"tRNS", b"\0\0")), "mode grey with a clear colour"),
    "RGB, black is clear": (
        png(channels(VALUES, VALUES, VALUES), 8, 2, chunk(b"tRNS", bytes(6))),
        "mode RGB with a clear",
    ),
    "two colours": (png(channels(VALUES * 9, np.eye(6, 9) * 9 * VALUES, 0), 8, 2), "several colours"),
    "other size": (png(VALUES[:5], 8, 0), r"9x5 pixels, the image has 9x6"),
    "no picture": (b"text", "not a readable picture"),
    "nothing": (b"", r"not a readable picture \(empty file\)"),
}


@pytest.mark.parametrize("name", GOOD_MASKS)
def test_a_mask_is_the_same_in_every_form(name: str) -> None:
    np.testing.assert_array_equal(mask(GOOD_MASKS[name], "7.png", SIZE), MASK)


@pytest.mark.parametrize("name", BAD_MASKS)
def test_where_a_mask_cannot_be_told_the_file_and_its_mode_are(name: str) -> None:
    data, message = BAD_MASKS[name]
    with pytest.raises(DataError, match=rf"^7\.png: .*{message}"):
        mask(data, "7.png", SIZE)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_lossy_masks_are_refused() -> None:
    with pytest.raises(DataError, match="a mask is a PNG, this is JPEG"):
        mask(encoded(Image.fromarray(VALUES * 255), "JPEG"), "7.png", SIZE)
    with pytest.raises(DataError, match="a label map is a PNG, this is JPEG"):
        label_map(encoded(Image.fromarray(VALUES), "JPEG"), "a.png")


@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (1, 3), (2, 3), (4, 3), (8, 3)])
def test_a_label_map_holds_its_stored_values(depth: int, colour: int) -> None:
    stored = np.arange(54).reshape(6, 9) % min(2**depth, 200)
    extra = [chunk(b"PLTE", bytes(3 * 2**depth)), chunk(b"tRNS", b"\0")] if colour == 3 else []
    np.testing.assert_array_equal(label_map(png(stored, depth, colour, *extra), "a.png"), stored)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(channels(VALUES, VALUES, VALUES), 8, 2), "one byte a pixel, this one is RGB"),
        (png(channels(VALUES, 255), 8, 4), "one byte a pixel, this one is LA"),
        (png(VALUES.astype(np.uint16) * 300, 16, 0), "value 300 is no label"),
        (png(VALUES, 8, 0)[:-20], "not a readable label map .*truncated or damaged PNG"),
        (png(VALUES.T, 8, 0), r"6x9 pixels, its picture p\.jpg has 9x6"),
    ],
)
def test_what_is_no_label_map_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.png: .*{message}"):
        label_map(data, "a.png", Expected(6, 9, "its picture p.jpg has"))


PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), (50, 40))


@pytest.mark.parametrize("value", range(1, 9))
def test_a_photo_is_turned_as_viewers_do_and_a_picture_of_a_data_set_is_not(value: int) -> None:
    image = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(image, "JPEG", quality=95, exif=exif)
    stored = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(picture(data, "p.jpg"), stored)
    turned = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(picture(data, "p.jpg", upright=True), turned)


def test_every_mode_becomes_rgb() -> None:
    image = Image.fromarray(PIXELS)
    grey = np.array(image.convert("L"))
    files = {
        "grey": (encoded(image.convert("L"), "PNG"), channels_of(grey)),
        "palette": (encoded(image.convert("P"), "PNG"), np.array(image.convert("P").convert("RGB"))),
        "16 bits": (png(PIXELS.astype(np.uint16) * 257, 16, 2), PIXELS),
        "half clear": (encoded(Image.fromarray(np.dstack([PIXELS, grey])), "PNG"), PIXELS),
        "webp": (encoded(image, "WEBP", lossless=True), PIXELS),
        "bmp": (encoded(image, "BMP"), PIXELS),
    }
    for name, (data, expected) in files.items():
        np.testing.assert_array_equal(picture(data, name), expected, err_msg=name)
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=98)
    difference = picture(cmyk, "cmyk").astype(int) - np.array(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    assert abs(difference).max() <= 2


def channels_of(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_half_a_picture_is_no_picture(kind: str) -> None:
    image = Image.fromarray(PIXELS)
    data = encoded(image.convert("P") if kind == "GIF" else image, kind)
    for share in (0.3, 0.5, 0.9):
        with pytest.raises(DataError, match=r"^cut: not a readable image \("):
            picture(data[: int(len(data) * share)], "cut", noun="image")
    appended = encoded(image, "JPEG") + b"a program's own data"
    np.testing.assert_array_equal(picture(appended, "whole"), picture(encoded(image, "JPEG"), "whole"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes the reader's own filter
def test_a_header_is_judged_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", fail)
    large = png(np.zeros((1, 1), np.uint8), 8, 0, size=(12_000, 12_000))
    huge = png(np.zeros((1, 1), np.uint8), 8, 0, size=(60_000, 60_000))
    readers: list[Callable[[bytes], object]] = [
        lambda data: picture(data, "f", SIZE),
        lambda data: mask(data, "f", SIZE),
        lambda data: label_map(data, "f", SIZE),
    ]
    for read in readers:
        with pytest.raises(DataError, match=r"f: 12000x12000 pixels, the image has 9x6"):
            read(large)
        with pytest.raises(DataError, match=r"f: more than \d+ pixels by its header"):
            read(huge)
    with pytest.raises(DataError, match="more than"):
        picture(huge, "f")


def test_opencv_s_errors_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, "imdecode", fail)
    data = encoded(Image.fromarray(PIXELS), "PNG")
    with pytest.raises(DataError, match="f: not a readable picture"):
        picture(data, "f")
    with pytest.raises(DataError, match="f: not a readable picture"):
        mask(GOOD_MASKS["grey, 0 and 1"], "f", SIZE)
    assert decoding.orientation(b"no picture") == 1
