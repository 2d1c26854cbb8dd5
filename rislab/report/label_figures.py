"""Label maps over their pictures, as data URIs, with the colour of each class: the same class, the same colour in a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from rislab.report.figures import MOST_EXAMPLES, colour_of, data_uri, read_picture
from rislab.report.results import Cell, Results

BACKGROUND = "#B9BEC6"
Colours = Mapping[str, str]


@dataclass(frozen=True)
class RowMap:
    """What a row said of a picture.

    Attributes:
        label: of the row.
        picture: its label map; None where none was kept.
        right: pixels that are right, in percent.
        groups: (name, picture) of each division into groups, of a method that has groups.
    """

    label: str
    picture: str | None = None
    right: float | None = None
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LabelExample:
    """One line of the grid. legend: (colour, class) of what the line shows; maps: one a row of the table."""

    number: int
    image: str
    truth: str
    legend: tuple[tuple[str, str], ...]
    maps: tuple[RowMap, ...]


def label_examples(results: Results) -> list[LabelExample]:
    """The pictures that the trials kept label maps of: truth and what each row said (its first finished seed), stage by stage."""
    first = _columns(results)
    source = next((cell for _, cell in first if cell is not None), None)
    if source is None:
        return []
    kept = {label: {one["image_id"]: one for one in cell.label_maps()} for label, cell in first if cell is not None}
    colours = _colours([one for each in kept.values() for one in each.values()])
    return [
        line
        for wanted in source.label_maps()[:MOST_EXAMPLES]
        if (line := _line(wanted, source, first, kept, colours)) is not None
    ]


def _columns(results: Results) -> list[tuple[str, Cell | None]]:
    """What stands side by side: of each row its earlier stages, a trial that rows share once, and then the row itself.

    All of one fold: other folds show other pictures.
    """
    found: list[tuple[str, Cell | None]] = []
    shown: set[Path] = set()
    fold = next((cell.planned.fold for cell in results.cells if cell.label_maps()), "")
    for row in results.rows:
        chains = [(*last.earlier.items(), ("", last)) for last in row.cells if last.planned.fold == fold]
        chain = next((each for each in chains if any(cell.label_maps() for _, cell in each)), ())
        for stage, cell in chain:
            path = cell.planned.trial.path
            if stage and path not in shown and cell.label_maps():
                found.append((f"{row.row.label}, {stage}", cell))
                shown.add(path)
        found.append((row.row.label, next((cell for stage, cell in chain if not stage and cell.label_maps()), None)))
    return found


def _line(
    wanted: dict[str, Any],
    source: Cell,
    first: Sequence[tuple[str, Cell | None]],
    kept: Mapping[str, Mapping[int, dict[str, Any]]],
    colours: Colours,
) -> LabelExample | None:
    """None where the picture or its true map cannot be read: the rest of the report does not hang on it."""
    image, truth = read_picture(source, wanted["image"], "RGB"), _read_map(source, wanted["target"])
    if image is None or truth is None or image.shape[:2] != truth.shape:
        return None
    names = _named(wanted)
    shown = set(np.unique(truth).tolist())
    maps: list[RowMap] = []
    for label, cell in first:
        said = kept.get(label, {}).get(wanted["image_id"])
        if said is None or cell is None:
            maps.append(RowMap(label))
            continue
        own, found = (_read_map(cell, said[what]) for what in ("target", "prediction"))
        # Stages may be scored on other splits, whose pictures have the same numbers.
        is_same = own is not None and np.array_equal(own, truth)
        if found is None or found.shape != truth.shape or not is_same:
            maps.append(RowMap(label))
            continue
        names |= _named(said)
        shown |= set(np.unique(found).tolist())
        painted = data_uri(_painted(image, found, names, colours))
        maps.append(RowMap(label, painted, float(said["right"]), _groups(image, cell, said)))
    legend = tuple((colours[names[value]], names[value]) for value in sorted(shown & names.keys()))
    painted = data_uri(_painted(image, truth, names, colours))
    return LabelExample(int(wanted["image_id"]), data_uri(image), painted, legend, tuple(maps))


def _groups(image: NDArray[np.uint8], cell: Cell, said: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Each division into groups, a colour a group; the numbers of two rows' groups have nothing in common."""
    found = []
    for name, file in said.get("groups", {}).items():
        numbers = _read_map(cell, file)
        if numbers is not None and numbers.shape == image.shape[:2]:
            named = {int(number): str(number) for number in np.unique(numbers)}
            colours = {text: colour_of(number) for number, text in named.items()}
            found.append((str(name), data_uri(_painted(image, numbers, named, colours))))
    return tuple(found)


def _colours(entries: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By class, in the order of their labels."""
    # Of damaged files one may give a label another name than the others do: each name has a colour.
    named = sorted(item for one in entries for item in _named(one).items())
    things = list(dict.fromkeys(name for _, name in named if name != "background"))
    return {"background": BACKGROUND} | {name: colour_of(n) for n, name in enumerate(things)}


def _painted(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Mapping[int, str], colours: Colours
) -> NDArray[np.uint8]:
    """Each class in shades of its colour, what is not scored white."""
    shade = image.mean(axis=2, keepdims=True)
    canvas = np.full(image.shape, 255.0)
    for value, name in classes.items():
        there = labels == value
        if name == "background":
            canvas[there] = (shade * 0.35 + 130).repeat(3, axis=2)[there]
        else:
            canvas[there] = (np.array(ImageColor.getrgb(colours[name])) * (0.65 + 0.45 * shade / 255))[there]
    return canvas.clip(0, 255).astype(np.uint8)


def _named(entry: Mapping[str, Any]) -> dict[int, str]:
    """Class by label; a key that is no label is left out."""
    return {int(label): name for label, name in entry["classes"].items() if label.isdecimal() and len(label) < 4}


def _read_map(cell: Cell, name: str) -> NDArray[np.uint8] | None:
    """[h, w]; None for one that is not there, not whole, or no map."""
    found = read_picture(cell, name)
    return found if found is not None and found.ndim == 2 else None
