"""A second look at the headers of a tar member, stricter than `tarfile`'s own.

`tarfile` reads a size that isn't a number as 0, lets a pax field overrule the header's size, and
stops at a pax record that it doesn't understand. Readers differ in all three, so that one shard would
hold other samples for another reader; here each is an error of the shard.
"""

from __future__ import annotations

import re
import tarfile

_BLOCK = tarfile.BLOCKSIZE
_SIZE = slice(124, 136)
_TYPE = slice(156, 157)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_ABOUT_THE_NEXT = (*_PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")
_LARGEST_OCTAL = 8**11 - 1


class BrokenTarError(Exception):
    """Where the members lie, or where the tar ends, is uncertain."""


def shown(name: str) -> str:
    """A name from a tar, fit for a message."""
    return repr(name) if len(name) <= 100 else f"{name[:80]!r}... ({len(name)} characters)"


def check_headers(blocks: bytes, info: tarfile.TarInfo) -> None:
    """Whether a member's size is the one that every reader would take.

    Args:
        blocks: All that was read of the member's headers: those about it (long names, pax fields) and its own.
        info: What `tarfile` made of them.

    Raises:
        BrokenTarError: The sizes differ, aren't numbers, or belong to something that has no data.
    """
    where = f"the header of {shown(info.name)} at byte {info.offset}"
    at, pax_sizes = 0, []
    while blocks[at:][_TYPE] in _ABOUT_THE_NEXT:
        size = _size(blocks[at:], where)
        fields = blocks[at + _BLOCK : at + _BLOCK + size]
        if blocks[at:][_TYPE] in _PAX:
            found = _pax_sizes(fields, where)
            if found and blocks[at:][_TYPE] == tarfile.XGLTYPE:
                raise BrokenTarError(f"{where}: a size for all further members")
            pax_sizes += found
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    own = _size(blocks[at:], where)
    for size in pax_sizes:
        if size != own and size <= _LARGEST_OCTAL:
            raise BrokenTarError(f"{where} gives a size of {own} bytes, and its pax fields one of {size}")
        own = size
    if info.issparse():
        return  # its size is that of the holes as well
    if info.size != own:
        raise BrokenTarError(f"{where} gives a size of {own} bytes, and was read as {info.size}")
    if own and not info.isreg() and info.type in tarfile.SUPPORTED_TYPES:
        raise BrokenTarError(f"{where} gives a size of {own} bytes to a link, folder or device, which has no data")


def _size(header: bytes, where: str) -> int:
    """The size in a header: octal digits, or base 256 behind the byte 0x80.

    Raises:
        BrokenTarError: Neither, or below 0.
    """
    field = header[_SIZE]
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    if not re.fullmatch(rb" *[0-7]*[ \0]*", field):
        raise BrokenTarError(f"{where}: expected a size of octal digits, found {field!r}")
    return int(field.strip(b" \0") or b"0", 8)


def _pax_sizes(fields: bytes, where: str) -> list[int]:
    """The sizes among pax fields; each record, `LENGTH KEYWORD=VALUE` and a newline, has the length it says."""
    sizes, at = [], 0
    while at < len(fields):
        head = _PAX_RECORD.match(fields, at)
        end = at + int(head[1]) if head else 0
        if head is None or not head.end() < end <= len(fields) or fields[end - 1 : end] != b"\n":
            if not any(fields[at:]):
                break  # filled up with zeros, which hide nothing
            raise BrokenTarError(f"{where}: the pax record at its byte {at} has another length than it says")
        if head[2] == b"size":
            value = fields[head.end() : end - 1]
            if not value.isdigit() or len(value) > 20:
                raise BrokenTarError(f"{where}: expected a size in its pax fields, found {value[:40]!r}")
            sizes.append(int(value))
        at = end
    return sizes
