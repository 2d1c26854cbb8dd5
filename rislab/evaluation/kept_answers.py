"""All answers of a trial's test splits in compact form, so that two rows can be compared unit by unit. Imports no torch."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from rislab.data.masks import encode
from rislab.files import replacing

FILE = "answers.parquet"
"""In a trial's directory."""

Form = Literal["run lengths", "label maps", ""]
"""COCO's compressed run lengths of a mask; a PNG of a label map, made small; "" where an evaluation keeps none."""

LONGEST = 256
"""Side of a kept label map, in pixels: it is looked at, not scored."""

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("unit", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("data", pa.binary()),
    ]
)


class Answer(NamedTuple):
    """What a method answered to one expression, picture or episode.

    Attributes:
        unit: `sent_id` of the expression, `image_id` of the picture, number of the episode.
        height, width: in pixels, of `data`.
        data: in the form of the file.
    """

    unit: int
    height: int
    width: int
    data: bytes


@dataclass
class Part:
    """What one process has of one split.

    Attributes:
        answers: by unit.
        size: bytes of all data, of those that were dropped, too.
        dropped: whether the data were more than the limit.
    """

    answers: dict[int, Answer] = field(default_factory=dict)
    size: int = 0
    dropped: bool = False


class KeptAnswers:
    """Answers by split, whole splits only: one that goes beyond the limit is left out, and the file says so.

    Args:
        limit: bytes of all splits together, before the file is compressed; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: dict[str, Part] = {}
        self.left_out: dict[str, int] = {}

    def offer(self, split: str, answers: Iterable[Answer]) -> None:
        part = self.parts.setdefault(split, Part())
        for answer in answers:
            part.size += len(answer.data)
            if part.size > self.limit:  # no process holds more than the limit, however large the split is
                part.dropped = True
                part.answers.clear()
            elif not part.dropped:
                part.answers[answer.unit] = answer

    def gather(self, of_processes: Sequence[Mapping[str, Part]]) -> None:
        """Take what all processes have kept; a unit that two of them have counts once."""
        splits = dict.fromkeys(split for parts in of_processes for split in parts)
        self.parts, self.left_out = {}, {}
        total = 0
        for split in splits:
            found = [parts[split] for parts in of_processes if split in parts]
            answers = {unit: answer for part in found for unit, answer in part.answers.items()}
            size = sum(len(answer.data) for answer in answers.values())
            if any(part.dropped for part in found) or total + size > self.limit:
                self.left_out[split] = sum(part.size for part in found) if any(p.dropped for p in found) else size
                continue
            total += size
            self.parts[split] = Part(answers, size)

    def write(self, folder: Path, form: Form) -> None:
        """`answers.parquet`, sorted by split and unit; nothing, and no file of before, where nothing is to be kept."""
        path = folder / FILE
        if not self.limit or not form:
            path.unlink(missing_ok=True)
            return
        rows = [
            (split, self.parts[split].answers[u]) for split in self.parts for u in sorted(self.parts[split].answers)
        ]
        columns = [[split for split, _ in rows], *([answer[at] for _, answer in rows] for at in range(4))]
        said = json.dumps({"form": form, "left_out": self.left_out}, sort_keys=True)
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
        table = pa.table(arrays, schema=SCHEMA.with_metadata({b"rislab": said.encode()}))
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


class UnreadableAnswersError(Exception):
    """Why a file of answers cannot be used, for the line that says so."""


@dataclass(frozen=True)
class Answers:
    """A file of answers.

    Attributes:
        form: of each answer's data.
        splits: answers by split and unit.
        left_out: bytes of splits that went beyond the trial's limit.
    """

    form: Form
    splits: Mapping[str, Mapping[int, Answer]]
    left_out: Mapping[str, int]


def read(path: Path) -> Answers:
    """The answers that a trial has kept.

    Raises:
        UnreadableAnswersError: No such file, or not as a trial writes it.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UnreadableAnswersError("it kept no answers") from None
    except (OSError, pa.ArrowException) as error:
        raise UnreadableAnswersError(f"{path.name} cannot be read ({str(error).splitlines()[0]})") from None
    said = _said(table.schema.metadata)
    if said is None or not table.schema.remove_metadata().equals(SCHEMA) or any(c.null_count for c in table.columns):
        raise UnreadableAnswersError(f"{path.name} is not as a trial writes it")
    splits: dict[str, dict[int, Answer]] = {}
    columns = (table.column(name).to_pylist() for name in SCHEMA.names)
    for split, *values in zip(*columns, strict=True):
        answer = Answer(*values)
        splits.setdefault(split, {})[answer.unit] = answer
    return Answers(said["form"], splits, said["left_out"])


def _said(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any] | None:
    try:
        said = json.loads((metadata or {})[b"rislab"])
    except (KeyError, ValueError):
        return None
    is_sound = isinstance(said, dict) and said.get("form") in ("run lengths", "label maps")
    return said if is_sound and isinstance(said.get("left_out"), dict) else None


def compact_masks(units: Iterable[int], answers: Iterable[NDArray[Any]]) -> list[Answer]:
    """Masks [h, w] by their unit, as run lengths."""
    pairs = zip(units, answers, strict=True)
    return [Answer(unit, mask.shape[0], mask.shape[1], encode(mask)["counts"]) for unit, mask in pairs]


def small_map(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map [H, W] at most `LONGEST` pixels long: every pixel is one of the map's, the one nearest to its middle."""
    rows, columns = (_chosen(side, max(labels.shape)) for side in labels.shape)
    return labels[rows][:, columns]


def _chosen(side: int, longest: int) -> NDArray[np.int64]:
    kept = side if longest <= LONGEST else max(1, round(side * LONGEST / longest))
    return ((np.arange(kept) + 0.5) * side / kept).astype(np.int64)


def map_to_bytes(labels: NDArray[np.uint8]) -> bytes:
    """A label map as PNG; `map_from_bytes` gives it back."""
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="PNG")
    return buffer.getvalue()


def map_from_bytes(data: bytes) -> NDArray[np.uint8]:
    """uint8 [h, w].

    Raises:
        UnreadableAnswersError: No PNG of labels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            labels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UnreadableAnswersError("a kept label map is no PNG") from None
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UnreadableAnswersError("a kept label map is no PNG of labels")
    return labels
