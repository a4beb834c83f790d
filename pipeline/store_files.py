"""The files that a `Store` hands out: one to write, which counts and hashes, and one to read by ranges."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from pipeline.store_errors import told


class Writing(io.RawIOBase):
    """A file being written by `Store.writer`: counts and hashes what goes through."""

    def __init__(self, inner: Any, uri: str) -> None:  # noqa: ANN401 - obstore names its writer in stubs only
        self._inner = inner
        self._uri = uri
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of all bytes so far, in hex."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - whatever has the buffer protocol
        view = memoryview(data).cast("B")
        with told("write", self._uri):
            self._inner.write(bytes(view))
        self._digest.update(view)
        self.size_bytes += len(view)
        return len(view)


class Ranges(io.RawIOBase):
    """An object's bytes by ranged requests, each at most `limit` bytes.

    Args:
        read: Gives the bytes from a start to an end (exclusive).
        size: Bytes of the object.
        limit: Bytes asked for at once, at most.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, limit: int) -> None:
        self._read = read
        self._size = size
        self._limit = limit
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"can't seek to {start + offset}, before the start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever has the buffer protocol
        end = min(self._at + min(len(buffer), self._limit), self._size)
        if end <= self._at:
            return 0
        data = self._read(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        # The inherited one asks for 8 KiB at a time.
        return b"".join(iter(lambda: self.read(self._limit) or b"", b""))
