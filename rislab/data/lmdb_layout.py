"""The LMDB files that users of CRIS already have: ``ROOT/lmdb/<dataset>/<split>.lmdb``, one record a reference.

A record is a pickled dict of JPEG bytes `img`, PNG bytes `mask`, `cat`, `seg_id` (the ref_id), `img_name`, `num_sents` and the
cleaned sentences `sents`; the keys are running numbers, beside `__keys__` and `__len__` (CRIS, tools/folder2lmdb.py). What
the annotation files know beyond that is not there: sentence ids are given here, in the order of splits and records, so
scores by sentence id agree among such files only; there is no `raw` text, and no other object of the image.

Files written with pyarrow's old serialisation, which no pyarrow can read any more, are refused with a word on how to
write them anew. Needs the extra `lmdb`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rislab.data import decoding, masks
from rislab.data.annotations import Expression, Reference, words_of_left_out
from rislab.data.images import ImageRecord, decode
from rislab.data.lmdb_pages import refuse_damaged
from rislab.data.masks import RLE
from rislab.data.plain_pickle import unpickled
from rislab.data.published import DataSet, data_set
from rislab.errors import ConfigError, DataError, brief, nearest
from rislab.files import cache_dir, read_json, write_json
from rislab.metrics.protocols import Convention
from rislab.metrics.scored_size import at_scored_size
from rislab.paths import visible

ORDER = ("train", "val", "testA", "testB", "test")


_open: dict[Path, Any] = {}
"""Environments of this process: LMDB allows one a file and process."""


def _opened(path: Path) -> Any:
    if path not in _open:
        try:
            import lmdb
        except ModuleNotFoundError:
            raise ConfigError("the LMDB layout needs a package more: pip install 'rislab[lmdb]'") from None
        refuse_damaged(_data_file(path))
        try:
            _open[path] = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
            )
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path}: not a readable LMDB file ({error})") from None
    return _open[path]


def _data_file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """A read transaction. Raises DataError for whatever LMDB says of the file."""
    environment = _opened(path)
    import lmdb

    try:
        with environment.begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"{path}: not a readable LMDB file ({error})") from None


def _close_all() -> None:
    for environment in _open.values():
        environment.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)  # an environment must not cross a fork; both sides open it anew on use


class LmdbStore:
    """Records by (split, number)."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.position_of_image: dict[int, tuple[str, int]] = {}

    def record(self, split: str, number: int) -> dict[str, Any]:
        """Raises DataError: no such record, damaged, or of another form."""
        where = f"{self.files[split]}: record {number}"
        with _reading(self.files[split]) as transaction:
            data = transaction.get(str(number).encode())
        if data is None:
            raise DataError(f"{where}: not there")
        try:
            found = unpickled(bytes(data))
        except DataError as error:
            raise DataError(
                f"{where}: {error}. If CRIS's own tool wrote it with pyarrow.serialize, write it anew with pickle"
            ) from None
        fields = {"img": bytes, "mask": bytes, "seg_id": int, "img_name": str, "sents": list}
        if not isinstance(found, dict) or not all(isinstance(found.get(k), kind) for k, kind in fields.items()):
            raise DataError(f"{where}: expected a dict with {', '.join(fields)}")
        if isinstance(found["seg_id"], bool) or abs(found["seg_id"]) >= 2**63:
            raise DataError(f"{where}: seg_id {brief(found['seg_id'])} is no id")
        return found

    def count(self, split: str) -> int:
        """How many records there are. Raises DataError where the file itself says another number, or holds other keys."""
        path = self.files[split]
        with _reading(path) as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
            stated = transaction.get(b"__len__")
        others = [key for key in keys if not key.isdigit() and key not in (b"__len__", b"__keys__")]
        if others:
            raise DataError(f"{path}: {len(others)} keys are no record numbers, the first is {brief(others[0])}")
        number = sum(key.isdigit() for key in keys)
        if stated is not None and unpickled(bytes(stated)) != number:
            raise DataError(f"{path}: holds {number} records, and says that it has {brief(unpickled(bytes(stated)))}")
        return number

    def picture(self, record: ImageRecord) -> bytes:
        return bytes(self.record(*self.position_of_image[record.image_id])["img"])

    def read(self, record: ImageRecord) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3]. Raises DataError."""
        return decode(self.picture(record), record, record.file_name)

    def find(self, record: ImageRecord) -> Path | None:
        return self.files[self.position_of_image[record.image_id][0]]

    def check(self, records: Iterable[ImageRecord]) -> None:
        """Pictures lie in the records themselves; there is nothing that could be missing."""


class LmdbRefer:
    """Images and references of the LMDB layout; in use like `rislab.data.refer.Refer`.

    The texts and sizes are read once and cached, since every record holds its picture, too.
    Raises DataError, ConfigError (the extra is missing).

    Args:
        root: the folder that holds `lmdb`.
        dataset: the folder below it, e.g. refcoco, refcocog_u.
    """

    def __init__(self, root: Path, dataset: str) -> None:
        folder = root / "lmdb" / dataset
        files = {path.stem: path for path in sorted(visible(folder.glob("*.lmdb"), folder), key=_rank)}
        if not files:
            there = [path.name for path in visible((root / "lmdb").glob("*"), root)]
            raise DataError(f"{folder}: no *.lmdb files; {root / 'lmdb'} holds {there}{nearest(dataset, there)}")
        self.known: DataSet = data_set(dataset.partition("_")[0])
        self.refs_file = folder
        self.store = LmdbStore(files)
        self.images: dict[int, ImageRecord] = {}
        self.without_sentences: Counter[str] = Counter()
        self._records: dict[int, tuple[str, int]] = {}
        self.references = tuple(self._read(files))

    def _read(self, files: dict[str, Path]) -> Iterator[Reference]:
        sent_id = 0
        for split, path in files.items():
            for number, entry in enumerate(_index(self.store, split, path)):
                image = ImageRecord(entry["image_id"], entry["img_name"], entry["height"], entry["width"])
                self.images.setdefault(image.image_id, image)
                self.store.position_of_image.setdefault(image.image_id, (split, number))
                if entry["seg_id"] in self._records:
                    raise DataError(f"{path}: record {number}: seg_id {entry['seg_id']} occurs more than once")
                self._records[entry["seg_id"]] = (split, number)
                sentences = tuple(Expression(sent_id + i, text, text) for i, text in enumerate(entry["sents"]))
                if not sentences:
                    self.without_sentences[split] += 1
                    continue
                sent_id += len(sentences)
                yield Reference(entry["seg_id"], image.image_id, (entry["seg_id"],), split, sentences)

    @property
    def splits(self) -> list[str]:
        return list(self.store.files)

    def left_out(self, split: str | None = None) -> str:
        """What of a split, or of all, is in no list of references, in words; "" for nothing."""
        return words_of_left_out(self.without_sentences, split)

    def split(self, name: str) -> list[Reference]:
        """References of one split, in file order. Raises DataError for an unknown name."""
        if name not in self.splits:
            raise DataError(f"{self.refs_file}: no split {name!r}, it has {self.splits}{nearest(name, self.splits)}")
        found = [ref for ref in self.references if ref.split == name]
        if not found:
            raise DataError(f"{self.store.files[name]}: no references ({self.left_out(name) or 'no records'})")
        return found

    def target(self, reference: Reference, convention: Convention | None = None) -> RLE:
        """The stored mask, at the size at which a convention compares; its polygons are no longer known. Raises DataError."""
        split, number = self._records[reference.ref_id]
        data = self.store.record(split, number)["mask"]
        image = self.images[reference.image_id]
        where = f"{self.store.files[split]}: record {number}: mask"
        mask = decoding.mask(data, where, decoding.Expected(image.height, image.width, "its picture"))
        return masks.encode(mask if convention is None else at_scored_size(mask, convention))

    def check_images(self, references: Iterable[Reference]) -> None:
        """Pictures lie in the records themselves; there is nothing that could be missing."""

    def picture(self, image_id: int) -> tuple[str, bytes]:
        """(file suffix, encoded bytes)."""
        return ".jpg", self.store.picture(self.images[image_id])


def _rank(path: Path) -> tuple[int, str]:
    return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)


def _index(store: LmdbStore, split: str, path: Path) -> list[dict[str, Any]]:
    """What the references need of every record, from the cache when the file has not changed since."""
    data = _data_file(path)
    try:
        state = data.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    stamp: dict[str, Any] = {"file": str(data.resolve()), "bytes": state.st_size, "changed": state.st_mtime_ns}
    cached = cache_dir() / "lmdb" / f"{hashlib.sha256(stamp['file'].encode()).hexdigest()[:16]}.json"
    try:
        held = read_json(cached)
    except OSError:
        held = None
    if isinstance(held, dict) and held.get("of") == stamp and _are_entries(held.get("entries")):
        entries: list[dict[str, Any]] = held["entries"]
        return entries
    entries = [_entry(store, split, number) for number in range(store.count(split))]
    with suppress(OSError):  # a cache that cannot be written is no cache
        write_json(cached, {"of": stamp, "entries": entries})
    return entries


_ENTRY = {"image_id": int, "img_name": str, "height": int, "width": int, "seg_id": int, "sents": list}


def _are_entries(held: Any) -> bool:
    return isinstance(held, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in _ENTRY.items()) for one in held
    )


def _entry(store: LmdbStore, split: str, number: int) -> dict[str, Any]:
    record = store.record(split, number)
    where = f"{store.files[split]}: record {number}"
    name, texts = record["img_name"], record["sents"]
    digits = Path(name).stem.rpartition("_")[2]
    if not (digits.isdecimal() and digits.isascii() and len(digits) < 19):
        raise DataError(f"{where}: img_name {brief(name)} does not end in the number of the image")
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: sents {brief(texts)}: expected a list of texts")
    head = decoding.header(record["img"], f"{where}: {name}")
    return {
        "image_id": int(digits),
        "img_name": name,
        "height": head.height,
        "width": head.width,
        "seg_id": record["seg_id"],
        "sents": [text.encode("utf-8", "replace").decode() for text in texts],
    }
