from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Iterable

import pytest

from pipeline.config import LimitsConfig
from pipeline.errors import ShardError
from pipeline.shards import MAX_NAMED, Member, Sample, Skipped, read_samples, write_shard

LIMITS = LimitsConfig()


def tar_of(
    members: Iterable[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE, format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar by the standard library's own writer."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def read(data: bytes, limits: LimitsConfig = LIMITS, skipped: Skipped | None = None) -> list[Sample]:
    return list(read_samples(io.BytesIO(data), "x.tar", limits, skipped))


def test_consecutive_members_with_one_key_are_a_sample():
    samples = read(tar_of([("d/a.png", b"1"), ("d/a.seg.PNG", b"2"), ("d/a.cls", b"3"), ("b.png", b"")]))
    assert samples == [
        Sample(
            "d/a",
            0,
            (Member("d/a.png", "png", b"1"), Member("d/a.seg.PNG", "seg.PNG", b"2"), Member("d/a.cls", "cls", b"3")),
        ),
        Sample("b", 1, (Member("b.png", "png", b""),)),
    ]


def test_an_empty_tar_has_no_samples():
    assert read(tar_of([])) == []


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(format: int):
    name = f"{'folder/' * 12}ä.png"
    assert [sample.members for sample in read(tar_of([(name, b"1")], format=format))] == [(Member(name, "png", b"1"),)]


def test_members_without_a_key_and_of_webdataset_are_counted_and_some_named():
    skipped = Skipped()
    members = [("a.png", b"1"), ("README", b"2"), ("a.cls", b"3"), (".hidden", b""), ("__index__/a.png", b"")]
    samples = read(tar_of(members + [(f"none{i}", b"") for i in range(100)]), skipped=skipped)
    assert [member.name for member in samples[0].members] == ["a.png", "a.cls"]
    assert len(samples) == 1
    assert skipped.count == 103
    assert skipped.names[:3] == ["README", ".hidden", "__index__/a.png"]
    assert len(skipped.names) == MAX_NAMED
    assert skipped.facts() == {"count": 103, "names": skipped.names}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_skipped_and_named(kind: bytes):
    skipped = Skipped()
    assert read(tar_of([("a.png", b"")], kind=kind), skipped=skipped) == []
    assert skipped.names == ["a.png"]


def test_folders_are_passed_over_in_silence():
    skipped = Skipped()
    assert read(tar_of([("a.b/", b"")], kind=tarfile.DIRTYPE), skipped=skipped) == []
    assert skipped.count == 0


@pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "a.PNG"), ("a.seg.png", "a.Seg.png")])
def test_two_members_of_one_suffix_reject_the_sample_alone(names: tuple[str, str]):
    samples = read(tar_of([(names[0], b"1"), (names[1], b"2"), ("b.png", b"3")]))
    assert [sample.rejected is None for sample in samples] == [False, True]
    assert "two members have the suffix" in (samples[0].rejected or "")
    assert samples[0].members == (Member(names[0], names[0].partition(".")[2], b"1"),)


def test_a_key_that_returns_is_rejected_and_the_first_stays():
    samples = read(tar_of([("a.png", b"1"), ("b.png", b"2"), ("a.png", b"3"), ("a.cls", b"4")]))
    assert [(sample.key, sample.index, sample.rejected) for sample in samples] == [
        ("a", 0, None),
        ("b", 1, None),
        ("a", 2, "the key occurred before in this shard"),
    ]


def test_a_member_over_the_limit_is_not_read():
    limits = LimitsConfig(max_member_mib=1)
    data = tar_of([("a.cls", b"7"), ("a.png", bytes(64 << 20)), ("b.png", b"3")])
    tracemalloc.start()
    samples = read(data, limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert samples[0].rejected == "member .png has 67108864 bytes, more than limits.max_member_mib = 1; not read"
    assert samples[0].members == (Member("a.cls", "cls", b"7"),)
    assert samples[1].rejected is None
    assert peak < 4 << 20


def test_more_members_than_the_limit_reject_the_sample():
    limits = LimitsConfig(max_members=2)
    samples = read(tar_of([("a.1", b""), ("a.2", b""), ("b.1", b""), ("b.2", b""), ("b.3", b"")]), limits)
    assert [sample.rejected for sample in samples] == [None, "more than limits.max_members = 2 members"]


@pytest.mark.parametrize("suffix", ["__key__", "__url__", "__bad__"])
def test_suffixes_that_webdataset_takes_for_its_own_are_rejected(suffix: str):
    assert "reserved" in (read(tar_of([(f"a.{suffix}", b"")]))[0].rejected or "")


def test_a_name_that_is_not_utf8_is_rejected_and_told_in_hex():
    sample = read(tar_of([("a\udcff.png", b"1")]))[0]
    assert sample.key == "a\\xff"
    assert "not UTF-8" in (sample.rejected or "")


def test_gzip_is_known_by_its_bytes_and_not_by_its_name():
    data = tar_of([("a.png", b"1")])
    assert read(gzip.compress(data)) == read(data)


def test_memory_does_not_grow_with_the_members():
    def peak(count: int) -> int:
        data = tar_of((f"{i // 8:07d}.{i % 8}", b"x") for i in range(count))
        tracemalloc.start()
        for _ in read_samples(io.BytesIO(data), "x.tar", LIMITS):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(8)  # whatever is loaded on the way
    assert peak(8000) - peak(800) < 900 * 150  # 900 more keys to recognise; tarfile alone would keep 7 MB of headers


def test_a_hostile_header_is_not_read_into_memory():
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with pytest.raises(ShardError, match="8589934592 bytes of header follow"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))


def test_a_long_chain_of_headers_is_an_error_of_the_shard():
    chain = tarfile.TarInfo.create_pax_global_header({"a": "b"}) * 5000
    with pytest.raises(ShardError):
        read(chain + bytes(1024))


# --- writing ----------------------------------------------------------------------------------------


def written(name: str, samples: Iterable[tuple[str, list[tuple[str, bytes]]]]) -> bytes:
    file = io.BytesIO()
    write_shard(file, name, samples)
    return file.getvalue()


SAMPLES = [("b", [("b.txt", b"2"), ("b._x", b"3"), ("b.png", b"")]), ("a", [("a.cls", bytes(512))])]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_what_is_written_keeps_order_and_names_and_tells_no_time_and_no_owner(name: str):
    with tarfile.open(fileobj=io.BytesIO(written(name, SAMPLES))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["b.txt", "b._x", "b.png", "a.cls"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_writing_again_gives_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch):
    first = written(name, SAMPLES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert written(name, SAMPLES) == first


def test_the_number_of_samples_is_told_and_the_tar_ends_on_a_record():
    file = io.BytesIO()
    assert write_shard(file, "x.tar", SAMPLES) == 2
    assert len(file.getvalue()) % tarfile.RECORDSIZE == 0
    assert file.getvalue().endswith(bytes(1024))


def test_two_neighbours_of_one_key_are_not_written():
    with pytest.raises(ShardError, match=r"shard x\.tar: two samples with the key 'a'"):
        written("x.tar", [("a", [("a.1", b"")]), ("a", [("a.2", b"")])])
