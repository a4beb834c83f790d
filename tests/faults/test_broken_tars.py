"""Broken shards are read whole or fail by name, never in part: the cases in which other readers lose samples."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from webdataset.tariterators import tar_file_iterator

from pipeline.config import LimitsConfig
from pipeline.errors import ShardError
from pipeline.shards import read_samples

NUM_MEMBERS = 20
BLOCK = tarfile.BLOCKSIZE
STEP = 2 * BLOCK  # a header and a block of data


def whole_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(NUM_MEMBERS):
            info = tarfile.TarInfo(f"{i:03d}.txt")
            info.size = 300
            tar.addfile(info, io.BytesIO(bytes([65 + i]) * 300))
    return file.getvalue()


WHOLE = whole_tar()
PACKED = gzip.compress(WHOLE, mtime=0)
AT = 6 * STEP  # the seventh member's header


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


BROKEN = {
    "a flipped header byte": changed(WHOLE, AT + 1, b"X"),
    "a flipped byte of the first header": changed(WHOLE, 1, b"X"),
    "cut at a member's boundary": WHOLE[:AT],
    "cut inside a header": WHOLE[: AT + 100],
    "cut inside a member": WHOLE[: AT + BLOCK + 100],
    "cut inside a member's padding": WHOLE[: AT + BLOCK + 400],
    "cut inside the closing zeros": WHOLE[: NUM_MEMBERS * STEP + BLOCK - 1],
    "cut before the closing zeros": WHOLE[: NUM_MEMBERS * STEP],
    "a zero block in the middle": changed(WHOLE, AT, bytes(BLOCK)),
    "a zero block put in": WHOLE[:AT] + bytes(BLOCK) + WHOLE[AT:],
    "two tars concatenated": WHOLE + WHOLE,
    "something behind the end": WHOLE + b"x",
    "a size that is too large": changed(WHOLE, AT + 124, b"00000100000"),
    "a link in the place of a size": changed(WHOLE, AT + 156, b"\xff"),
    "an empty file": b"",
    "no tar at all": b"<html>not found</html>" * 100,
    "gzip, cut": PACKED[:-20],
    "gzip, its trailer cut off": PACKED[:-8],
    "gzip, a wrong CRC": changed(PACKED, len(PACKED) - 8, bytes([PACKED[-8] ^ 1])),
    "gzip, a wrong length": changed(PACKED, len(PACKED) - 4, bytes([PACKED[-4] ^ 1])),
    "gzip, something behind": PACKED + b"x",
    "gzip, several members, the last with a wrong CRC": gzip.compress(WHOLE[:5000])
    + changed(gzip.compress(WHOLE[5000:]), len(gzip.compress(WHOLE[5000:])) - 8, b"\0\0\0\0"),
    "gzip, two tars concatenated": PACKED + PACKED,
}

READ_WHOLE = {
    "plain": WHOLE,
    "one closing block": WHOLE[: NUM_MEMBERS * STEP + BLOCK],
    "padded far": WHOLE + bytes(3 << 20),
    "gzip": PACKED,
    "gzip of several members": gzip.compress(WHOLE[:5000]) + gzip.compress(WHOLE[5000:]),
    "gzip padded with zeros": PACKED + bytes(512),
}


def keys_and_error(data: bytes) -> tuple[list[str], ShardError | None]:
    keys = []
    try:
        for sample in read_samples(io.BytesIO(data), "cam/000.tar", LimitsConfig()):
            keys.append(sample.key)
    except ShardError as error:
        return keys, error
    return keys, None


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_shard_fails_by_name_and_says_what_was_good(name: str):
    keys, error = keys_and_error(BROKEN[name])
    assert error is not None
    assert str(error).startswith("shard cam/000.tar: broken ")
    assert "\n" not in str(error)
    assert error.last_good_key == (keys[-1] if keys else None)
    assert keys == [f"{i:03d}" for i in range(len(keys))]


@pytest.mark.parametrize("name", ["a flipped header byte", "cut at a member's boundary", "a zero block in the middle"])
def test_the_last_sample_before_a_break_is_not_taken_for_whole(name: str):
    keys, _ = keys_and_error(BROKEN[name])
    assert keys[-1] == "004"  # 005 may have had more members


@pytest.mark.parametrize("name", READ_WHOLE)
def test_an_odd_but_sound_shard_is_read_whole(name: str):
    keys, error = keys_and_error(READ_WHOLE[name])
    assert error is None
    assert keys == [f"{i:03d}" for i in range(NUM_MEMBERS)]


@pytest.mark.parametrize(
    ("name", "num_members"),
    [
        ("a flipped header byte", NUM_MEMBERS),
        ("cut at a member's boundary", NUM_MEMBERS),
        ("a zero block in the middle", NUM_MEMBERS),
        ("two tars concatenated", 2 * NUM_MEMBERS),
    ],
)
def test_webdataset_still_loses_what_this_reader_is_for(name: str, num_members: int):
    """When this fails, webdataset has become strict, and our own reader may go."""
    assert len(list(tar_file_iterator(io.BytesIO(BROKEN[name])))) < num_members
