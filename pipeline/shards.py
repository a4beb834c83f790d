"""Tar shards in and out, by WebDataset's rules, with nothing lost in silence.

Consecutive members with one key are a sample. A shard is read to its last byte or fails by name;
samples come before its end is known, so a consumer commits nothing before the iterator ends.
Memory: one sample, and some 100 bytes a sample to recognise a key that returns.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import RawIOBase
from typing import Any, BinaryIO

from pipeline.config import LimitsConfig
from pipeline.errors import ShardError
from pipeline.tar_headers import BrokenTarError, shown
from pipeline.tars import BLOCK, read_members

MAX_NAMED = 20
"""Skipped members that are kept by name; beyond, they are only counted."""

NO_LIMITS = LimitsConfig(max_member_mib=1 << 20, max_sample_mib=1 << 20, max_members=1 << 20, max_pixels=1 << 40)
"""For shards that we wrote ourselves: what is in them was within the limits before it was purified."""

# What webdataset's reader takes for its own: meta files, and the fields that it adds to a sample.
_META_NAME = re.compile(r"__[^/]*__(/|$)")
_RESERVED_SUFFIXES = frozenset({"__key__", "__url__", "__local_path__", "__bad__"})


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample.

    Args:
        name: The whole name in the tar.
        suffix: What follows the first dot of the file's name, as it stands: 'png', 'seg.png'.
        data: Its bytes.
    """

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """A run of members with one key.

    Args:
        key: Name up to the first dot of the file's name, folders included.
        index: Place in the shard, from 0.
        members: In the received order; of a rejected sample, those before the reason came up.
        rejected: Why it can't be processed, else None.
    """

    key: str
    index: int
    members: tuple[Member, ...]
    rejected: str | None = None


@dataclass(slots=True)
class Skipped:
    """Members that belong to no sample: without a key, webdataset's own, links and devices."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < MAX_NAMED:
            self.names.append(_printable(name))

    def facts(self) -> dict[str, object]:
        """For the shard's record."""
        return {"count": self.count, "names": list(self.names)}


def key_and_suffix(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member's name, or None: the rule of `webdataset.tariterators.base_plus_ext`.

    Spelled out here, since that package imports torch, which would cost each reader seconds and memory.
    """
    dot = name.find(".", name.rfind("/") + 1)
    if dot <= 0:
        return None
    key = name[:dot]
    # A corner of that rule: a hidden file `a/.b` has the key `a/`, unless its folder is hidden too.
    start = key.find("/", key.rfind(".")) + 1 if "." in key else 0
    if start == len(key) or "\n" in key[:start]:
        return None
    return key, name[dot + 1 :]


def read_samples(file: BinaryIO, name: str, limits: LimitsConfig, skipped: Skipped | None = None) -> Iterator[Sample]:
    """A shard's samples in order; the last one comes after the shard's end was checked.

    A sample is rejected when it is over a limit (what is too large isn't read), holds two members
    of one suffix, returns a key that came before (readers that find the samples between gone would
    join the two), or has a name that tables can't hold.

    Args:
        file: The shard, seekable; plain or gzip, told by its first bytes and not by its name.
        name: The shard's name, for messages.
        limits: What is read at most.
        skipped: Gets the members that belong to no sample.

    Raises:
        ShardError: A member's boundary or the shard's end is uncertain.
    """
    last_good: str | None = None
    try:
        for sample in _samples(file, limits, Skipped() if skipped is None else skipped):
            yield sample
            last_good = sample.key
    except BrokenTarError as error:
        where = "before the first sample was whole" if last_good is None else f"after the key {shown(last_good)}"
        raise ShardError(f"shard {name}: broken {where}: {error}. Make the shard anew.", last_good) from None


def _samples(file: BinaryIO, limits: LimitsConfig, skipped: Skipped) -> Iterator[Sample]:
    seen: set[bytes] = set()
    growing: _Growing | None = None
    num_samples = 0
    for info, read in read_members(file):
        if info.isdir():
            continue
        named = key_and_suffix(info.name)
        if named is None or not info.isreg() or _META_NAME.match(info.name):
            skipped.add(info.name)
            continue
        key, suffix = named
        if growing is None or key != growing.key:
            if growing is not None:
                yield growing.sample()
            growing = _Growing(key, num_samples, limits, _first_time(key, seen))
            num_samples += 1
        growing.take(info, suffix, read)
    if growing is not None:
        yield growing.sample()


def _first_time(key: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    is_first = digest not in seen
    seen.add(digest)
    return is_first


class _Growing:
    """The sample whose members are being read."""

    def __init__(self, key: str, index: int, limits: LimitsConfig, is_first: bool) -> None:
        self.key = key
        self._index = index
        self._limits = limits
        self._members: list[Member] = []
        self._suffixes: set[str] = set()
        self._size = 0
        self._rejected = None if is_first else "the key occurred before in this shard"

    def take(self, info: tarfile.TarInfo, suffix: str, read: Callable[[], bytes]) -> None:
        self._rejected = self._rejected or self._reason(info, suffix)
        if self._rejected is None:
            self._members.append(Member(info.name, suffix, read()))
            self._suffixes.add(suffix.lower())
            self._size += info.size

    def sample(self) -> Sample:
        return Sample(_printable(self.key), self._index, tuple(self._members), self._rejected)

    def _reason(self, info: tarfile.TarInfo, suffix: str) -> str | None:
        if suffix.lower() in self._suffixes:  # webdataset doesn't tell cases apart
            return f"two members have the suffix {shown(_printable(suffix.lower()))}"
        if suffix.lower() in _RESERVED_SUFFIXES:
            return f"the suffix {suffix.lower()!r} is reserved by webdataset"
        if len(self._members) == self._limits.max_members:
            return f"more than limits.max_members = {self._limits.max_members} members"
        if info.size > self._limits.max_member_mib << 20:
            return (
                f"member .{_printable(suffix)[:80]} has {info.size} bytes, "
                f"more than limits.max_member_mib = {self._limits.max_member_mib}; not read"
            )
        if self._size + info.size > self._limits.max_sample_mib << 20:
            return (
                f"its members have more than limits.max_sample_mib = {self._limits.max_sample_mib}, "
                f"from .{_printable(suffix)[:80]} on; not read"
            )
        if info.issparse():
            return f"member .{_printable(suffix)[:80]} is stored with holes (sparse)"
        if "\0" in info.name or _printable(info.name) != info.name:
            return "a member's name is not UTF-8, or holds a NUL"
        return None


def _printable(name: str) -> str:
    """The name as tables and messages can hold it: bytes that aren't UTF-8 are spelled in hex."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_shard(
    file: BinaryIO | RawIOBase, name: str, samples: Iterable[tuple[str, Sequence[tuple[str, bytes]]]]
) -> int:
    """Write a shard, with the same bytes each time: the given order, no clock, no owner.

    Args:
        file: Where to; stays open.
        name: The shard's name; `.gz` at its end makes it gzip.
        samples: Key and members, each a whole member name and its bytes.

    Returns:
        How many samples were written.

    Raises:
        ShardError: Two samples of one key follow each other: readers would take them for one.
    """
    if not name.endswith(".gz"):
        return _write(file, name, samples)
    # Level 1, since images are compressed already; no file name and no time in the header, for equal bytes.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed:
        return _write(packed, name, samples)


def _write(file: Any, name: str, samples: Iterable[tuple[str, Sequence[tuple[str, bytes]]]]) -> int:  # noqa: ANN401 - a BinaryIO or a GzipFile
    num_samples = num_bytes = 0
    last: str | None = None
    for key, members in samples:
        if key == last:
            raise ShardError(
                f"shard {name}: two samples with the key {key!r} follow each other; they would read as one."
            )
        last, num_samples = key, num_samples + 1
        for member_name, data in members:
            info = tarfile.TarInfo(member_name)
            info.size = len(data)
            header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            padding = bytes(-len(data) % BLOCK)
            for piece in (header, data, padding):
                file.write(piece)
            num_bytes += len(header) + len(data) + len(padding)
    closing = 2 * BLOCK
    file.write(bytes(closing + -(num_bytes + closing) % tarfile.RECORDSIZE))
    return num_samples
