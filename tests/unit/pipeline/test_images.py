from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.config import EncodingConfig, LimitsConfig
from pipeline.images import Picture, RejectedError, UndecodableError, decode, encode, image_position
from pipeline.shards import Member, Sample

LIMITS = LimitsConfig()
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (13, 17), dtype=np.uint8)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(header: bytes, lines: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: its IHDR, unfiltered lines, and chunks before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def sample(*suffixes: str) -> Sample:
    return Sample("a", 0, tuple(Member(f"a.{suffix}", suffix, b"") for suffix in suffixes))


# --- which member -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "JPG", "jpeg", "webp", "bmp", "ppm", "tif", "Tiff", "gif"])
def test_the_image_is_the_member_with_an_image_suffix_in_any_case(suffix: str):
    assert image_position(sample("cls", "seg.png", suffix, "json")) == 2


@pytest.mark.parametrize(
    ("suffixes", "found"), [(("cls", "seg.png"), "none"), (("png", "cls", "jpg"), r"\.png, \.jpg"), ((), "none")]
)
def test_no_image_or_two_reject_the_sample(suffixes: tuple[str, ...], found: str):
    with pytest.raises(RejectedError, match=f"found {found}"):
        image_position(sample(*suffixes))


# --- decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_rgb_comes_as_it_is(format: str):
    picture = decode(file_of(Image.fromarray(PIXELS), format), LIMITS)
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert (picture.alpha, picture.mode, picture.exif, picture.icc) == (None, "RGB", None, None)


def test_a_bitmap_by_hand_comes_as_it_is():
    picture = decode(b"P6 2 1 255\n\x01\x02\x03\xfd\xfe\xff", LIMITS)
    assert picture.pixels.tolist() == [[[1, 2, 3], [253, 254, 255]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_is_kept_apart(format: str):
    picture = decode(file_of(Image.fromarray(np.dstack([PIXELS, ALPHA])), format), LIMITS)
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert picture.mode == "RGBA"


def test_gray_with_alpha_becomes_rgb_with_alpha():
    picture = decode(file_of(Image.fromarray(np.dstack([PIXELS[..., 0], ALPHA]), "LA"), "PNG"), LIMITS)
    np.testing.assert_array_equal(picture.pixels, np.repeat(PIXELS[..., :1], 3, axis=2))
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_one_bit_is_black_and_white():
    picture = decode(b"P4 8 1\n\x0f", LIMITS)
    assert picture.pixels[0, :, 0].tolist() == [255] * 4 + [0] * 4


@pytest.mark.parametrize("alphas", [None, b"\x00\x80"])
def test_a_palette_gives_its_colours_and_its_transparency(alphas: bytes | None):
    colours = (b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    more = [colours, (b"tRNS", alphas)] if alphas else [colours]
    picture = decode(png(struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0), b"\0\x00\x01", *more), LIMITS)
    assert picture.pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert (picture.alpha.tolist() if picture.alpha is not None else None) == ([[0, 128]] if alphas else None)
    assert picture.mode == "P"


@pytest.mark.parametrize("colour_type", [0, 2])
def test_16_bit_samples_keep_their_high_byte(colour_type: int):
    values = [0x0000, 0x00FF, 0x0100, 0x7FFF, 0xFF00, 0xFFFF]
    header = struct.pack(">IIBBBBB", 6 if colour_type == 0 else 2, 1, 16, colour_type, 0, 0, 0)
    picture = decode(png(header, b"\0" + struct.pack(">6H", *values)), LIMITS)
    found = picture.pixels[0, :, 0] if colour_type == 0 else picture.pixels.reshape(-1)
    assert found.tolist() == [value >> 8 for value in values]


def test_16_bit_tiff_and_pgm_are_read_like_png():
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for data in (file_of(Image.fromarray(values), "TIFF"), b"P5 4 1 65535\n" + values.astype(">u2").tobytes()):
        assert decode(data, LIMITS).pixels[0, :, 0].tolist() == [0, 0, 1, 255]


def test_cmyk_becomes_rgb_and_loses_its_profile():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan
    profile = bytearray(RGB_PROFILE)
    profile[16:20] = b"CMYK"
    picture = decode(file_of(Image.fromarray(ink, "CMYK"), "TIFF", icc_profile=bytes(profile)), LIMITS)
    assert picture.mode == "CMYK"
    assert picture.pixels[0, 0].tolist() == [0, 255, 255]
    assert picture.icc is None


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("GIF", "PNG"):
        data = file_of(frames[0], format, save_all=True, append_images=frames[1:])
        assert decode(data, LIMITS).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_comes_along_and_turns_nothing(format: str):
    picture = decode(file_of(Image.fromarray(PIXELS), format, exif=EXIF, icc_profile=RGB_PROFILE), LIMITS)
    assert picture.pixels.shape == PIXELS.shape
    assert picture.exif is not None
    assert picture.exif.removeprefix(b"Exif\0\0") == EXIF.removeprefix(b"Exif\0\0")
    assert picture.icc == RGB_PROFILE


def test_a_tiff_that_says_it_is_turned_comes_turned_without_exif():
    picture = decode(file_of(Image.fromarray(PIXELS), "TIFF", tiffinfo={274: 6}), LIMITS)
    np.testing.assert_array_equal(picture.pixels, np.rot90(PIXELS, -1))
    assert picture.exif is None


def test_too_many_pixels_are_rejected_by_the_header_alone():
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    with pytest.raises(RejectedError, match=r"200000x200000 px, more than limits\.max_pixels = 50000000"):
        decode(png(header, b""), LIMITS)


def test_the_pixel_limit_is_the_last_that_passes():
    data = file_of(Image.fromarray(PIXELS), "PNG")
    assert decode(data, LimitsConfig(max_pixels=13 * 17)).pixels.shape == (13, 17, 3)
    with pytest.raises(RejectedError):
        decode(data, LimitsConfig(max_pixels=13 * 17 - 1))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF"])
def test_an_image_that_is_cut_is_undecodable(format: str):
    data = file_of(Image.fromarray(PIXELS), format)
    for end in (0, 5, len(data) // 2):
        with pytest.raises(UndecodableError):
            decode(data[:end], LIMITS)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"\x80\x04."]
)
def test_other_bytes_are_undecodable(data: bytes):
    with pytest.raises(UndecodableError, match="expected one of PNG, JPEG"):
        decode(data, LIMITS)


@pytest.mark.parametrize("format", ["ICO", "PCX", "TGA", "SGI"])
def test_formats_of_no_listed_suffix_are_undecodable(format: str):
    with pytest.raises(UndecodableError):
        decode(file_of(Image.fromarray(PIXELS), format), LIMITS)


def test_float_samples_are_rejected_since_nobody_knows_their_range():
    with pytest.raises(RejectedError, match="mode F"):
        decode(file_of(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), LIMITS)


def test_damaged_images_raise_nothing_else_and_warn_of_nothing():
    generator = np.random.default_rng(3)
    formats = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
    files = [file_of(Image.fromarray(PIXELS), format) for format in formats]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(700):
            data = bytearray(files[i % len(files)])
            for at in generator.integers(0, min(len(data), 200), 3):
                data[at] = generator.integers(256)
            try:
                picture = decode(bytes(data), LIMITS)
            except (UndecodableError, RejectedError) as error:
                assert "\n" not in str(error)  # noqa: PT017 - either is right, and neither need come
            else:
                assert picture.pixels.dtype == np.uint8
                assert picture.pixels.shape[2:] == (3,)


# --- encoding ---------------------------------------------------------------------------------------


def picture_of(alpha: np.ndarray | None = None, exif: bytes | None = None, icc: bytes | None = None) -> Picture:
    return Picture(PIXELS, alpha, "RGB", exif, icc)


def test_png_gives_back_pixels_alpha_exif_and_profile():
    data, suffix = encode(PIXELS[::-1], picture_of(ALPHA, EXIF, RGB_PROFILE), EncodingConfig())
    picture = decode(data, LIMITS)
    assert suffix == "png"
    np.testing.assert_array_equal(picture.pixels, PIXELS[::-1])
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert picture.exif is not None
    assert picture.exif.endswith(EXIF[6:])
    assert picture.icc == RGB_PROFILE


def test_webp_keeps_alpha_to_the_bit_and_colours_nearly():
    smooth = np.asarray(Image.fromarray(PIXELS).resize((64, 64), Image.Resampling.BICUBIC))
    alpha = np.asarray(Image.fromarray(ALPHA).resize((64, 64)))
    data, suffix = encode(smooth, Picture(smooth, alpha, "RGBA", EXIF, None), EncodingConfig(format="webp"))
    picture = decode(data, LIMITS)
    assert suffix == "webp"
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert np.abs(picture.pixels.astype(int) - smooth).mean() < 12
    assert picture.exif is not None


def test_jpeg_has_full_colour_resolution_and_drops_alpha():
    data, suffix = encode(PIXELS, picture_of(ALPHA, EXIF, RGB_PROFILE), EncodingConfig(format="jpeg", quality=100))
    picture = decode(data, LIMITS)
    frame = data.index(b"\xff\xc0")
    assert suffix == "jpg"
    assert [data[frame + 11 + 3 * i] for i in range(3)] == [0x11] * 3  # ITU T.81, B.2.2: sampling factors 1x1
    assert picture.alpha is None
    assert picture.exif == EXIF
    assert np.abs(picture.pixels.astype(int) - PIXELS).max() <= 4


def test_quality_is_what_the_settings_say():
    sizes = [len(encode(PIXELS, picture_of(), EncodingConfig(format="jpeg", quality=q))[0]) for q in (30, 95)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_encoding_again_gives_the_same_bytes(format: str):
    encoding = EncodingConfig.model_validate({"format": format})
    picture = picture_of(ALPHA, EXIF, RGB_PROFILE)
    assert encode(PIXELS, picture, encoding) == encode(PIXELS.copy(), picture, encoding)


def test_exif_that_jpeg_cannot_hold_is_left_out():
    data, _ = encode(PIXELS, picture_of(exif=EXIF + bytes(70_000)), EncodingConfig(format="jpeg"))
    assert decode(data, LIMITS).exif is None


@pytest.mark.parametrize(("format", "side"), [("webp", 16_384), ("jpeg", 65_536)])
def test_what_a_format_cannot_hold_is_rejected_and_png_holds_it(format: str, side: int):
    long = np.zeros((1, side, 3), np.uint8)
    picture = Picture(long, None, "RGB", None, None)
    with pytest.raises(RejectedError, match=f"{format} holds at most {side - 1} a side"):
        encode(long, picture, EncodingConfig.model_validate({"format": format}))
    assert decode(encode(long, picture, EncodingConfig())[0], LIMITS).pixels.shape == (1, side, 3)
