"""Whether an LMDB file is whole: liblmdb maps it and believes it, and what lies outside of the file ends the process (SIGBUS).

Layout (lmdb.h, mdb.c, 64 bits, version 1): two meta pages, each with magic, version, two tree records (free pages, main) and
the last page's number; the one with the higher transaction counts. A page begins with a header of 16 bytes: number, padding,
flags, and the bounds of its free space, or how many pages an overflow takes. Node offsets of two bytes follow; a node is 8 bytes
of header, its key, and its value or the number of the page that holds it.
"""

import os
import struct
from pathlib import Path

from rislab.errors import DataError

_HEADER = 16
_MAGIC = 0xBEEFC0DE
_META = struct.Struct("<IIQQ48s48sQQ")
_TREE = struct.Struct("<IHHQQQQQ")
_PAGE = struct.Struct("<QHHHH")
_NODE = struct.Struct("<HHHH")
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG = 0x01
_NO_PAGE = 2**64 - 1
_DEEPEST = 32


class _DamagedError(Exception):
    pass


class _Pages:
    """The pages of an open file, of `size` bytes each, up to number `last`."""

    def __init__(self, file: int, size: int, last: int) -> None:
        self.file, self.size, self.last = file, size, last
        self.seen: set[int] = set()

    def read(self, number: int) -> bytes:
        if not 2 <= number <= self.last or number in self.seen:
            raise _DamagedError(f"page {number} is out of place")
        self.seen.add(number)
        page = os.pread(self.file, self.size, number * self.size)
        if len(page) != self.size or _PAGE.unpack_from(page)[0] != number:
            raise _DamagedError(f"page {number} is not what it should be")
        return page

    def walk(self, number: int, depth: int) -> None:
        """Look at every page of a tree below `number`. Raises _DamagedError."""
        page = self.read(number)
        _, _, flags, lower, upper = _PAGE.unpack_from(page)
        if depth > _DEEPEST or not _HEADER <= lower <= upper <= self.size or lower % 2:
            raise _DamagedError(f"page {number} has impossible bounds")
        if flags & ~0x10 not in (_BRANCH, _LEAF):
            raise _DamagedError(f"page {number} is neither branch nor leaf")
        for at in struct.unpack_from(f"<{(lower - _HEADER) // 2}H", page, _HEADER):
            if not upper <= at <= self.size - _NODE.size or at % 2:
                raise _DamagedError(f"page {number} has an entry outside of it")
            low, high, node_flags, key = _NODE.unpack_from(page, at)
            if flags & _BRANCH:
                if at + _NODE.size + key > self.size:
                    raise _DamagedError(f"page {number} has an entry outside of it")
                self.walk(low | high << 16 | node_flags << 32, depth + 1)
                continue
            length = low | high << 16
            held = 8 if node_flags & _BIG else length
            if node_flags & ~_BIG or at + _NODE.size + key + held > self.size:
                raise _DamagedError(f"page {number} has an entry outside of it")
            if node_flags & _BIG:
                self.overflow(struct.unpack_from("<Q", page, at + _NODE.size + key)[0], length)

    def overflow(self, number: int, length: int) -> None:
        """A value that has pages of its own."""
        page = self.read(number)
        pages = struct.unpack_from("<I", page, 12)[0]
        if not _PAGE.unpack_from(page)[2] & _OVERFLOW or number + pages - 1 > self.last:
            raise _DamagedError(f"page {number} is no value")
        if pages * self.size < _HEADER + length:
            raise _DamagedError(f"page {number} ends before its value")


def refuse_damaged(path: Path) -> None:
    """Follow every page that holds records. path: the data file. Raises DataError: cut, or a page is not what it should be."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _check(file, os.fstat(file).st_size)
    except (_DamagedError, struct.error, OSError) as error:
        raise DataError(f"{path}: not a readable LMDB file ({error})") from None
    finally:
        os.close(file)


def _check(file: int, size: int) -> None:
    first = _meta(os.pread(file, 4096, 0))
    page_size = _TREE.unpack(first[4])[0]  # the tree of free pages keeps it
    if page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        raise _DamagedError(f"pages of {page_size} bytes")
    metas = [first, _meta(os.pread(file, 4096, page_size))]
    newest = max(metas, key=lambda meta: int(meta[7]))
    last = newest[6]
    if size < (last + 1) * page_size:
        raise _DamagedError(f"{size} bytes of {(last + 1) * page_size}: the copy was interrupted")
    for tree in newest[4:6]:
        _, _, depth, *_, root = _TREE.unpack(tree)
        if root == _NO_PAGE:
            continue
        if depth > _DEEPEST:
            raise _DamagedError(f"a tree of depth {depth}")
        _Pages(file, page_size, last).walk(root, 0)


def _meta(page: bytes) -> tuple[int, int, int, int, bytes, bytes, int, int]:
    magic, version, address, mapped, free, main, last, transaction = _META.unpack_from(page, _HEADER)
    if magic != _MAGIC or version != 1:
        raise _DamagedError("no meta page of LMDB, version 1")
    return magic, version, address, mapped, free, main, last, transaction
