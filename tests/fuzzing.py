"""Mutations of shards and images, and what must hold of whatever they become.

Shared by the laws in `tests/properties` (a few hundred cases each) and by the drill (as long as it
is told). Seeds are the hostile corpus and sound files; a mutated tar gets right checksums half the
time, and so does a PNG, or hardly any would come further than its first header.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from hostile_images import IMAGES, rgb, rgba
from hostile_tars import TARS, resummed, ten
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from pipeline import images, shards
from pipeline.config import EncodingConfig, LimitsConfig
from pipeline.errors import ShardError

BLOCK = tarfile.BLOCKSIZE
MIB = 1 << 20
LIMITS = LimitsConfig(max_pixels=1_000_000, max_member_mib=1, max_sample_mib=2)
MAX_SEED_BYTES = 1 << 16
MAX_PEAK_BYTES = 12 * MIB
"""Python's memory while a shard is read: a sample (2 MiB), its last member twice, and headers (1 MiB) a few times."""

Keyed = list[tuple[str, list[bytes]]]


@cache
def tar_seeds() -> Sequence[bytes]:
    """Sound shards first, for hypothesis shrinks towards them."""
    made = [ten(format) for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    made += [gzip.compress(made[0], mtime=0)]
    made += [data for case in TARS if len(data := case.make()) <= MAX_SEED_BYTES]
    return made


@cache
def image_seeds() -> Sequence[bytes]:
    made = [rgb(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")] + [rgba("PNG")]
    made += [rgb("TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    made += [data for case in IMAGES if len(data := case.make()) <= MAX_SEED_BYTES]
    return made


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> tuple[bytes, bytes]:
    """A seed, and what became of it: bytes flipped, cut, doubled, spliced, put in, in up to six steps."""
    seed = draw(st.sampled_from(seeds))
    data = bytearray(seed)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 6]))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 8, 12, 100, BLOCK, 3 * BLOCK]))
        match draw(st.sampled_from(["flip", "number", "cut", "drop", "double", "splice", "put", "align"])):
            case "flip":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":  # what sizes and counts look like at their edges
                edge = draw(
                    st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80" + bytes(10), b"77777"])
                )
                data[at : at + len(edge)] = edge
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "splice":
                other = draw(st.sampled_from(seeds))
                start = draw(st.integers(0, max(len(other) - 1, 0)))
                data[at:at] = other[start : start + length]
            case "put":
                data[at:at] = draw(st.binary(max_size=40))
            case "align":  # whole blocks change places
                block = at // BLOCK * BLOCK
                data[block : block + BLOCK] = data[:BLOCK]
    return seed, bytes(data)


@st.composite
def mutated_tars(draw: st.DrawFn) -> tuple[bytes, bytes]:
    seed, data = draw(mutated(tar_seeds()))
    return seed, with_right_sums(data) if draw(st.booleans()) else data


def with_right_sums(data: bytes) -> bytes:
    """The blocks that look like headers, with the checksums that they should have."""
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    return b"".join(resummed(b) if len(b) == BLOCK and b[257:262] == b"ustar" else b for b in blocks)


@st.composite
def mutated_images(draw: st.DrawFn) -> tuple[bytes, bytes]:
    seed, data = draw(mutated(image_seeds()))
    return seed, with_right_crcs(data) if draw(st.booleans()) else data


def with_right_crcs(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have."""
    if not data.startswith(b"\x89PNG"):
        return data
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


def check_shard(seed: bytes, data: bytes) -> bool:
    """Whether the shard was read whole; raises AssertionError when a sample was lost or a limit broken.

    Either it is read whole and the standard library finds the same, or it fails by name and each sample
    that lay before the first changed byte was there.
    """
    found: Keyed = []
    error: ShardError | None = None
    tracemalloc.start()
    try:
        for sample in shards.read_samples(io.BytesIO(data), "x.tar", LIMITS):
            assert sample.index == len(found)
            found.append((sample.key, [member.data for member in sample.members]))
            _, peak = tracemalloc.get_traced_memory()
            assert peak < MAX_PEAK_BYTES, f"{peak} bytes"
            tracemalloc.reset_peak()
            if sample.rejected:
                found[-1] = (sample.key, [])
    except ShardError as raised:
        error = raised
    finally:
        tracemalloc.stop()
    if error is None:
        assert [key for key, _ in found] == list(keys_of(data)), "not what the standard library finds"
        return True
    assert str(error).startswith("shard x.tar: broken ")
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert error.last_good_key == (found[-1][0] if found else None)
    _check_those_before(seed, data, found)
    return False


def keys_of(data: bytes) -> Iterator[str]:
    """Keys of the samples of a whole tar, by `tarfile` and by webdataset's rule."""
    last = None
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        for member in tar:
            key, _ = base_plus_ext(member.name)
            if key is not None and member.isreg() and not _is_meta(member.name) and key != last:
                last = key
                yield key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_meta(name: str) -> bool:
    first = name.split("/")[0]
    return first.startswith("__") and first.endswith("__") and len(first) >= 4


def _check_those_before(seed: bytes, data: bytes, found: Keyed) -> None:
    """Of a plain tar that was sound: a sample is in when it and the header behind it end before the first change."""
    if seed[:2] == b"\x1f\x8b" or seed not in tar_seeds()[:3]:
        return
    change = next((i for i, (a, b) in enumerate(zip(seed, data, strict=False)) if a != b), min(len(seed), len(data)))
    with tarfile.open(fileobj=io.BytesIO(seed)) as tar:
        members = tar.getmembers()
        certain = [m for m, after in pairwise(members) if after.offset_data <= change]
        for member, (key, contents) in zip(certain, found, strict=False):
            assert (member.name, [tar.extractfile(member).read()]) == (f"{key}.png", contents)  # type: ignore[union-attr]
    assert len(found) >= len(certain), "a sample before the fault is missing"


def check_image(data: bytes) -> bool:
    """Whether the image could be decoded; raises AssertionError when a limit is broken or it can't be written again."""
    picture, refusal = None, ""
    tracemalloc.start()
    try:
        picture = images.decode(data, LIMITS)
    except (images.RejectedError, images.UndecodableError) as error:
        refusal = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * MIB + 4 * len(data), f"{peak} bytes"
    if picture is None:
        assert refusal.isprintable()
        assert 0 < len(refusal) < 1000
        return False
    height, width = picture.pixels.shape[:2]
    assert 0 < height * width <= LIMITS.max_pixels
    assert picture.alpha is None or picture.alpha.shape == (height, width)
    try:
        encoded, _ = images.encode(picture.pixels, picture, EncodingConfig())
    except images.RejectedError:
        return True
    again = images.decode(encoded, LimitsConfig())
    assert np.array_equal(again.pixels, picture.pixels)
    assert (again.alpha is None) == (picture.alpha is None)
    return True
