"""Load and size: long shards, many shards, parts, receipts. `zipstage bench` measures, this runs and prints it.

Figures of speed are printed and not judged, since they are the machine's; what must not grow is judged, and time
by the CPU seconds of the process, which other work on the machine leaves alone.
ZIPSTAGE_DRILL_PARTS sets how many parts the longest run has (100,000 are 50 minutes of two cores).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from counting import Calls, counted
from making import job, samples, write_tar

from jobs.bench.driver import measure_listing
from pipeline.estimate import estimate
from pipeline.store import open_store

pytestmark = pytest.mark.drill

ROOT = Path(__file__).parents[2]
PARTS = int(os.environ.get("ZIPSTAGE_DRILL_PARTS", "10000"))


def bench(folder: Path, *words: str) -> dict[str, Any]:
    """Run `zipstage bench`; gives its figures. In a process of its own, since memory is that of a process."""
    found = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "bench", *words, "--purifier.method", "none", "--json", str(found)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"\nzipstage bench {' '.join(words)}\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(found.read_text())
    return figures


@pytest.mark.parametrize(("images", "side"), [(2_000, 256), (20_000, 32)])
def test_memory_and_spilled_bytes_do_not_grow_with_the_shard(tmp_path: Path, images: int, side: int) -> None:
    """With an object store that the shorter shard fills already, else it is the store that fills."""
    store = ("--cluster.object_store_mib", "512")
    found = bench(tmp_path, "--grow", "--images", str(images), "--side", str(side), *store)
    short, long = found["short"], found["long"]
    assert long["images"] == 10 * short["images"]
    assert long["memory_bytes"] <= 1.25 * short["memory_bytes"]
    # Ray's own bound is soft when parts take long; ours is in parts, 32 for two purifiers, whatever the shard's length.
    assert long["spilled_bytes"] <= short["spilled_bytes"] + (512 << 20)


@pytest.mark.parametrize("parts", sorted({1_000, PARTS}))
def test_the_drivers_memory_does_not_grow_with_the_parts(tmp_path: Path, parts: int) -> None:
    found = bench(tmp_path, "--scale", "--parts", str(parts), "--window", str(max(250, parts // 10 // 25 * 25)))
    stretches = found["stretches"]
    assert sum(stretch["parts"] for stretch in stretches) == parts
    assert stretches[-1]["driver_bytes"] <= 1.2 * stretches[0]["driver_bytes"]


def test_a_million_receipts_are_counted_in_a_minute_of_one_core(tmp_path: Path) -> None:
    found = bench(tmp_path, "--receipts", "1000000")
    few, many = found["few"], found["many"]
    assert many["receipts"] == 1_000_000
    assert many["cpu_s"] < 60
    assert many["cpu_s"] / many["receipts"] <= 2 * few["cpu_s"] / few["receipts"]


@pytest.mark.parametrize("where", ["disk", pytest.param("bucket", marks=pytest.mark.s3)])
def test_twenty_thousand_shards_are_listed_and_planned_as_fast_each_as_two_thousand(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if where == "disk" else f"{request.getfixturevalue('s3').uri}/load"
    found = measure_listing(job(tmp_path), root, 20_000)
    print(f"\non {where}:", *(f"{name}: {value}" for name, value in found.rows()), sep="\n")
    assert (found.many.shards, found.many.to_purify) == (20_000, 10_000)
    assert found.many.plan_cpu_s / 20_000 <= 3 * max(found.few.plan_cpu_s, 0.1) / 2_000


@pytest.mark.s3
def test_plan_over_a_bucket_lists_all_and_reads_twenty_beginnings(tmp_path: Path, s3: Bucket) -> None:
    shard = write_tar(tmp_path / "a.tar", samples(3)).read_bytes()
    store = open_store(f"{s3.uri}/in")
    for count in (200, 2_000):
        for number in range(0 if count == 200 else 200, count):
            store.put(f"{number:06d}.tar", shard)
        began = time.monotonic()
        with counted() as calls:
            found = estimate(job(tmp_path, input=f"{s3.uri}/in", output=f"{s3.uri}/out"), lambda fact: None, 0)
        print(f"\nplan over {count:,} shards: {time.monotonic() - began:.1f} s, {told(calls)}")
        assert found.to_purify == count
        assert calls.counts["get_range"] == len(calls.read & {f"{s3.uri}/in/{i:06d}.tar" for i in range(count)}) == 20


def test_verify_takes_no_more_memory_for_a_shard_ten_times_as_long(tmp_path: Path) -> None:
    peaks = []
    for name, count in (("short", 2_000), ("long", 20_000)):
        folder = tmp_path / name
        done = subprocess.run(
            [sys.executable, "-c", _VERIFY, str(folder), str(count)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
        print(f"\nverify of a shard of {count:,} samples: {peaks[-1] / 2**20:.0f} MiB of Python's own at the peak")
    assert peaks[1] <= 1.5 * peaks[0] + 4 * 2**20


_VERIFY = """
import sys, tracemalloc
from pathlib import Path
from inprocess import run
from making import job
from jobs.bench.shards import drawn, write_shards
from pipeline.store import open_store
from pipeline.verify import verify
folder, count = Path(sys.argv[1]), int(sys.argv[2])
write_shards(drawn(count), folder / "in", count)
run(job(folder))
tracemalloc.start()
report = verify(open_store(str(folder / "out")))
assert (report.samples, report.findings) == (count, []), report
print(tracemalloc.get_traced_memory()[1])
"""


def told(calls: Calls) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(calls.counts.items()))
