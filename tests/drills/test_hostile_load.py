"""Hostile shards that take minutes: many samples, the largest image, gzip that expands to gigabytes."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile_corpus import LONG, shard_of, write_tars
from inprocess import run
from making import job

from pipeline.store import open_store
from pipeline.verify import verify

MAX_GROWTH_MIB = 3500  # 49 Mpx: received, purified, encoded, and a few times as floats for the PSNR


@pytest.mark.drill
@pytest.mark.parametrize("case", LONG, ids=[case.about for case in LONG])
def test_a_hostile_shard_gets_what_the_corpus_says(tmp_path: Path, case):
    write_tars(tmp_path / "in", [case])
    shard = shard_of(0, case)
    size = (tmp_path / "in" / shard).stat().st_size
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    started = time.monotonic()
    summary, _ = run(job(tmp_path))
    took_s = time.monotonic() - started
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - before_mib
    print(f"{case.about}: {size:,} bytes, {took_s:.0f} s, {grown_mib} MiB, {summary.statuses or summary.failed}")
    assert grown_mib < MAX_GROWTH_MIB
    if case.rows is None:
        assert case.says in summary.failed[shard]
        return
    rows = pq.read_table(tmp_path / f"out/tables/{shard}.parquet").to_pylist()
    assert [(row["key"], row["status"]) for row in rows] == list(case.rows)
    assert verify(open_store(str(tmp_path / "out"))).findings == []
