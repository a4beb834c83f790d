"""Images that were made to hurt, or are merely odd, each with what its sample gets.

Built by hand where a library would refuse to. The expectation was decided by the rule, not by what
came out: what can't be decoded is `undecodable`, what is over a limit or ambiguous is `rejected`,
all else is purified with its alpha, EXIF and profile.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageCms

GENERATOR_SEED = 5
PIXELS = np.random.default_rng(GENERATOR_SEED).integers(0, 256, (20, 24, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(GENERATOR_SEED + 1).integers(0, 256, (20, 24), dtype=np.uint8)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class ImageCase:
    """One image of a sample.

    Args:
        about: What it is, for the table.
        make: Its bytes.
        gets: The status of its row.
        says: A piece of the row's error.
        mode: The row's mode, when it was decoded.
        keeps: What must be in the purified image as well: alpha, exif, icc.
        suffix: Of the member.
    """

    about: str
    make: Callable[[], bytes]
    gets: str
    says: str = ""
    mode: str | None = None
    keeps: tuple[str, ...] = ()
    suffix: str = "png"


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb(kind: str, **options: Any) -> bytes:
    return saved(Image.fromarray(PIXELS), kind, **options)


def rgba(kind: str, **options: Any) -> bytes:
    return saved(Image.fromarray(np.dstack([PIXELS, ALPHA])), kind, **options)


def of_mode(mode: str, kind: str, **options: Any) -> bytes:
    return saved(Image.fromarray(PIXELS).convert(mode), kind, **options)


def cut(make: Callable[[], bytes], keep: float) -> bytes:
    data = make()
    return data[: int(len(data) * keep)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, lines: bytes, *more: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def png16(colour: int, channels: int, *more: bytes) -> bytes:
    values = np.random.default_rng(7).integers(0, 65536, (5, 4 * channels), dtype=np.uint16)
    return png(4, 5, 16, colour, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values), *more)


def interlaced_png() -> bytes:
    """Adam7 of 1x1: its only pixel is all of the first pass."""
    return png(1, 1, 8, 2, b"\0\x0a\x14\x1e", interlaced=1)


def text_bomb(kind: bytes) -> bytes:
    packed = zlib.compress(bytes(3 << 20), 9)
    data = {
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"iCCP": b"icc\0\0" + packed,
    }[kind]
    return png(4, 4, 8, 0, bytes(20), chunk(kind, data))


def many_texts() -> bytes:
    packed = zlib.compress(bytes(1_000_000), 9)
    texts = [chunk(b"zTXt", b"k%d\0\0" % i + packed) for i in range(70)]
    return png(4, 4, 8, 0, bytes(20), *texts)


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    return jpeg[:2] + segments + jpeg[2:]


def many_scans(count: int) -> bytes:
    data = saved(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    end = next(i for i in range(start + 2, len(data)) if data[i] == 0xFF and data[i + 1] not in (0, *range(0xD0, 0xD8)))
    return data[:end] + data[start:end] * count + data[end:]


def arithmetic_jpeg() -> bytes:
    """One gray block in the arithmetic coding of ITU T.81: any bytes of it mean something."""
    table = b"\xff\xdb\0\x43\0" + bytes([16] * 64)
    frame = b"\xff\xc9\0\x0b\x08\0\x08\0\x08\x01\x01\x11\0"
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + bytes(20)
    return b"\xff\xd8" + table + frame + scan + b"\xff\xd9"


def plain_cmyk_jpeg() -> bytes:
    """CMYK without Adobe's marker: not inverted."""
    data = of_mode("CMYK", "JPEG")
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:start] + data[start + 2 + length :]


def frames(kind: str, **options: Any) -> bytes:
    others = [Image.new("RGB", (24, 20), colour) for colour in ("red", "blue")]
    return saved(Image.fromarray(PIXELS), kind, save_all=True, append_images=others, **options)


def tiff(tags: dict[int, tuple[int, ...]], data: bytes) -> bytes:
    """A TIFF of one IFD of LONGs; the tag 0 among `tags` values stands for where the data begins."""
    count, pieces, extra = len(tags), b"", b""
    after = 8 + 2 + 12 * count + 4
    longs = {tag: values if tag not in (273, 324) else (0,) for tag, values in sorted(tags.items())}
    begins = after + sum(4 * len(values) for values in longs.values() if len(values) > 1)
    for tag, values in longs.items():
        values = (begins,) if tag in (273, 324) else values
        raw = struct.pack(f"<{len(values)}I", *values)
        place = raw if len(values) == 1 else struct.pack("<I", after + len(extra))
        extra += raw if len(values) > 1 else b""
        pieces += struct.pack("<HHI", tag, 4, len(values)) + place
    return b"II*\0" + struct.pack("<IH", 8, count) + pieces + struct.pack("<I", 0) + extra + data


def tile_bomb() -> bytes:
    data = zlib.compress(bytes(1 << 20))
    tags = {256: (16,), 257: (16,), 258: (8,), 259: (8,), 262: (1,), 277: (1,), 322: (30_000,), 323: (30_000,)}
    return tiff({**tags, 324: (0,), 325: (len(data),)}, data)


def many_tags() -> bytes:
    """60,000 tags that all point at the same 200 kB: 12 GB for a reader that copies each."""
    count, size = 60_000, 200_000
    entries = b"".join(struct.pack("<HHII", tag, 1, size, 8) for tag in range(1000, 1000 + count))
    head = b"II*\0" + struct.pack("<I", 8 + size)
    return head + bytes(size) + struct.pack("<H", count) + entries + struct.pack("<I", 0)


def looping_tiff() -> bytes:
    data = bytearray(rgb("TIFF"))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    end = start + 2 + 12 * count
    data[end : end + 4] = struct.pack("<I", start)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    """An animation whose canvas is as large as it says, with one small frame."""
    still = saved(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", lossless=True)
    at = still.index(b"VP8L")
    length = struct.unpack("<I", still[at + 4 : at + 8])[0]
    frame = bytes(6) + b"\x07\0\0\x07\0\0\x64\0\0\0" + still[at : at + 8 + length + length % 2]
    side = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + side + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_of(width: int, height: int) -> bytes:
    """A screen as large as it says, and a frame of one pixel on it."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def gif_with_large_frame() -> bytes:
    """A small screen, and a frame that reaches far beyond it."""
    frame = b"\x2c" + struct.pack("<HHHHB", 60_000, 60_000, 60_000, 60_000, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def gif_comments() -> bytes:
    data = saved(Image.new("P", (4, 4)), "GIF")
    head = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:head] + b"\x21\xfe" + (b"\xff" + b"c" * 255) * 20_000 + b"\0" + data[head:]


def bmp_run_lengths() -> bytes:
    """Run-length coded, and all of it one jump."""
    header = struct.pack("<IiiHHIIiiII", 40, 60_000, 800, 1, 8, 1, 8, 1, 1, 256, 0)
    data = b"\0\x02\xff\xff\0\x01"
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(data), 0, 0, 14 + 40 + 1024) + header + bytes(1024) + data


def with_zip_behind() -> bytes:
    file = io.BytesIO(rgb("PNG"))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("evil.sh", "rm -rf /")
    return file.getvalue()


def photographs_pair() -> bytes:
    """Two pictures in one JPEG (MPO), as phones write them."""
    return saved(Image.fromarray(PIXELS), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


def profile_of(size: int) -> bytes:
    return bytes(16) + b"RGB " + np.random.default_rng(3).bytes(size - 20)


def _cuts() -> list[ImageCase]:
    places = [("png", 0.1), ("png", 0.5), ("png", 0.95), ("jpeg", 0.2), ("jpeg", 0.8), ("webp", 0.5), ("gif", 0.7)]
    places += [("tiff", 0.3), ("tiff", 0.9), ("bmp", 0.6), ("ppm", 0.5)]
    return [
        ImageCase(f"a {kind.upper()} cut after {keep:.0%}", partial(cut, partial(rgb, kind), keep), "undecodable")
        for kind, keep in places
    ]


IMAGES: list[ImageCase] = [
    *_cuts(),
    ImageCase("a PNG with a wrong checksum", lambda: rgb("PNG").replace(b"IHDR", b"IHDS"), "undecodable"),
    ImageCase("zero bytes", lambda: b"", "undecodable", "expected one of PNG"),
    ImageCase("random bytes", lambda: np.random.default_rng(1).bytes(5000), "undecodable", "expected one of PNG"),
    ImageCase("HTML", lambda: b"<!doctype html><title>404</title>", "undecodable", "expected one of PNG"),
    ImageCase("SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "undecodable", "expected one of PNG"),
    ImageCase("PDF", lambda: b"%PDF-1.7\n1 0 obj<<>>endobj", "undecodable", "expected one of PNG"),
    ImageCase("PostScript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "undecodable"),
    ImageCase("a pickle", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", "undecodable", "expected one of PNG"),
    ImageCase("an ICO named .png", lambda: rgb("ICO"), "undecodable", "expected one of PNG"),
    ImageCase("a PSD named .png", lambda: b"8BPS\0\x01" + bytes(40), "undecodable", "expected one of PNG"),
    ImageCase("a JPEG 2000 named .jpg", lambda: rgb("JPEG2000"), "undecodable", "expected one of PNG", suffix="jpg"),
    ImageCase("an empty PNG of 0x0", lambda: png(0, 0, 8, 2, b""), "undecodable"),
    ImageCase("a PNG named .jpg", lambda: rgb("PNG"), "ok", mode="RGB", suffix="jpg"),
    ImageCase("a JPEG named .tiff", lambda: rgb("JPEG"), "ok", mode="RGB", suffix="tiff"),
    ImageCase("a PNG with a zip behind it", with_zip_behind, "ok", mode="RGB"),
    ImageCase("a PNG without its last chunk", lambda: rgb("PNG")[:-12], "ok", mode="RGB"),
    ImageCase("an interlaced PNG", interlaced_png, "ok", mode="RGB"),
    ImageCase("a PNG of 1 bit", lambda: of_mode("1", "PNG"), "ok", mode="1"),
    ImageCase("a gray PNG", lambda: of_mode("L", "PNG"), "ok", mode="L"),
    ImageCase("a gray PNG of 16 bit", lambda: png16(0, 1), "ok", mode="I;16"),
    ImageCase(
        "a gray PNG of 16 bit, one value transparent",
        lambda: png16(0, 1, chunk(b"tRNS", b"\x12\x34")),
        "ok",
        mode="I;16",
        keeps=("alpha",),
    ),
    ImageCase("an RGB PNG of 16 bit", lambda: png16(2, 3), "ok", mode="RGB"),
    ImageCase("an RGBA PNG of 16 bit", lambda: png16(6, 4), "ok", mode="RGBA", keeps=("alpha",)),
    ImageCase("an RGBA PNG", lambda: rgba("PNG"), "ok", mode="RGBA", keeps=("alpha",)),
    ImageCase("a gray PNG with alpha", lambda: of_mode("LA", "PNG"), "ok", mode="LA", keeps=("alpha",)),
    ImageCase("a palette", lambda: of_mode("P", "PNG"), "ok", mode="P"),
    ImageCase(
        "a palette with transparency",
        lambda: of_mode("P", "PNG", transparency=bytes(range(256))),
        "ok",
        mode="P",
        keeps=("alpha",),
    ),
    ImageCase("a PNG turned by EXIF", lambda: rgb("PNG", exif=EXIF), "ok", mode="RGB", keeps=("exif",)),
    ImageCase("a JPEG turned by EXIF", lambda: rgb("JPEG", exif=EXIF), "ok", mode="RGB", keeps=("exif",), suffix="jpg"),
    ImageCase("EXIF that is none", lambda: rgb("PNG", exif=b"Exif\0\0" + b"\xff" * 99), "ok", keeps=("exif",)),
    ImageCase(
        "a WebP with alpha, EXIF and profile",
        lambda: rgba("WEBP", lossless=True, exif=EXIF, icc_profile=PROFILE),
        "ok",
        mode="RGBA",
        keeps=("alpha", "exif", "icc"),
        suffix="webp",
    ),
    ImageCase("a colour profile", lambda: rgb("PNG", icc_profile=PROFILE), "ok", mode="RGB", keeps=("icc",)),
    ImageCase("a colour profile that is none", lambda: rgb("PNG", icc_profile=profile_of(500)), "ok", keeps=("icc",)),
    ImageCase(
        "a colour profile of 2 MB in a JPEG",
        lambda: rgb("JPEG", icc_profile=profile_of(2_000_000)),
        "rejected",
        "a colour profile of",
    ),
    ImageCase("a gray JPEG", lambda: of_mode("L", "JPEG"), "ok", mode="L", suffix="jpg"),
    ImageCase("a CMYK JPEG, inverted as Adobe does", lambda: of_mode("CMYK", "JPEG"), "ok", mode="CMYK", suffix="jpg"),
    ImageCase("a CMYK JPEG, not inverted", plain_cmyk_jpeg, "ok", mode="CMYK", suffix="jpeg"),
    ImageCase("a progressive JPEG", lambda: rgb("JPEG", progressive=True), "ok", mode="RGB", suffix="jpg"),
    ImageCase("a JPEG in arithmetic coding", arithmetic_jpeg, "ok", mode="L", suffix="jpg"),
    ImageCase("two pictures in one JPEG (MPO)", photographs_pair, "ok", mode="RGB", suffix="jpg"),
    ImageCase("an animated GIF", lambda: frames("GIF"), "ok", mode="P", suffix="gif"),
    ImageCase("an animated WebP", lambda: frames("WEBP", lossless=True), "ok", mode="RGB", suffix="webp"),
    ImageCase("an animated PNG", lambda: frames("PNG"), "ok", mode="RGB"),
    ImageCase("a TIFF of 3 pages", lambda: frames("TIFF"), "ok", mode="RGB", suffix="tif"),
    ImageCase("a TIFF whose pages go in a circle", looping_tiff, "ok", mode="RGB", suffix="tif"),
    ImageCase(
        "a TIFF of 16 bit",
        lambda: saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256), "TIFF"),
        "ok",
        mode="I;16",
        suffix="tif",
    ),
    ImageCase(
        "a TIFF of 32 bit",
        lambda: saved(Image.fromarray(PIXELS[..., 0].astype(np.int32)), "TIFF"),
        "rejected",
        "32 bit",
        suffix="tif",
    ),
    ImageCase(
        "a TIFF of floats",
        lambda: saved(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"),
        "rejected",
        "no agreed range",
        suffix="tif",
    ),
    ImageCase("1x1", lambda: png(1, 1, 8, 2, b"\0\1\2\3"), "ok", mode="RGB"),
    ImageCase("5000x1", lambda: png(5000, 1, 8, 0, bytes(5001)), "ok", mode="L"),
    ImageCase("1x5000", lambda: png(1, 5000, 8, 0, bytes(10000)), "ok", mode="L"),
    ImageCase(
        "a header of 200,000x200,000 px, and no pixels",
        lambda: png(200_000, 200_000, 8, 2, b""),
        "rejected",
        "limits.max_pixels",
    ),
    ImageCase(
        "20,000x20,000 px in 50 kB, all there",
        lambda: png(20_000, 20_000, 1, 0, bytes(2501 * 20_000)),
        "rejected",
        "limits.max_pixels",
    ),
    ImageCase("a line of 50,000,000 px", lambda: png(50_000_000, 1, 8, 0, b""), "rejected", "travel as"),
    ImageCase("a WebP canvas of 60,000x60,000 px", partial(webp_of, 60_000, 60_000), "rejected", "limits.max_pixels"),
    ImageCase("a GIF screen of 65,535x65,535 px", partial(gif_of, 65_535, 65_535), "rejected", "limits.max_pixels"),
    ImageCase("a GIF frame far beyond its screen", gif_with_large_frame, "rejected", "limits.max_pixels"),
    ImageCase("a TIFF with tiles of 30,000x30,000 px", tile_bomb, "rejected", "tiles of", suffix="tif"),
    ImageCase("a TIFF of 60,000 tags that share their data", many_tags, "rejected", "pieces", suffix="tif"),
    ImageCase("a compressed text that expands to 3 MiB", partial(text_bomb, b"zTXt"), "rejected", "MAX_TEXT_CHUNK"),
    ImageCase("the same, international", partial(text_bomb, b"iTXt"), "rejected", "MAX_TEXT_CHUNK"),
    ImageCase("the same as a colour profile", partial(text_bomb, b"iCCP"), "rejected", "MAX_TEXT_CHUNK"),
    ImageCase("70 compressed texts of 1 MB", many_texts, "rejected", "MAX_TEXT_MEMORY"),
    ImageCase(
        "a PNG of 30,000 chunks",
        lambda: png(4, 4, 8, 0, bytes(20), chunk(b"abCd", b"") * 30_000),
        "rejected",
        "more than 20000 pieces",
    ),
    ImageCase(
        "a JPEG of 100,000 empty segments",
        lambda: with_segments(rgb("JPEG"), b"\xff\xe5\0\2" * 100_000),
        "rejected",
        "more than 20000 pieces",
    ),
    ImageCase(
        "EXIF of 5 MB in 80 pieces",
        lambda: with_segments(rgb("JPEG"), (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 80),
        "rejected",
        "pieces of EXIF",
    ),
    ImageCase("a JPEG of 5,000 scans", partial(many_scans, 5000), "rejected", "scans, more than", suffix="jpg"),
    ImageCase("a GIF with 5 MB of comments", gif_comments, "rejected", "more than 20000 pieces", suffix="gif"),
    ImageCase("a BMP of 48 million px in 6 bytes", bmp_run_lengths, "undecodable", suffix="bmp"),
]
