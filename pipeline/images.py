"""Images in and out: whatever a sample holds becomes RGB and alpha, and purified RGB becomes a file.

Pixels come as stored (no EXIF turn; the EXIF goes along, so viewers turn both alike). What a file
would cost is judged before a pixel is decoded: pixels, tiles of a TIFF, scans of a JPEG, pieces of a
header. A trap: Pillow's own guard against large images is switched off for the process;
`limits.max_pixels` is the guard here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.config import EncodingConfig, LimitsConfig
from pipeline.shards import Sample
from zipstage.tiles import TILE_PX

IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "webp", "bmp", "ppm", "tif", "tiff", "gif"})
"""Suffixes of the member that is purified, in any case; `seg.png` is another suffix, and passes through."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_MAX_SIDE = {"png": 2**31 - 1, "webp": 16_383, "jpeg": 65_535}
_SUFFIX = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_OPTIONS: dict[str, Callable[[EncodingConfig], dict[str, Any]]] = {
    "png": lambda _: {"compress_level": 1},  # 4 times faster than the default, for 2 % more bytes
    # exact: colours under transparent pixels are purified pixels too
    "webp": lambda encoding: {"quality": encoding.quality, "exact": True},
    "jpeg": lambda encoding: {"quality": encoding.quality, "subsampling": 0},
}
_MAX_JPEG_EXIF = 65_533 - 6
_MAX_PROFILE_BYTES = 1 << 20  # what Pillow opens again in a PNG
_MAX_HEADER_READS = 20_000  # some four for each chunk or segment; a photograph with a gain map needs under a thousand
_MAX_JPEG_SCANS = 100  # each costs a pass over all pixels, in as little as 20 bytes; progressive files have ten
_MAX_EXIF_SEGMENTS = 64  # Pillow joins them one by one
_PILLOWS_LIMITS = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY")  # as its messages name them
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_MAX_MESSAGE = 300
_MAX_SUFFIXES, _MAX_SUFFIX = 5, 40  # that a message names, and their characters

Image.MAX_IMAGE_PIXELS = None


class UndecodableError(Exception):
    """The bytes aren't a whole image: the sample's row gets `undecodable`."""


class RejectedError(Exception):
    """The image is beyond a limit, or ambiguous: the sample's row gets `rejected`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image.

    Args:
        pixels: uint8 [h, w, 3], RGB, as stored.
        alpha: uint8 [h, w], or None where the image has none.
        mode: Pillow's mode of what was received: 'RGB', 'L', 'P', 'I;16', 'CMYK'.
        exif: EXIF as received, None without. A TIFF's is not kept: Pillow has turned it already.
        icc: Colour profile as received, None without one for RGB.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    mode: str
    exif: bytes | None
    icc: bytes | None


def image_position(sample: Sample) -> int:
    """Which of a sample's members is its image.

    Raises:
        RejectedError: None is, or several are.
    """
    images = [i for i, member in enumerate(sample.members) if member.suffix.lower() in IMAGE_SUFFIXES]
    if len(images) != 1:
        # A suffix begins at the first dot of a name, to the surprise of who packed `photo.v2.png` by hand.
        all_found = ", ".join("." + member.suffix[:_MAX_SUFFIX] for member in sample.members[:_MAX_SUFFIXES])
        found = ", ".join("." + sample.members[i].suffix for i in images) or f"none, only {all_found}"
        raise RejectedError(f"expected one image among the members, found {found}")
    return images[0]


def decode(data: bytes, limits: LimitsConfig) -> Picture:
    """Decode the first frame.

    16-bit samples keep their high byte; CMYK and palettes are converted as Pillow does.

    Raises:
        RejectedError: More than `max_pixels` (by the header; as pixels, or as tiles), a header that would
            cost too much to read, or samples without an agreed range (float, 32-bit).
        UndecodableError: Cut off, damaged, or none of the known formats.
    """
    with warnings.catch_warnings():  # Pillow warns of odd EXIF and palettes; a row has no place for that
        warnings.simplefilter("ignore")
        try:
            _refuse_many_passes(data)
            with _opened(_Counting(data)) as image:
                _check_size(image, limits)
                mode = image.mode
                image.load()
                rgb, alpha = _rgb_and_alpha(image)
                return Picture(rgb, alpha, mode, _exif(image), _icc(image))
        except (RejectedError, UndecodableError, MemoryError):
            raise
        except UnidentifiedImageError:
            raise UndecodableError(f"expected one of {', '.join(_FORMATS)}, found other bytes") from None
        except Exception as error:  # noqa: BLE001 - on hostile bytes a format's parser raises whatever it trips over
            reason = _line(error)
            if any(limit in reason for limit in _PILLOWS_LIMITS):
                raise RejectedError(reason) from None
            raise UndecodableError(reason) from None


class _Counting(io.BytesIO):
    """An image file whose header may be read in so many pieces: each costs time, and some formats keep each."""

    reads_left = _MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise RejectedError(f"its header has more than {_MAX_HEADER_READS} pieces")
        return super().read(size)


def _opened(file: _Counting) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except MemoryError:  # of a header, so it isn't the machine that is too small
        raise RejectedError("its header asks for more memory than there is") from None
    file.reads_left = 1 << 62
    return image


def _refuse_many_passes(data: bytes) -> None:
    """Refuse what a JPEG decoder would go over again and again; in other formats, these bytes mean nothing."""
    if not data.startswith(b"\xff\xd8"):
        return
    # Inside of pixels 0xFF is followed by 0, and what else holds such bytes by chance holds few.
    scans, segments = data.count(b"\xff\xda"), data.count(b"Exif\0\0")
    if scans > _MAX_JPEG_SCANS:
        raise RejectedError(f"a JPEG of {scans} scans, more than {_MAX_JPEG_SCANS}")
    if segments > _MAX_EXIF_SEGMENTS:
        raise RejectedError(f"a JPEG with {segments} pieces of EXIF, more than {_MAX_EXIF_SEGMENTS}")


def _line(error: Exception) -> str:
    """What a decoder says, fit for a table: one line of what can be printed."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text[:_MAX_MESSAGE] or type(error).__name__


def encode(pixels: np.ndarray, picture: Picture, encoding: EncodingConfig) -> tuple[bytes, str]:
    """Encode pixels with the alpha, EXIF and profile of the picture that they came from; the same bytes each time.

    JPEG has no alpha: there it is dropped.

    Args:
        pixels: uint8 [h, w, 3], of the picture's size.
        picture: The image that they came from.
        encoding: Format and quality.

    Returns:
        The file and its suffix: 'png', 'webp' or 'jpg'.

    Raises:
        RejectedError: The format can't hold an image so large, or not with this EXIF or profile.
    """
    if max(pixels.shape[:2]) > _MAX_SIDE[encoding.format]:
        height, width = pixels.shape[:2]
        raise RejectedError(
            f"{width}x{height} px, and {encoding.format} holds at most {_MAX_SIDE[encoding.format]} a side"
        )
    if picture.alpha is not None and encoding.format != "jpeg":
        pixels = np.dstack([pixels, picture.alpha])
    image = Image.fromarray(pixels)
    facts = {name: value for name, value in (("exif", picture.exif), ("icc_profile", picture.icc)) if value}
    if encoding.format == "jpeg" and len(facts.get("exif", b"")) > _MAX_JPEG_EXIF:
        del facts["exif"]  # one JPEG segment holds no more
    file = io.BytesIO()
    try:
        image.save(file, encoding.format.upper(), **_OPTIONS[encoding.format](encoding), **facts)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an encoder trips over, in a profile above all, is this image's
        raise RejectedError(f"it can't be written as {encoding.format}: {_line(error)}") from None
    return file.getvalue(), _SUFFIX[encoding.format]


def _check_size(image: Image.Image, limits: LimitsConfig) -> None:
    """Judge an image by its pixels, and a narrow one by what it takes as tiles.

    A side below 256 px counts as 256 when the other is above: a line of 50 million pixels takes as
    many tiles as an image of 12,800 million. Overlaps of tiles don't count: they would let a limit
    of 50 million pixels refuse a photograph of 48.
    """
    width, height = image.size
    if not width * height:
        raise UndecodableError(f"{width}x{height} px")
    if width * height > limits.max_pixels:
        raise RejectedError(f"{width}x{height} px, more than limits.max_pixels = {limits.max_pixels}")
    as_tiles = max(width, TILE_PX) * max(height, TILE_PX)
    if max(width, height) > TILE_PX and as_tiles > limits.max_pixels:
        raise RejectedError(
            f"{width}x{height} px, which travel as {as_tiles} (tiles are {TILE_PX} px wide), "
            f"more than limits.max_pixels = {limits.max_pixels}"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF, which may have tiles larger than its image
    tile = tuple(tags.get(tag) or 0 for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if tile[0] * tile[1] > limits.max_pixels:
        raise RejectedError(f"tiles of {tile[0]}x{tile[1]} px, more than limits.max_pixels = {limits.max_pixels}")


def _rgb_and_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise RejectedError(f"samples of mode {image.mode} (32 bit) have no agreed range; convert them to 8 or 16 bit")
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        transparent = image.info.get("transparency")  # one value of 16 bits
        alpha = None if transparent is None else np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2), alpha
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    return np.array(image.convert("RGB")), None


def _exif(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    return exif if isinstance(exif, bytes) and exif and image.format != "TIFF" else None


def _icc(image: Image.Image) -> bytes | None:
    """The colour profile when it is one for RGB: one for CMYK or gray would spoil the RGB that is written."""
    icc = image.info.get("icc_profile")
    if not isinstance(icc, bytes) or icc[16:20] != b"RGB ":
        return None
    if len(icc) > _MAX_PROFILE_BYTES:
        raise RejectedError(f"a colour profile of {len(icc)} bytes, more than {_MAX_PROFILE_BYTES}")
    return icc
