from __future__ import annotations

import io
import tarfile
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config import LimitsConfig
from pipeline.errors import ShardError
from pipeline.shards import Sample, read_samples, write_shard

LIMITS = LimitsConfig()
Samples = list[tuple[str, list[tuple[str, bytes]]]]

TEXT = st.text(st.characters(exclude_characters="\0./", exclude_categories=["Cs"]), min_size=1, max_size=120)
KEYS = st.lists(TEXT, min_size=1, max_size=3).map("/".join).filter(lambda key: not key.startswith("__"))
SUFFIXES = st.lists(TEXT.filter(lambda s: not s.startswith("__")), min_size=1, max_size=4, unique_by=str.lower)
DATA = st.binary(max_size=1500)


@st.composite
def shards(draw: st.DrawFn, max_samples: int = 4) -> Samples:
    keys = draw(st.lists(KEYS, max_size=max_samples, unique=True))
    return [(key, [(f"{key}.{suffix}", draw(DATA)) for suffix in draw(SUFFIXES)]) for key in keys]


def written(samples: Samples, name: str = "x.tar") -> bytes:
    file = io.BytesIO()
    write_shard(file, name, samples)
    return file.getvalue()


def read(data: bytes) -> list[Sample]:
    return list(read_samples(io.BytesIO(data), "x.tar", LIMITS))


def plain(samples: list[Sample]) -> Samples:
    assert [sample.rejected for sample in samples] == [None] * len(samples)
    return [(sample.key, [(member.name, member.data) for member in sample.members]) for sample in samples]


@given(shards(), st.sampled_from(["x.tar", "x.tar.gz"]))
@settings(deadline=None, max_examples=150)
def test_what_is_written_is_read(samples: Samples, name: str):
    assert plain(read(written(samples, name))) == samples


@given(shards(), st.data())
@settings(deadline=None, max_examples=150)
def test_a_shard_that_is_cut_anywhere_is_read_whole_or_fails(samples: Samples, data: st.DataObject):
    whole = written(samples)
    cut = data.draw(st.integers(0, len(whole) - 1))
    needed = len(whole.rstrip(b"\0"))
    try:
        found = read(whole[:cut])
    except ShardError:
        return
    assert cut > needed
    assert plain(found) == samples


@given(shards(), st.data())
@settings(deadline=None, max_examples=150)
def test_a_header_with_a_changed_byte_is_read_alike_or_fails(samples: Samples, data: st.DataObject):
    whole = bytearray(written(samples))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        headers = [member.offset for member in tar]
    assume(headers)
    at = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(whole))
    except ShardError:
        return
    assert plain(found) == samples  # some bytes of a header carry nothing: the blank behind a number


@given(shards(), st.integers(0, 3000), st.binary(min_size=1, max_size=600))
@settings(deadline=None, max_examples=150)
def test_whatever_is_written_over_a_shard_no_other_error_comes_out(samples: Samples, at: int, garbage: bytes):
    whole = bytearray(written(samples))
    whole[at : at + len(garbage)] = garbage
    try:
        found = read(bytes(whole))
    except ShardError:
        return
    assert [sample.index for sample in found] == list(range(len(found)))


@given(st.lists(KEYS, min_size=2, max_size=6))
@settings(deadline=None, max_examples=50)
def test_each_key_is_whole_once(keys: list[str]):
    assume(all(a != b for a, b in pairwise(keys)))
    samples = read(written([(key, [(f"{key}.x", b"")]) for key in keys]))
    assert [sample.key for sample in samples] == keys
    assert [sample.key for sample in samples if sample.rejected is None] == list(dict.fromkeys(keys))
