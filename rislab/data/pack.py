"""A data set packed for training: pictures decoded and placed, masks as run lengths, sentences as token ids.

``ROOT/packed/<dataset>-<partition>-<geometry>/`` holds

    images.u8      uint8 [n, 3, H, W], memory-mapped; what `Geometry.image` makes of each picture, to the bit
    pictures.npz   image_id, crc32 of the packed picture, bytes and mtime of the file that it was made from: int64 [n]
    masks.npz      ref_id [r], and the compressed run lengths of all targets end to end, with offsets [r + 1]
    placed.npz     ref_id [r], and what `Geometry.mask_bytes` makes of each target: its box and, deflated, what is in it
    tokens.npz     sent_id [s], and the token ids of all sentences end to end, with offsets [s + 1]; start and end included
    pack.json      what it was made from and with, sha256 of the .npz files; written last

It is written beside its place and renamed when whole; packing again goes on where it was stopped. A reader of a pack
looks first whether it still is of the files that lie there: a changed annotation file puts all of it aside, a changed picture
that picture.
"""

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.geometry import Geometry, Letterbox, Stretch
from rislab.data.images import ImageRecord
from rislab.data.masks import RLE
from rislab.data.refer import Refer
from rislab.errors import DataError
from rislab.files import read_json, replacing, write_json

FOLDER = "packed"
FORMAT = 2
PARTS = ("pictures.npz", "masks.npz", "placed.npz", "tokens.npz")
KEEP_EVERY = 64
"""Pictures between two notes of how far packing has come."""

Progress = Callable[[int, int], None]
Encoder = Callable[[str], Sequence[int]]


def geometry_name(geometry: Geometry) -> str:
    """A folder name that tells apart what packs differ in."""
    height, width = geometry.size
    fill = "" if not isinstance(geometry, Letterbox) else "-" + "".join(f"{v:02x}" for v in geometry.fill)
    return f"{type(geometry).__name__.lower()}-{height}x{width}{fill}"


def pack_path(root: Path, dataset: str, split_by: str, geometry: Geometry) -> Path:
    return root / FOLDER / f"{dataset}-{split_by}-{geometry_name(geometry)}"


def _sources(refer: Refer) -> dict[str, str]:
    files = (refer.instances_file, refer.refs_file)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Ragged:
    """Arrays of different lengths end to end: the k-th, whose id is ids[k], is flat[offsets[k]:offsets[k + 1]]."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    flat: NDArray[Any]

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        for number, key in enumerate(self.ids.tolist()):
            yield key, self.flat[self.offsets[number] : self.offsets[number + 1]]

    @classmethod
    def of(cls, parts: Mapping[int, Sequence[int] | bytes], kind: type[np.generic]) -> "Ragged":
        lengths = [len(part) for part in parts.values()]
        flat = np.concatenate(
            [np.frombuffer(p, np.uint8) if isinstance(p, bytes) else np.array(p) for p in parts.values()]
        )
        return cls(np.array(list(parts), np.int64), np.concatenate([[0], np.cumsum(lengths)]), flat.astype(kind))

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=self.ids, offsets=self.offsets, flat=self.flat)

    @classmethod
    def load(cls, path: Path) -> "Ragged":
        """Raises DataError: the file has gone or changed since the pack was opened."""
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(held["ids"], held["offsets"], held["flat"])
        except _DAMAGED as error:
            raise DataError(
                f"{path}: not a readable part of a pack ({error}); remove the folder and pack again"
            ) from None


def write(
    refer: Refer,
    dataset: str,
    split_by: str,
    geometry: Geometry,
    tokenizer: str,
    encode: Encoder,
    progress: Progress | None = None,
) -> Path:
    """Pack every picture, mask and sentence that references use; return the folder. Done already: nothing happens.

    Args:
        tokenizer, encode: name of the tokenizer and its text -> token ids.
        progress: called with (pictures done, in all).

    Raises:
        DataError: A picture is missing or damaged, the disk is full.
    """
    path = pack_path(refer.store.root, dataset, split_by, geometry)
    sources = _sources(refer)
    found = Pack.open(refer, dataset, split_by, geometry)
    if found is not None and not found.changed and found.tokenizer == tokenizer:
        return path
    unfinished = path.with_name(f".{path.name}.unfinished")
    about = {"format": FORMAT, "sources": sources, "geometry": geometry_name(geometry), "tokenizer": tokenizer}
    try:
        if read_json(unfinished / "about.json") != about:
            shutil.rmtree(unfinished, ignore_errors=True)
            write_json(unfinished / "about.json", about)
        records = [refer.images[image_id] for image_id in dict.fromkeys(r.image_id for r in refer.references)]
        _write_pictures(unfinished, refer, records, geometry, progress)
        targets = {ref.ref_id: refer.target(ref) for ref in refer.references}
        Ragged.of({k: bytes(rle["counts"]) for k, rle in targets.items()}, np.uint8).save(unfinished / "masks.npz")
        placed = {ref_id: _deflated(_placed(rle, geometry)) for ref_id, rle in targets.items()}
        Ragged.of(placed, np.uint8).save(unfinished / "placed.npz")
        texts = {e.sent_id: encode(e.sent) for ref in refer.references for e in ref.expressions}
        Ragged.of(texts, np.int32).save(unfinished / "tokens.npz")
        parts = {name: _sha256(unfinished / name) for name in PARTS}
        write_json(unfinished / "pack.json", about | {"images": len(records), "parts": parts})
        (unfinished / "about.json").unlink()
        (unfinished / "progress.npz").unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from error
    return path


def _placed(target: RLE, geometry: Geometry) -> NDArray[np.uint8]:
    mask = masks.decode(target)
    return geometry.mask_bytes(mask, geometry.place(*mask.shape))


def _deflated(placed: NDArray[np.uint8]) -> bytes:
    """Top, left, height and width of the box that holds all that is not 0, as uint16, and its deflated content."""
    rows, columns = np.flatnonzero(placed.any(1)), np.flatnonzero(placed.any(0))
    if not len(rows):
        return np.zeros(4, np.uint16).tobytes()
    box = (rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0])
    inside = placed[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    return np.array(box, np.uint16).tobytes() + zlib.compress(inside.tobytes(), 1)


def _inflate_into(out: NDArray[np.uint8], data: NDArray[np.uint8]) -> None:
    top, left, height, width = data[:8].view(np.uint16).tolist()
    out[...] = 0
    if height:
        inside = np.frombuffer(zlib.decompress(data[8:].tobytes()), np.uint8).reshape(height, width)
        out[top : top + height, left : left + width] = inside


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    TypeError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file of a pack raises that is not as it was written."""

COLUMNS = ("image_id", "crc32", "bytes", "changed")


def _write_pictures(
    folder: Path, refer: Refer, records: Sequence[ImageRecord], geometry: Geometry, progress: Progress | None
) -> None:
    """Go on after the last picture that was noted, when its bytes and its source are what the note says."""
    shape = (len(records), 3, *geometry.size)
    path = folder / "images.u8"
    done = _noted(folder, refer, records, shape) if path.exists() else []
    with path.open("r+b" if done else "wb") as file:
        file.truncate(int(np.prod(shape)))
    images = np.memmap(path, np.uint8, "r+", shape=shape)
    for number in range(len(done), len(records)):
        record = records[number]
        source = refer.store.path(record).stat()
        placed = geometry.image(refer.store.read(record), geometry.place(record.height, record.width))
        images[number] = placed.transpose(2, 0, 1)
        done.append((record.image_id, zlib.crc32(images[number]), source.st_size, source.st_mtime_ns))
        if len(done) % KEEP_EVERY == 0:
            images.flush()
            _note(folder / "progress.npz", done)
        if progress is not None:
            progress(len(done), len(records))
    images.flush()
    _note(folder / "pictures.npz", done)


def _note(path: Path, done: list[tuple[int, int, int, int]]) -> None:
    columns = np.array(done, np.int64).reshape(-1, len(COLUMNS)).T
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, image_id=columns[0], crc32=columns[1], bytes=columns[2], changed=columns[3])


def _noted(
    folder: Path, refer: Refer, records: Sequence[ImageRecord], shape: tuple[int, ...]
) -> list[tuple[int, int, int, int]]:
    """What an interrupted packing left, up to the first picture that is not as it was."""
    notes = folder / "progress.npz"
    if not notes.exists() or (folder / "images.u8").stat().st_size != int(np.prod(shape)):
        return []
    try:
        with np.load(notes, allow_pickle=False) as held:
            rows = list(zip(*(held[name].tolist() for name in COLUMNS), strict=True))
    except _DAMAGED:
        return []
    images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
    kept = []
    for row, record, packed in zip(rows, records, images, strict=False):
        source = refer.store.path(record).stat()
        if row != (record.image_id, zlib.crc32(packed), source.st_size, source.st_mtime_ns):
            break
        kept.append(row)
    return kept


class Pack:
    """A pack that is of the files beside it.

    Attributes:
        changed: images whose file is not the one that was packed; they are read from their files.
    """

    def __init__(self, folder: Path, about: dict[str, Any], refer: Refer, geometry: Geometry) -> None:
        self.folder = folder
        self.tokenizer = str(about["tokenizer"])
        with np.load(folder / "pictures.npz", allow_pickle=False) as held:
            rows = zip(*(held[name].tolist() for name in COLUMNS), strict=True)
            self._rows = {row[0]: (number, *row[1:]) for number, row in enumerate(rows)}
        self._shape = (len(self._rows), 3, *geometry.size)
        self._images: NDArray[np.uint8] | None = None
        self._placed: tuple[Ragged, dict[int, int]] | None = None
        self.changed = frozenset(
            image_id for image_id, row in self._rows.items() if self._has_changed(refer, image_id, row)
        )

    @classmethod
    def open(cls, refer: Refer, dataset: str, split_by: str, geometry: Geometry) -> "Pack | None":
        """The pack of this data set and geometry, or None: there is none, it is damaged, or of other annotation files."""
        folder = pack_path(refer.store.root, dataset, split_by, geometry)
        try:
            about = read_json(folder / "pack.json")
            if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("sources") != _sources(refer):
                return None
            size = int(np.prod((about["images"], 3, *geometry.size)))
            whole = set(about["parts"]) == set(PARTS) and all(
                _sha256(folder / name) == digest for name, digest in about["parts"].items()
            )
            if not whole or (folder / "images.u8").stat().st_size != size:
                return None
            return cls(folder, about, refer, geometry)
        except (*_DAMAGED, AttributeError):
            return None

    @staticmethod
    def _has_changed(refer: Refer, image_id: int, row: tuple[int, ...]) -> bool:
        path = refer.store.find(refer.images[image_id])
        if path is None:
            return False  # the pack may travel without the pictures
        state = path.stat()
        return (state.st_size, state.st_mtime_ns) != row[2:]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None}  # a spawned worker maps the file anew

    @property
    def images(self) -> NDArray[np.uint8]:
        if self._images is None:
            self._images = np.memmap(self.folder / "images.u8", np.uint8, "r", shape=self._shape)
        return self._images

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._rows and image_id not in self.changed

    def image(self, image_id: int) -> NDArray[np.uint8]:
        """uint8 [3, H, W], as the geometry places it."""
        return np.asarray(self.images[self._rows[image_id][0]])

    def mask_into(self, out: NDArray[np.uint8], ref_id: int) -> None:
        """Write the placed target of a reference, uint8 [H, W]."""
        if self._placed is None:
            held = Ragged.load(self.folder / "placed.npz")
            self._placed = (held, {ref_id: number for number, ref_id in enumerate(held.ids.tolist())})
        held, number_of = self._placed
        number = number_of[ref_id]
        _inflate_into(out, held.flat[held.offsets[number] : held.offsets[number + 1]])

    def targets(self, refer: Refer) -> dict[int, RLE]:
        """Masks at the original size, by ref_id."""
        sizes = {ref.ref_id: refer.images[ref.image_id] for ref in refer.references}
        return {
            ref_id: {"size": [sizes[ref_id].height, sizes[ref_id].width], "counts": counts.tobytes()}
            for ref_id, counts in Ragged.load(self.folder / "masks.npz")
        }

    def tokens(self) -> dict[int, NDArray[np.int32]]:
        """Token ids by sent_id, start and end included, uncut."""
        return dict(Ragged.load(self.folder / "tokens.npz"))

    def verify(self, progress: Progress | None = None) -> list[int]:
        """Images whose packed bytes are not those that were written."""
        wrong = []
        for done, (image_id, row) in enumerate(self._rows.items()):
            if zlib.crc32(self.images[row[0]].tobytes()) != row[1]:
                wrong.append(image_id)
            if progress is not None:
                progress(done + 1, len(self._rows))
        return wrong


def geometry_of(name: str, size: int) -> Geometry:
    """The geometry that a command line names."""
    return {"letterbox": Letterbox, "stretch": Stretch}[name](size)
