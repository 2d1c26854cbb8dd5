"""From the bytes of a file to pixels: one reader for pictures, one for masks, one for label maps.

Each looks at the header first (format, mode, size) and decodes only what has the expected size and at most `MAX_PIXELS`
pixels; a file that ends early or is damaged is refused. docs/data.md has the table of what each reader does with palettes,
opacity, 16 bits and orientation. Whatever Pillow or OpenCV raises becomes a DataError that begins with the file's name.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rislab.errors import DataError

MAX_PIXELS = 2 * 89_478_485
"""Above this Pillow refuses a header as a decompression bomb; 179 megapixels are 540 MB of RGB."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # half of that is only warned of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise for files that are no picture, or only a part of one."""
_ORIENTATION = 0x0112
_GREY, _RGB, _PALETTE, _OPACITY = 0, 2, 3, 4  # PNG's colour types; 4 is a bit of 4 (grey) and 6 (RGB)
_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "LA (grey and opacity)", 6: "RGBA"}
_SCALE = {1: 255, 2: 85, 4: 17}
"""What decoders multiply grey samples of so many bits by."""


@dataclass(frozen=True)
class Expected:
    """A size in pixels that a file must have; said: the words before it in the error, `instances.json says`."""

    height: int
    width: int
    said: str


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels: Pillow's names of format and mode; the stored size, not turned."""

    format: str
    mode: str
    height: int
    width: int


def header(data: bytes, where: str, expected: Expected | None = None, noun: str = "picture") -> Header:
    """Read the header of a picture; nothing is decoded.

    Args:
        where: begins the error.
        noun: what the file should be.

    Raises:
        DataError: No picture of `FORMATS`, more than `MAX_PIXELS`, another size than expected.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            found = Header(str(picture.format), picture.mode, picture.height, picture.width)
    except Image.DecompressionBombError:
        raise DataError(f"{where}: more than {MAX_PIXELS} pixels by its header: not decoded") from None
    except UnidentifiedImageError:
        reason = f"{len(data)} bytes of no known format" if data else "empty file"
        raise DataError(f"{where}: not a readable {noun} ({reason})") from None
    except _BROKEN as error:
        raise DataError(f"{where}: not a readable {noun} ({error})") from None
    _agree(found, where, expected)
    if found.height * found.width > MAX_PIXELS:
        raise DataError(f"{where}: {found.width}x{found.height} pixels, at most {MAX_PIXELS} are decoded")
    return found


def _agree(found: Header, where: str, expected: Expected | None) -> None:
    if expected is not None and (found.height, found.width) != (expected.height, expected.width):
        size = f"{found.width}x{found.height}"
        raise DataError(f"{where}: {size} pixels, {expected.said} {expected.width}x{expected.height}")


def picture(
    data: bytes, where: str, expected: Expected | None = None, upright: bool = False, noun: str = "picture"
) -> NDArray[np.uint8]:
    """A picture as uint8 RGB [h, w, 3], whatever its mode; opacity is dropped, 16 bits become their upper 8.

    drawn on pictures as they are stored.

    Args:
        expected: of the stored size.
        upright: turn it as its EXIF orientation says, as viewers do; annotations of data sets are

    Raises:
        DataError: What `header` refuses, truncated or damaged, numbers of 32 bits.
    """
    found = header(data, where, expected, noun)
    if found.mode in ("F", "I"):
        raise DataError(f"{where}: pixels of 32 bits (mode {found.mode}); a picture has 8 or 16")
    _refuse_damaged(data, where, found, noun)
    image = _by_opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[:2] != (found.height, found.width):
        raise DataError(f"{where}: not a readable {noun} ({len(data)} bytes)")
    rgb: NDArray[np.uint8] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    return _turned(rgb, orientation(data)) if upright and found.format != "TIFF" else rgb  # decoders turn TIFF


def orientation(data: bytes) -> int:
    """EXIF orientation of a picture, 1 to 8; 1 (as stored) without one, or where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            value = opened.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def mask(data: bytes, where: str, expected: Expected) -> NDArray[np.bool_]:
    """The mask in a PNG, bool [h, w]: any stored value but 0 is foreground.

    Of a palette the index counts, not its colour. RGB must have three equal channels, or one colour beside black.

    Raises:
        DataError: What `header` refuses, another format (JPEG has no clean edges), damaged, several colours, opacity that differs
            between pixels or is 0 everywhere.
    """
    found = header(data, where, noun="picture")
    depth, colour = _png(data, where, found, "mask")
    _agree(found, where, expected)
    stored: NDArray[Any]
    opacity: NDArray[Any] | None
    if colour == _PALETTE:
        stored, opacity = _indices(data, where, "mask")
    else:
        decoded = _by_opencv(data, cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.shape[:2] != (found.height, found.width):
            raise DataError(f"{where}: not a readable picture ({len(data)} bytes)")
        stored = decoded[..., :3] if decoded.ndim == 3 else decoded
        opacity = decoded[..., 3] if decoded.ndim == 3 and decoded.shape[2] == 4 else None
        key = _clear_grey(data, depth) if colour == _GREY else None
        opacity = stored != key if key is not None else opacity
    if opacity is not None and (opacity.min() != opacity.max() or not opacity.max()):
        mode = f"{_PNG_MODES[colour]}{'' if colour & _OPACITY else ' with a clear colour'}"
        raise DataError(
            f"{where}: mode {mode}, and its opacity is not the same everywhere; where the mask is cannot be told: "
            "write it as grey, 0 and 255"
        )
    if stored.ndim == 2:
        return np.asarray(stored != 0)
    if (stored == stored[..., :1]).all():
        return np.asarray(stored[..., 0] != 0)
    foreground = np.asarray(stored.any(axis=2))
    if (stored[foreground] != stored[foreground][0]).any():
        raise DataError(
            f"{where}: mode {_PNG_MODES[colour]} with several colours; a mask has one beside black, or is grey"
        )
    return foreground


def label_map(
    data: bytes, where: str, expected: Expected | None = None, channel: int | None = None
) -> NDArray[np.uint8]:
    """Stored values of a label map in a PNG, uint8 [h, w]: grey values of 1 to 16 bits, or the indices of a palette.

    Args:
        data: of the file.
        where: begins the error.
        expected: of the size.
        channel: of a map in colours, the one that holds the labels, of red, green and blue; None: a map has no colours.

    Raises:
        DataError: What `header` refuses, another format, damaged, colours (without `channel`; none with it) or opacity, a value
            above 255.
    """
    found = header(data, where, noun="label map")
    depth, colour = _png(data, where, found, "label map")
    _agree(found, where, expected)
    if channel is not None:
        if colour != _RGB:
            raise DataError(f"{where}: these label maps are RGB, the label in one channel; this one is {found.mode}")
    elif colour not in (_GREY, _PALETTE):
        raise DataError(f"{where}: a label map has one byte a pixel, this one is {found.mode}")
    if colour == _PALETTE:
        return _indices(data, where, "label map")[0]
    stored = _by_opencv(data, cv2.IMREAD_UNCHANGED)
    if stored is not None and channel is not None:
        stored = stored[..., 2 - channel]  # OpenCV's order is blue, green, red
    if stored is None or stored.shape != (found.height, found.width):
        raise DataError(f"{where}: not a readable label map ({len(data)} bytes)")
    if stored.size and int(stored.max()) > 255:
        raise DataError(f"{where}: value {int(stored.max())} is no label; a label map has one byte a pixel")
    return np.asarray(stored // _SCALE.get(depth, 1), np.uint8)


def _by_opencv(data: bytes, flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _turned(image: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """An image as EXIF orientation `value` says that it is to be shown."""
    if value in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if value in (3, 4, 7, 8):
        image = image[::-1]
    if value in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _refuse_damaged(data: bytes, where: str, found: Header, noun: str) -> None:
    """OpenCV decodes what there is of a truncated JPEG and fills the rest with grey, without a word.

    A JPEG that ends with its end marker is whole. Some writers append bytes after it; then Pillow, which follows the
    segments but decodes more slowly, has the last word, as it has on the rarer formats.
    """
    if found.format == "PNG":
        _png(data, where, found, noun)
        return
    if found.format in ("JPEG", "MPO") and data.endswith(b"\xff\xd9"):
        return
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            opened.load()
    except _BROKEN as error:
        raise DataError(f"{where}: not a readable {noun} (truncated or damaged {found.format}: {error})") from None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of a PNG's chunks up to IEND. Raises ValueError: cut, or a needed chunk is not as its checksum says."""
    at = 8
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError("the file ends before IEND")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        if at + 12 + length > len(data):
            raise ValueError(f"the file ends within a chunk {kind!r}")
        checksum = int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        if kind[:1].isupper() and zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise ValueError(f"chunk {kind!r} is not as its checksum says")
        yield kind, content
        at += 12 + length


def _png(data: bytes, where: str, found: Header, noun: str) -> tuple[int, int]:
    """(bits a sample, colour type) of a whole PNG. Raises DataError: another format, truncated or damaged."""
    if found.format != "PNG":
        raise DataError(f"{where}: a {noun} is a PNG, this is {found.format}")
    try:
        about = {kind: content for kind, content in _chunks(data) if kind in (b"IHDR", b"IEND")}
        if len(about.get(b"IHDR", b"")) != 13:
            raise ValueError("no IHDR")
    except ValueError as error:
        raise DataError(f"{where}: not a readable {noun} (truncated or damaged PNG: {error})") from None
    return about[b"IHDR"][8], about[b"IHDR"][9]


def _indices(data: bytes, where: str, noun: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Palette indices [h, w], and the opacity of each pixel where the palette has any. Raises DataError."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            has_opacity = "transparency" in opened.info
            indices = np.array(opened, np.uint8)
            opacity = np.array(opened.convert("RGBA"), np.uint8)[..., 3] if has_opacity else None
    except _BROKEN as error:
        raise DataError(f"{where}: not a readable {noun} (truncated or damaged PNG: {error})") from None
    return indices, opacity


def _clear_grey(data: bytes, depth: int) -> int | None:
    """The grey value that a PNG calls clear, as decoders scale it; None without one."""
    for kind, content in _chunks(data):
        if kind == b"tRNS" and len(content) == 2:
            return int.from_bytes(content, "big") * _SCALE.get(depth, 1)
    return None
