"""The second opinion on shards: webdataset's own reader reads what we write, and we what its writer writes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.config import LimitsConfig
from pipeline.shards import read_samples, write_shard

SAMPLES = [
    ("cam1/b", [("cam1/b.png", b"\x89PNG"), ("cam1/b.cls", b"3"), ("cam1/b.seg.png", bytes(1024)), ("cam1/b._x", b"")]),
    ("a" * 180, [("a" * 180 + ".txt", "ä€".encode())]),
    ("ünï/☃ b", [("ünï/☃ b.json", b"{}")]),
]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["000.tar", "000.tar.gz"])
def test_webdataset_reads_what_we_write(tmp_path: Path, name: str):
    with (tmp_path / name).open("wb") as file:
        write_shard(file, name, SAMPLES)
    dataset = webdataset.WebDataset(str(tmp_path / name), shardshuffle=False, empty_check=False)
    assert [data_of(sample) for sample in dataset] == [
        {"__key__": key, **{member.removeprefix(key + "."): data for member, data in members}}
        for key, members in SAMPLES
    ]


@pytest.mark.parametrize("compress", [False, True])
def test_we_read_what_webdataset_writes(compress: bool):
    file = io.BytesIO()
    with webdataset.TarWriter(file, compress=compress) as sink:
        for key, members in SAMPLES:
            sink.write(
                {"__key__": key, **{name.removeprefix(key + "."): data for name, data in members if "._" not in name}}
            )
    file.seek(0)
    samples = list(read_samples(file, "x.tar", LimitsConfig()))
    assert [(sample.key, {(m.name, m.data) for m in sample.members}) for sample in samples] == [
        (key, {(name, data) for name, data in members if "._" not in name}) for key, members in SAMPLES
    ]


def test_what_webdataset_groups_we_group():
    """Names of odd kinds, one member each: same keys, suffixes and bytes."""
    names = ["a.png", "./a.png", "d/.hidden", "d.e/f.g.h", "d/e/f.", "UP.PNG", "x y.z", "__meta__x.png", "none", "-.-"]
    file = io.BytesIO()
    write_shard(file, "x.tar", ((str(i), [(name, name.encode())]) for i, name in enumerate(names)))
    file.seek(0)
    ours = list(read_samples(file, "x.tar", LimitsConfig()))
    file.seek(0)
    theirs = group_by_keys(tar_file_expander(iter([{"url": "x.tar", "stream": file}])))
    expected = [{"__key__": s.key, **{m.suffix.lower(): m.data for m in s.members}} for s in ours]
    assert [data_of(sample) for sample in theirs] == expected
    assert len(expected) == len(names) - 1


def data_of(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without what webdataset adds about where it was read."""
    return {field: data for field, data in sample.items() if field not in ("__url__", "__local_path__")}
