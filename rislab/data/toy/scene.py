"""The scene model: a few shapes that look alike, on a textured ground, partly hidden by one another.

Every writer (REFER files, captions, and whatever comes later) draws from here, and only from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.messages import preparing

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (238, 205, 40),
}
MORE_COLOURS = {
    "orange": (240, 130, 30),
    "pink": (245, 140, 200),
    "cyan": (50, 190, 205),
    "white": (235, 235, 235),
}
"""Of the labelled and captioned pictures only; scenes that are referred to keep to four colours."""
PAINTS = COLOURS | MORE_COLOURS
GROUNDS = {"sand": (165, 148, 112), "grass": (92, 120, 78), "water": (88, 114, 142), "stone": (112, 109, 107)}
"""Kinds of ground, for worlds whose captions name it; less saturated than any thing."""
Sizes = Mapping[str, tuple[float, float]]
SIZES = {"small": (0.145, 0.17), "large": (0.22, 0.25)}  # radius, as a share of the scene's side
PATTERNS = ("plain", "striped")
VISIBLE = 0.6  # least share of an object that may stay visible
SUBPIXEL = 4  # cv2 takes fixed-point coordinates: 2**4 steps a pixel
SECONDS = 0.013
"""To draw and write a picture of 96 pixels, measured on one core."""


def say_drawing(pictures: int, side: int, root: Path) -> None:
    """Announce the making of a world of so many pictures."""
    preparing(f"drawing {pictures} toy pictures", SECONDS * pictures * (side / 96) ** 2, str(root))


@dataclass(frozen=True)
class Thing:
    """One object. x, y, radius are in pixels; angle in radians; a thing later in a scene lies in front."""

    shape: str
    colour: str
    size: str
    pattern: str
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """Things, their picture, and what of each is visible.

    Attributes:
        image: uint8 RGB [S, S, 3].
        masks: bool [S, S], one a thing.
        clutter: bool [S, S], a patch of confetti, maybe empty.
    """

    things: tuple[Thing, ...]
    image: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]
    clutter: NDArray[np.bool_]


def compose(rng: np.random.Generator, size: int) -> tuple[Thing, ...]:
    """3 to 5 things among which neither shape nor colour alone singles one out.

    One kind is repeated (told apart by size, pattern or place only), others share its shape or its colour, so that a
    sentence about any of them has to be read whole.
    """
    count = int(rng.integers(3, 6))
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
    kinds = [(shape, colour)]
    while len(kinds) < count:
        draw = rng.random()
        if draw < 0.3:
            kinds.append((shape, colour))
        elif draw < 0.6:
            kinds.append((shape, str(rng.choice(list(COLOURS)))))
        elif draw < 0.9:
            kinds.append((str(rng.choice(SHAPES)), colour))
        else:
            kinds.append((str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))))
    things: list[Thing] = []
    for kind in kinds:
        thing = place(rng, size, kind, things)
        if thing is not None:
            things.append(thing)
    return tuple(things)


def place(
    rng: np.random.Generator,
    size: int,
    kind: tuple[str, str],
    others: list[Thing],
    sizes: Sizes = SIZES,
    striped: float = 0.35,
) -> Thing | None:
    """A place where neighbours overlap a little at most; None when the scene is full.

    Args:
        rng: Source of every draw.
        size: Side of the picture in pixels.
        kind: Shape and colour.
        others: What is there already.
        sizes: Range of the radius by word, as shares of the side.
        striped: Share of striped things, 0 to 1.
    """
    grade = str(rng.choice(list(sizes)))
    radius = size * float(rng.uniform(*sizes[grade]))
    for _ in range(30):
        x, y = (float(v) for v in rng.uniform(radius, size - radius, 2))
        if all(math.hypot(x - o.x, y - o.y) > 0.8 * (radius + o.radius) for o in others):
            pattern = "striped" if rng.random() < striped else "plain"
            return Thing(*kind, grade, pattern, x, y, radius, float(rng.uniform(-0.35, 0.35)))
    return None


def outline(thing: Thing) -> NDArray[np.float64]:
    """Corners [n, 2] of a thing's polygon, in pixels."""
    turns = {
        "circle": lambda: _ring(32, 1.0),
        "square": lambda: _ring(4, 1.08, math.pi / 4),
        "triangle": lambda: _ring(3, 1.2, -math.pi / 2) + np.array([0.0, 0.15]),
        "cross": _cross,
    }
    corners = turns[thing.shape]()
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    return corners @ np.array([[c, s], [-s, c]]) * thing.radius + (thing.x, thing.y)


def _ring(count: int, radius: float, start: float = 0.0) -> NDArray[np.float64]:
    angles = start + np.arange(count) * 2 * math.pi / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _cross() -> NDArray[np.float64]:
    arm, half = 1.1, 0.36
    quarter = np.array([(half, arm), (half, half), (arm, half)])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter[::-1] @ np.linalg.matrix_power(turn, k) for k in range(4)])


def draw(rng: np.random.Generator, things: tuple[Thing, ...], size: int, ground: str | None = None) -> Scene | None:
    """Paint a scene; None when something is hidden too much to be referred to. ground: its kind; None: of no kind."""
    image = _ground(rng, size, ground)
    clutter = _confetti(rng, image)
    masks: list[NDArray[np.bool_]] = []
    whole: list[int] = []
    for thing in things:
        corners = np.round(outline(thing) * 2**SUBPIXEL).astype(np.int32)
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [corners], 1, shift=SUBPIXEL)
        paint = np.empty_like(image)
        paint[:] = np.clip(np.array(PAINTS[thing.colour]) + rng.normal(0, 9, 3), 0, 255)
        if thing.pattern == "striped":
            stripes = (np.arange(size) // max(2, size // 32)) % 2 == 0
            paint[stripes] = paint[stripes] * 0.45
        # Soft edges: the blend weight is an anti-aliased copy of the mask.
        soft = np.zeros((size, size), np.uint8)
        cv2.fillPoly(soft, [corners], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL)
        weight = soft[..., None].astype(np.float32) / 255
        image = (image * (1 - weight) + paint * weight).astype(np.float32)
        seen = mask.astype(bool)
        masks = [earlier & ~seen for earlier in masks] + [seen]
        whole.append(int(seen.sum()))
    if any(mask.sum() < VISIBLE * area for mask, area in zip(masks, whole, strict=True)):
        return None
    image += rng.normal(0, 4, image.shape)
    picture = np.clip(image, 0, 255).astype(np.uint8)
    taken = np.any(masks, axis=0) if masks else np.zeros((size, size), bool)
    return Scene(things, picture, tuple(masks), clutter & ~taken)


def _ground(rng: np.random.Generator, size: int, kind: str | None) -> NDArray[np.float32]:
    """A ground with large stains and a few strokes, grey-brown or of a kind; never as saturated as a thing."""
    stains = cv2.resize(rng.normal(0, 1, (5, 5, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    base = (rng.uniform(85, 150) if kind is None else np.array(GROUNDS[kind])) + rng.normal(0, 8, 3)
    image = (base + 14 * stains).astype(np.float32)
    for _ in range(int(rng.integers(2, 6))):
        ends = rng.integers(0, size, 4)
        shade = float(rng.uniform(60, 180))
        cv2.line(image, ends[:2].tolist(), ends[2:].tolist(), (shade, shade, shade), 1, cv2.LINE_AA)
    return image


def _confetti(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """In one scene of four, a patch of tiny dots: what COCO annotates as a crowd."""
    size = image.shape[0]
    mask = np.zeros((size, size), np.uint8)
    if rng.random() < 0.25:
        centre = rng.uniform(0.2, 0.8, 2) * size
        for _ in range(12):
            x, y = np.round(centre + rng.normal(0, size / 12, 2)).astype(int).tolist()
            shade = rng.uniform(60, 200, 3).tolist()
            cv2.circle(image, (x, y), 1, shade, -1)
            cv2.circle(mask, (x, y), 1, 1, -1)
    return mask.astype(bool)


def scene(rng: np.random.Generator, size: int) -> Scene:
    """One scene; the same generator state gives the same scene."""
    while True:
        drawn = draw(rng, compose(rng, size), size)
        if drawn is not None and len(drawn.things) >= 3:
            return drawn
