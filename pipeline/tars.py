"""The members of a tar, each surely whole, and the tar's end surely its end.

`tarfile` takes a damaged header after the first for the end of the tar, and so does what builds on
it. Here its parser is kept and its leniency is not: each header is looked at again
(`pipeline.tar_headers`), the tar is read to the last byte of the file, and whatever isn't the zeros
that close a tar is an error. Reads forward only, so gzip costs one pass.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from pipeline.tar_headers import BrokenTarError, check_headers, shown

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 1 << 20
"""Of one member's headers: long names, pax fields and sparse maps, which `tarfile` holds whole."""
MAX_EXPANSION = 200
"""How many times its own size a gzip may expand to, beyond its first GiB: deflate goes to 1,032, images to 1."""

_GZIP_MAGIC = b"\x1f\x8b"
_EXPANDS_ANYWAY = 1 << 30
_MAX_GZIP_NAME = 1 << 16
_END_PIECE = 1 << 20
# What a parser meets in bytes that aren't what they say; a BadGzipFile is an OSError, and storage's own errors aren't.
_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
    RecursionError,
)


def read_members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Each member's header, with a function that reads its data; to be called before the next step.

    Ends only when the tar's end was checked: at least one block of zeros, and nothing but zeros.

    Args:
        file: Seekable; plain tar or gzip, told by its first bytes.

    Raises:
        BrokenTarError: The tar or the gzip is damaged, cut, or followed by something.
    """
    with _damage_told():
        plain = _open(file)
        # The encoding is named, since the default is the machine's.
        tar = tarfile.TarFile(fileobj=plain, encoding="utf-8")  # type: ignore[arg-type] # it reads, seeks and tells, no more
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined] # else memory grows with the shard
            check_headers(plain.take_headers(), info)
            yield info, partial(plain.member, info)
        plain.seek(tar.offset)
        plain.check_end()


def _open(file: BinaryIO) -> _Forward:
    size = file.seek(0, io.SEEK_END)  # first: it empties the buffer, and the first range would be fetched twice
    file.seek(0)
    start = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if start != _GZIP_MAGIC:
        return _Forward(file, None)
    packed = gzip.GzipFile(fileobj=_Packed(file))
    return _Forward(packed, max(_EXPANDS_ANYWAY, MAX_EXPANSION * size))


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise BrokenTarError(" ".join(str(error).split())[:300] or type(error).__name__) from None


class _Packed:
    """A gzip file as `gzip` reads it, which looks for the end of a name in its header byte by byte, for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._single = 0

    def read(self, size: int = -1) -> bytes:
        self._single = self._single + 1 if size == 1 else 0
        if self._single > _MAX_GZIP_NAME:
            raise BrokenTarError(f"a gzip header has a name or comment of more than {_MAX_GZIP_NAME} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def seekable(self) -> bool:
        return True


class _Forward:
    """A file as `tarfile` needs it, read once: steps back by at most one block, from memory.

    `tarfile` looks at the byte before each header, which in gzip would mean to begin anew.
    """

    def __init__(self, file: Any, limit: int | None) -> None:  # noqa: ANN401 - a BinaryIO, or a GzipFile, which isn't one by name only
        self._file = file
        self._limit = limit
        self._at = 0
        self._headers = bytearray()  # read since the last member
        self._last = b""  # up to a block before `_at`
        self._again = b""  # what was stepped back over

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise BrokenTarError(f"the header at byte {self._at} says that {size} bytes of header follow")
        data = self._take(size)
        if size > 1:  # `tarfile` looks at the byte before a header to see whether it is there
            self._headers += data
        if len(self._headers) > MAX_HEADER_BYTES:
            raise BrokenTarError(f"more than {MAX_HEADER_BYTES} bytes of header before byte {self._at}")
        return data

    def take_headers(self) -> bytes:
        """What was read of headers since this was asked last."""
        headers = bytes(self._headers)
        self._headers.clear()
        return headers

    def seek(self, offset: int) -> None:
        back = self._at - offset
        self._check_expansion(offset)
        if back > len(self._last):
            raise BrokenTarError(f"the header before byte {self._at} points back to byte {offset}")
        if back > 0:
            self._again = self._last[-back:] + self._again
            self._last = self._last[:-back]
        elif back < 0:
            self._file.seek(-back - len(self._again), io.SEEK_CUR)
            self._again = self._last = b""
        self._at = offset

    def member(self, info: tarfile.TarInfo) -> bytes:
        with _damage_told():
            self.seek(info.offset_data)
            data = self._take(info.size)
        if len(data) < info.size:
            raise BrokenTarError(
                f"{shown(info.name)} should have {info.size} bytes, and the file ends after {len(data)}"
            )
        return data

    def check_end(self) -> None:
        start = self._at
        while piece := self._take(_END_PIECE):
            if piece.count(0) == len(piece):
                continue
            if self._at - len(piece) == start and any(piece[:BLOCK]):
                raise BrokenTarError(f"expected a header or the closing zeros at byte {start}, found neither")
            raise BrokenTarError(
                f"more follows the zeros at byte {start}: a damaged block, or a second tar behind the first"
            )
        if self._at - start < BLOCK:
            raise BrokenTarError(f"it ends at byte {self._at} without the zeros that close a tar: it was cut off")

    def _check_expansion(self, offset: int) -> None:
        if self._limit is not None and offset > self._limit:
            raise BrokenTarError(f"its gzip would expand to more than {self._limit} bytes; pack it anew, or not at all")

    def _take(self, size: int) -> bytes:
        data = self._again[:size]
        self._again = self._again[size:]
        while len(data) < size and (more := self._file.read(size - len(data))):
            data = data + more if data else more
        self._at += len(data)
        self._check_expansion(self._at)
        self._last = data[-BLOCK:] if len(data) >= BLOCK else (self._last + data)[-BLOCK:]
        return data
