"""Bytes at URIs: one face for local folders, s3://, gs:// and az://, for all of the pipeline.

Atomic throughout: an object is there whole or not at all, also after a crash. Reads are bounded
ranges that insist on the version that was listed. A trap: a `Store` opens anew where it is
unpickled, so credentials and AWS_ENDPOINT_URL must be there on each node.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import obstore
import stamina
from obstore.exceptions import PreconditionError
from obstore.store import LocalStore

from pipeline.errors import ExistsError, NotFoundError, StoreAwayError
from pipeline.store_errors import told
from pipeline.store_files import Ranges, Writing
from pipeline.store_open import is_local, normal_uri, open_cloud

if TYPE_CHECKING:
    from obstore import GetOptions

MIB = 1 << 20
# Else Python's last resort writes stamina's own words on people's terminals, each time that it waits.
logging.getLogger("stamina").addHandler(logging.NullHandler())

PART_MIB = 8
"""MiB of one part of a multipart upload; S3 takes 10,000 of them, so an object may have 78 GiB."""

FIRST_RETRY_S = 5.0
"""Seconds for which obstore tries a request again by itself."""

LONGEST_RETRY_S = 240.0
"""The same for the requests of an upload; signatures hold for some minutes."""

_CONCURRENT_PARTS = 2
_DELETE_AT_ONCE = 1000
_FOLDER_TRIES = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a listing or a head tells of an object.

    Args:
        path: Below the store's root, with `/` between segments.
        size: Bytes.
        etag: The server's ETag; of a local file its inode, modification time and size.
    """

    path: str
    size: int
    etag: str


class Store:
    """Objects below one root, as `open_store` gives it. Safe to use from several threads."""

    def __init__(self, uri: str, patience_s: float) -> None:
        self.uri = normal_uri(uri)
        self.patience_s = patience_s
        # obstore tries again by itself, with the request that it signed once and whatever the reason. Who
        # waits longer is this caller: signed anew, not where waiting can't help, and also for what may have
        # been done already, a conditional put whose connection was reset. So its winner may see ExistsError.
        self._retrying = stamina.RetryingCaller(attempts=None, timeout=max(patience_s, 0.001)).on(StoreAwayError)
        whole = 3 + int(patience_s / LONGEST_RETRY_S)
        self._writing_anew = stamina.RetryingCaller(attempts=whole, timeout=None).on(StoreAwayError)
        self.is_local = is_local(self.uri)
        if self.is_local:
            # From "/": a prefix would have to exist, and reading must create nothing.
            self._inner: Any = LocalStore()
            self._streamed, self._base = self._inner, self.uri.strip("/")
        else:
            # A request of an upload that is given up costs the whole upload, so there obstore waits longer.
            retry_s = [min(patience_s, longest) for longest in (FIRST_RETRY_S, LONGEST_RETRY_S)]
            (self._inner, self._streamed), self._base = open_cloud(self.uri, *retry_s)

    def __reduce__(self) -> tuple[Callable[[str, float], Store], tuple[str, float]]:
        return open_store, (self.uri, self.patience_s)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def uri_of(self, path: str) -> str:
        return f"{self.uri.rstrip('/')}/{path}" if path else self.uri

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Everything below a folder, sorted by the bytes of the path; nothing when there is no such folder.

        Holds the whole listing (some 300 bytes an object): neither a local file system nor each
        S3 server lists in this order by itself.
        """
        root = self._full(prefix)
        skip = len(self._base) + 1 if self._base else 0
        found = self._patiently(
            "list", prefix, lambda: obstore.list(self._inner, root or None, chunk_size=1000).collect()
        )
        stored = [Stored(meta["path"][skip:], meta["size"], meta["e_tag"] or "") for meta in found]
        return iter(sorted(stored, key=lambda s: s.path.encode()))

    def head(self, path: str) -> Stored:
        """Size and ETag.

        Raises:
            NotFoundError: No such object.
        """
        meta = self._patiently("read", path, lambda: obstore.head(self._inner, self._full(path)))
        return Stored(path, meta["size"], meta["e_tag"] or "")

    def get(self, path: str) -> bytes:
        """A small object whole.

        Raises:
            NotFoundError: No such object.
        """
        return self._patiently("read", path, lambda: bytes(obstore.get(self._inner, self._full(path)).bytes()))

    def get_range(self, stored: Stored, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of the version that was listed.

        Raises:
            ChangedError: The object is another one now.
        """
        options: GetOptions = (
            {"if_match": stored.etag, "range": (start, end)} if stored.etag else {"range": (start, end)}
        )

        def attempt() -> bytes:
            found = obstore.get(self._inner, self._full(stored.path), options=options)
            if _plain(found.meta["e_tag"]) != _plain(stored.etag):  # some servers ignore If-Match
                raise PreconditionError("another ETag")
            return bytes(found.bytes())

        return self._patiently("read", stored.path, attempt)

    def open(self, stored: Stored, range_mib: int = PART_MIB) -> io.BufferedReader:
        """Read an object in ranges of `range_mib` MiB; seekable, holds one range and copies from it.

        No request stays open between reads, so a reader may wait as long as it likes.
        """
        ranges = Ranges(lambda start, end: self.get_range(stored, start, end), stored.size, range_mib * MIB)
        return io.BufferedReader(ranges, range_mib * MIB)

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        """Write a small object at once.

        Args:
            path: Below the root; folders need not exist.
            data: The bytes.
            create: Only when there is none yet. Atomic: of several writers one wins. After a
                broken connection the winner may see `ExistsError` for its own bytes.

        Raises:
            ExistsError: `create`, and there is one.
        """
        mode: Literal["create", "overwrite"] = "create" if create else "overwrite"

        def attempt() -> None:
            # Not as multipart: its completion is not conditional everywhere.
            obstore.put(self._inner, self._full(path), data, mode=mode, use_multipart=False)

        for tries_left in reversed(range(_FOLDER_TRIES)):
            try:
                self._patiently("write", path, attempt)
            except NotFoundError:
                # On disk another run may take the folder away, empty, between its making and the writing into it.
                if not tries_left:
                    raise
            else:
                return

    def writer(self, path: str) -> AbstractContextManager[Writing]:
        """Stream an object: nothing is there until the block ends, and nothing is left if it raises.

        Some of an upload's answers can be lost so that only the whole can be written again: see `written`.
        """
        return self._writer(path)

    def written(self, attempt: Callable[[], T]) -> T:
        """Do what streams objects, and do it anew when storage went away in the middle.

        Args:
            attempt: Must write the same each time.
        """
        return self._writing_anew(attempt)

    @contextmanager
    def _writer(self, path: str) -> Iterator[Writing]:
        uri = self.uri_of(path)
        with told("write", uri):
            inner = obstore.open_writer(
                self._streamed, self._full(path), buffer_size=PART_MIB * MIB, max_concurrency=_CONCURRENT_PARTS
            )
        file = Writing(inner, uri)
        try:
            yield file
        except BaseException as error:  # an interrupt must leave nothing either
            inner.__exit__(type(error), error, None)
            raise
        with told("write", uri):
            inner.close()

    def delete(self, path: str) -> None:
        """Delete an object; one that isn't there is fine."""
        with suppress(NotFoundError):
            self._patiently("delete", path, lambda: obstore.delete(self._inner, self._full(path)))

    def delete_below(self, prefix: str) -> int:
        """Delete all below a folder; gives how many objects that were."""
        paths = [stored.path for stored in self.list(prefix)]
        if self.is_local:
            for path in paths:
                self.delete(path)
            # Empty folders, and what a killed writer left: temporary files, which no listing shows.
            shutil.rmtree(f"/{self._full(prefix)}", ignore_errors=True)
            return len(paths)
        for start in range(0, len(paths), _DELETE_AT_ONCE):
            some = [self._full(path) for path in paths[start : start + _DELETE_AT_ONCE]]
            self._patiently("delete", prefix, partial(obstore.delete, self._inner, some))
        return len(paths)

    def drop_empty_folders(self, prefix: str) -> None:
        """Remove a local folder and those in it as far as they hold no file: listings walk through each of them.

        For when nobody writes there: who makes a folder just now may find the one above it gone.
        """
        if self.is_local:
            for folder, _, _ in os.walk(f"/{self._full(prefix)}", topdown=False):
                with suppress(OSError):  # it holds something
                    Path(folder).rmdir()

    def _full(self, path: str) -> str:
        return f"{self._base}/{path.strip('/')}".strip("/")

    def _patiently(self, action: str, path: str, attempt: Callable[[], T]) -> T:
        def told_attempt() -> T:
            with told(action, self.uri_of(path)):
                return attempt()

        return self._retrying(told_attempt)


def _plain(etag: str | None) -> str:
    """An ETag without its quotes, which not every listing has."""
    return (etag or "").strip('"')


def open_store(uri: str, patience_s: float = 60.0) -> Store:
    """Open a root: a local folder, file://, s3://bucket/prefix, gs:// or az://. Asks nothing of the server yet.

    Args:
        uri: The root. It need not exist.
        patience_s: How long an unreachable store is waited for.

    Raises:
        ConfigError: No such scheme, or no bucket.
        StoreError: No credentials.
    """
    return Store(uri, patience_s)


def supports_create(store: Store, path: str) -> bool:
    """Whether `put(create=True)` holds: some S3 servers ignore If-None-Match and overwrite.

    Tried on an object that is there, with the bytes that it has: whatever happens, nothing changes
    and nothing is left.
    """
    if store.is_local:
        return True
    try:
        store.put(path, store.get(path), create=True)
    except ExistsError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar shard of the input, as the listing saw it.

    Args:
        name: Path below the input's prefix, as `cam1/000000.tar`; each segment is a plain name.
        uri: Where it lies, in full.
        store_uri: The root it lies below: `open_store` takes it.
        stored: Its path below that root, size and ETag.
    """

    name: str
    uri: str
    store_uri: str
    stored: Stored

    @property
    def identity(self) -> str:
        """12 hex digits over URI, size and ETag: another content, or another place, is another identity."""
        text = "\n".join((self.uri, str(self.stored.size), self.stored.etag))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
