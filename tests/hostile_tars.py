"""Tars that were made to hurt, or are merely odd, each with what its shard gets.

The expectation was decided by the rule: what makes a member's boundary or the tar's end uncertain
fails the shard, with the last good key; what concerns one sample costs its own row.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from making import encoded, picture

BLOCK = tarfile.BLOCKSIZE
PIXEL = encoded(picture(1, 1, 1))
IMAGE = encoded(picture(2))

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class TarCase:
    """One shard.

    Args:
        about: What it is, for the table.
        make: Its bytes.
        rows: Key and status of each row; None: the shard fails.
        last_good: The last key that was sure, when it fails.
        says: A piece of the row's error, or of the shard's.
        skipped: Members that no sample owns.
        suffix: Of the shard's name.
        is_read_alike: Whether the standard library reads the same samples, so that it can be a second opinion.
    """

    about: str
    make: Callable[[], bytes]
    rows: Rows | None
    last_good: str | None = None
    says: str = ""
    skipped: int = 0
    suffix: str = ".tar"
    is_read_alike: bool = True


def header(
    name: str, size: int = 0, kind: bytes = b"0", format: int = tarfile.USTAR_FORMAT, **fields: str | int
) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(format, "utf-8", "surrogateescape")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: str, data: bytes = IMAGE, format: int = tarfile.PAX_FORMAT, **fields: str | int) -> bytes:
    return header(name, len(data), format=format, **fields) + padded(data)


def resummed(head: bytes) -> bytes:
    """The header with a right checksum, whatever was changed in it."""
    blank = head[:148] + b" " * 8 + head[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def with_size(name: str, field: bytes, data: bytes = IMAGE) -> bytes:
    head = header(name, len(data))
    return resummed(head[:124] + field.ljust(12, b"\0") + head[136:]) + padded(data)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("././@PaxHeader", len(records), kind) + padded(records)


def record(keyword: bytes, value: bytes, length: int | None = None) -> bytes:
    body = b" " + keyword + b"=" + value + b"\n"
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size += 1
    return str(length or size).encode() + body


def tar(*pieces: bytes, end: bytes = bytes(2 * BLOCK)) -> bytes:
    return b"".join(pieces) + end


GOOD = ("good", "ok")
SOUND = file("good.png") + file("good.cls", b"3")


def after_good(*pieces: bytes) -> bytes:
    """A good sample and what follows it."""
    return tar(SOUND, *pieces)


def before_good(*pieces: bytes) -> bytes:
    return tar(*pieces, SOUND)


def kinds(*types: bytes) -> bytes:
    return tar(*(header(f"x{i}.png", kind=kind, linkname="../../etc/passwd") for i, kind in enumerate(types)), SOUND)


@cache
def ten(format: int = tarfile.USTAR_FORMAT) -> bytes:
    return tar(*(file(f"{i}.png", IMAGE, format) for i in range(10)))


def rows_of(keys: Iterable[object], status: str = "ok") -> Rows:
    return [(str(key), status) for key in keys]


def gnu_sparse() -> bytes:
    """An old GNU sparse member: one piece of 512 bytes at 1 MiB."""
    head = bytearray(header("x.png", BLOCK, tarfile.GNUTYPE_SPARSE, tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (1 << 20, BLOCK)
    head[483:495] = b"%011o\0" % ((1 << 20) + BLOCK)
    return resummed(bytes(head)) + bytes(BLOCK)


def endless_sparse() -> bytes:
    head = bytearray(gnu_sparse()[:BLOCK])
    head[482] = 1
    more = bytearray(BLOCK)
    more[504] = 1
    return resummed(bytes(head)) + bytes(more) * 3000


def endless_map() -> bytes:
    """A pax sparse map that says that millions of numbers follow, with no end of line."""
    fields = (
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.name", b"x.png")
    )
    body = b"99999999\n" + b"1" * (4 << 20)
    return pax(fields) + header("x.png", len(body)) + padded(body)


def old_tar() -> bytes:
    """Version 7: no magic, no prefix, a NUL for a file."""
    pieces = []
    for i in range(3):
        head = header(f"{i}.png", len(IMAGE), b"\0")
        pieces.append(resummed(head[:257] + bytes(255)) + padded(IMAGE))
    return tar(*pieces)


def hidden_tar() -> bytes:
    """A member's data is a tar; pax says that the member is empty, the header that it isn't."""
    inside = file("hidden.png")
    return after_good(pax(record(b"size", b"0")), header("x.txt", len(inside)), inside)


def gzip_named_for_ever() -> bytes:
    return b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (1 << 20)


def gzip_bomb() -> bytes:
    """A few kB whose second member says that it has 300 GB."""
    return gzip.compress(tar(SOUND, header("x.png", 300 << 30, format=tarfile.GNU_FORMAT), end=bytes(8 << 20)), 9)


MANY = [f"{i:05d}" for i in range(1000)]

TARS: list[TarCase] = [
    TarCase("a sound tar", ten, rows_of(range(10))),
    TarCase(
        "pax, GNU and ustar members in one tar",
        lambda: tar(*(file(f"{i}.png", IMAGE, i) for i in range(3))),
        rows_of(range(3)),
    ),
    TarCase("a tar of version 7", old_tar, rows_of(range(3))),
    TarCase(
        "a name over prefix and name (ustar)",
        lambda: tar(file("d/" * 70 + "a.png", IMAGE, tarfile.USTAR_FORMAT)),
        rows_of(["d/" * 70 + "a"]),
    ),
    TarCase("a name of 300 characters (pax)", lambda: before_good(file("n" * 300 + ".png")), [("n" * 300, "ok"), GOOD]),
    TarCase(
        "a name of 300 characters (GNU)",
        lambda: before_good(file("n" * 300 + ".png", IMAGE, tarfile.GNU_FORMAT)),
        [("n" * 300, "ok"), GOOD],
    ),
    TarCase(
        "a name of 100,000 characters", lambda: before_good(file("n" * 100_000 + ".png")), [("n" * 100_000, "ok"), GOOD]
    ),
    TarCase("an absolute name", lambda: before_good(file("/etc/cron.d/evil.png")), [("/etc/cron.d/evil", "ok"), GOOD]),
    TarCase("a name that climbs up", lambda: before_good(file("../../evil.png")), [("../../evil", "ok"), GOOD]),
    TarCase("a backslash in a name", lambda: before_good(file("d\\evil.png")), [("d\\evil", "ok"), GOOD]),
    TarCase("a new line in a name", lambda: before_good(file("a\nb.png")), [("a\nb", "ok"), GOOD]),
    TarCase(
        "control characters in a name", lambda: before_good(file("a\x1b[2Jb\x07.png")), [("a\x1b[2Jb\x07", "ok"), GOOD]
    ),
    TarCase(
        "one name in two Unicode forms",
        lambda: tar(file("\u00e9.png"), file("e\u0301.png")),
        [("\u00e9", "ok"), ("e\u0301", "ok")],
    ),
    TarCase(
        "a name that turns direction, and one of emoji",
        lambda: tar(file("a\u202egnp.png"), file("\U0001f40e.png")),
        [("a\u202egnp", "ok"), ("\U0001f40e", "ok")],
    ),
    TarCase(
        "a name that isn't UTF-8",
        lambda: before_good(file("a\udcff.png", IMAGE, tarfile.GNU_FORMAT)),
        [("a\\xff", "rejected"), GOOD],
        says="not UTF-8",
    ),
    TarCase(
        "a surrogate in a pax name",
        lambda: before_good(pax(record(b"path", b"a\xed\xa0\x80.png")), file("x")),
        [("a\\xed\\xa0\\x80", "rejected"), GOOD],
        says="not UTF-8",
    ),
    TarCase(
        "a NUL in a pax name",
        lambda: before_good(pax(record(b"path", b"a\0b.png")), file("x")),
        [("a\0b", "rejected"), GOOD],
        says="a NUL",
    ),
    TarCase("a key with several dots", lambda: tar(file("a.b.c.png"), file("a.png")), [("a", "ok")]),
    TarCase("a mask beside the image", lambda: tar(file("a.png"), file("a.seg.png")), [("a", "ok")]),
    TarCase(
        "names without a dot", lambda: before_good(file("README", b"1"), file("Makefile", b"2")), [GOOD], skipped=2
    ),
    TarCase(
        "hidden files and webdataset's own",
        lambda: before_good(file(".x", b""), file("__meta__/a.png")),
        [GOOD],
        skipped=2,
    ),
    TarCase(
        "nested folders, and entries for them",
        lambda: before_good(header("d/", kind=b"5"), header("d/e/", kind=b"5"), file("d/e/a.png")),
        [("d/e/a", "ok"), GOOD],
    ),
    TarCase("links that lead out, hard and symbolic", lambda: kinds(b"1", b"2"), [GOOD], skipped=2),
    TarCase("devices and pipes", lambda: kinds(b"3", b"4", b"6"), [GOOD], skipped=3),
    TarCase(
        "an image that is a link",
        lambda: before_good(header("a.png", kind=b"2", linkname="b"), file("a.cls", b"1")),
        [("a", "rejected"), GOOD],
        says="found none",
        skipped=1,
    ),
    TarCase("types that nobody knows", lambda: kinds(b"Z", b"V", b"M"), [GOOD], skipped=3),
    TarCase(
        "a link with a size",
        lambda: after_good(header("x.png", 100, b"1", linkname="good.png"), file("y.png")),
        None,
        None,
        "has no data",
    ),
    TarCase(
        "an old sparse member",
        lambda: before_good(gnu_sparse()),
        [("x", "rejected"), GOOD],
        says="holes",
        is_read_alike=False,
    ),
    TarCase("a sparse map without end", lambda: after_good(endless_sparse()), None, None, "bytes of header"),
    TarCase("a sparse map of one endless line", lambda: after_good(endless_map()), None),
    TarCase("a sparse map that is cut", lambda: tar(SOUND, endless_sparse()[: 2 * BLOCK], end=b""), None, None),
    TarCase(
        "a key twice",
        lambda: tar(file("a.png"), SOUND, file("a.png"), file("a.cls", b"1")),
        [("a", "ok"), GOOD, ("a", "rejected")],
        says="the key occurred before",
    ),
    TarCase(
        "a member twice",
        lambda: before_good(file("a.png"), file("a.png")),
        [("a", "rejected"), GOOD],
        says="two members have the suffix",
    ),
    TarCase(
        "members of one suffix in two cases",
        lambda: before_good(file("a.png"), file("a.PNG")),
        [("a", "rejected"), GOOD],
        says="two members have the suffix",
    ),
    TarCase(
        "a suffix that is webdataset's own",
        lambda: before_good(file("a.png"), file("a.__key__", b"b")),
        [("a", "rejected"), GOOD],
        says="reserved",
    ),
    TarCase(
        "a sample without an image",
        lambda: before_good(file("a.cls", b"1")),
        [("a", "rejected"), GOOD],
        says="found none",
    ),
    TarCase(
        "a sample of two images",
        lambda: before_good(file("a.png"), file("a.jpg")),
        [("a", "rejected"), GOOD],
        says="found .png, .jpg",
    ),
    TarCase(
        "a class that isn't a number", lambda: before_good(file("a.png"), file("a.cls", b"cat")), [("a", "ok"), GOOD]
    ),
    TarCase(
        "JSON that isn't JSON", lambda: before_good(file("a.png"), file("a.json", b"[" * 100_000)), [("a", "ok"), GOOD]
    ),
    TarCase(
        "JSON of 12 MB of lists",
        lambda: before_good(file("a.png"), file("a.json", b"[" + b"[]," * 4_000_000)),
        [("a", "ok"), GOOD],
    ),
    TarCase(
        "a pickle among the members",
        lambda: before_good(file("a.png"), file("a.pkl", b"cos\nsystem\n(S'x'\ntR.")),
        [("a", "ok"), GOOD],
    ),
    TarCase(
        "a sample of 10,000 members",
        lambda: before_good(file("a.png"), *(file(f"a.{i}", b"") for i in range(9999))),
        [("a", "rejected"), GOOD],
        says="limits.max_members",
    ),
    TarCase("1,000 samples of one pixel", lambda: tar(*(file(f"{key}.png", PIXEL) for key in MANY)), rows_of(MANY)),
    TarCase(
        "a member beyond the size limit",
        lambda: before_good(file("a.png", bytes(17 << 20))),
        [("a", "rejected"), GOOD],
        says="limits.max_member_mib",
    ),
    TarCase(
        "members beyond the sample's size limit",
        lambda: before_good(file("a.png"), *(file(f"a.{i}", bytes(8 << 20)) for i in range(3))),
        [("a", "rejected"), GOOD],
        says="limits.max_sample_mib",
    ),
    TarCase("a tar without members", lambda: tar(), []),
    TarCase("an empty file", lambda: b"", None, None, "before the first sample"),
    TarCase("a tar of zeros", lambda: bytes(10240), []),
    TarCase("one closing block", lambda: tar(SOUND, end=bytes(BLOCK)), [GOOD]),
    TarCase("no closing blocks", lambda: tar(SOUND, file("b.png"), end=b""), None, "good", "cut off"),
    TarCase("cut at a member's boundary", lambda: ten()[: 5 * (BLOCK + len(padded(IMAGE)))], None, "3", "cut off"),
    TarCase("cut inside a header", lambda: ten()[: 5 * (BLOCK + len(padded(IMAGE))) + 99], None, "3"),
    TarCase("cut inside a member", lambda: ten()[: 5 * (BLOCK + len(padded(IMAGE))) + BLOCK + 99], None, "4"),
    TarCase("two tars, one behind the other", lambda: ten() + ten(), None, "8", "second tar"),
    TarCase("something behind the end", lambda: ten() + b"<html>", None, "8"),
    TarCase("a zero block in the middle", lambda: tar(SOUND, file("b.png"), bytes(BLOCK), file("c.png")), None, "good"),
    TarCase(
        "a wrong checksum",
        lambda: after_good(file("b.png"), b"X" + file("c.png")[1:]),
        None,
        "good",
        "a header or the closing zeros",
    ),
    TarCase("no tar at all", lambda: b"<html>404</html>" * 999, None),
    TarCase("a size of 2 GiB, and no data", lambda: after_good(header("b.png", 2 << 30)), None, "good"),
    TarCase("a size below zero", lambda: after_good(with_size("b.png", b"-0000000123")), None, None, "octal digits"),
    TarCase("a size in base 256 below zero", lambda: after_good(with_size("b.png", b"\xff" * 12)), None, None),
    TarCase(
        "a size in base 256",
        lambda: before_good(with_size("b.png", b"\x80" + len(IMAGE).to_bytes(11, "big"))),
        [("b", "ok"), GOOD],
    ),
    TarCase(
        "a size in base 256 beyond all files",
        lambda: after_good(with_size("b.png", b"\x80" + b"\x7f" * 11)),
        None,
        "good",
    ),
    TarCase(
        "a size with an underline, which Python reads",
        lambda: after_good(with_size("b.png", b"0000_000123")),
        None,
        None,
        "octal digits",
    ),
    TarCase("a size of 8 blanks and letters", lambda: after_good(with_size("b.png", b"        zz")), None),
    TarCase(
        "a pax size that isn't the header's",
        lambda: after_good(pax(record(b"size", b"512")), file("b.png")),
        None,
        None,
        "and its pax fields one of 512",
    ),
    TarCase("a tar in a member, by a pax size of 0", hidden_tar, None, None, "and its pax fields one of 0"),
    TarCase(
        "a pax size that isn't a number",
        lambda: after_good(pax(record(b"size", b"many")), file("b.png")),
        None,
        None,
        "expected a size",
    ),
    TarCase(
        "a pax size for all further members",
        lambda: after_good(pax(record(b"size", b"99"), tarfile.XGLTYPE), file("b.png")),
        None,
        None,
        "all further",
    ),
    TarCase(
        "a real size under another name",
        lambda: after_good(pax(record(b"GNU.sparse.realsize", b"9")), file("b.png")),
        None,
        None,
        "was read as 9",
    ),
    TarCase(
        "a pax record of another length",
        lambda: after_good(pax(record(b"comment", b"x", 40) + record(b"path", b"y.png")), file("b.png")),
        None,
        None,
        "another length",
    ),
    TarCase(
        "a pax value of 900 kB",
        lambda: before_good(pax(record(b"comment", b"x" * 900_000)), file("b.png")),
        [("b", "ok"), GOOD],
    ),
    TarCase(
        "a pax value of 9 MB",
        lambda: after_good(pax(record(b"comment", b"x" * 9_000_000)), file("b.png")),
        None,
        None,
        "bytes of header follow",
    ),
    TarCase(
        "pax fields for everybody",
        lambda: before_good(pax(record(b"comment", b"x"), tarfile.XGLTYPE), file("b.png")),
        [("b", "ok"), GOOD],
    ),
    TarCase("5,000 pax headers in a row", lambda: after_good(pax(record(b"a", b"b")) * 5000), None, None),
    TarCase(
        "a GNU name of 8 GiB",
        lambda: after_good(header("././@LongLink", 8 << 30, b"L", tarfile.GNU_FORMAT)),
        None,
        None,
        "bytes of header follow",
    ),
    TarCase("gzip under .tar", lambda: gzip.compress(ten()), rows_of(range(10))),
    TarCase("gzip under .tar.gz", lambda: gzip.compress(ten()), rows_of(range(10)), suffix=".tar.gz"),
    TarCase("a plain tar under .tar.gz", ten, rows_of(range(10)), suffix=".tar.gz"),
    TarCase(
        "gzip of several members",
        lambda: gzip.compress(ten()[:3000]) + gzip.compress(ten()[3000:]),
        rows_of(range(10)),
        suffix=".tar.gz",
    ),
    TarCase("gzip padded with zeros", lambda: gzip.compress(ten()) + bytes(99), rows_of(range(10)), suffix=".tar.gz"),
    TarCase("gzip with a wrong CRC", lambda: gzip.compress(ten())[:-8] + bytes(8), None, "8", "CRC", suffix=".tar.gz"),
    TarCase("gzip with something behind", lambda: gzip.compress(ten()) + b"evil", None, "8", suffix=".tar.gz"),
    TarCase("gzip that is cut", lambda: gzip.compress(ten())[:-9], None, "8", suffix=".tar.gz"),
    TarCase("gzip of gzip", lambda: gzip.compress(gzip.compress(ten())), None, suffix=".tar.gz"),
    TarCase("a gzip bomb: a member of 300 GB", gzip_bomb, None, "good", "would expand", suffix=".tar.gz"),
    TarCase("gzip whose name doesn't end", gzip_named_for_ever, None, None, "name or comment", suffix=".tar.gz"),
    TarCase("JSON under .tar", lambda: json.dumps({"error": "NoSuchKey"}).encode(), None),
]
