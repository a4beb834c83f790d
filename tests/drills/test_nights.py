"""Night after night over a growing input: 200 in one process, ten on a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nights import SAMPLES, SHARDS, Night, night

from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.drill

MIB = 1 << 20
TESTS = Path(__file__).parents[1]


def told(number: int, one: Night) -> None:
    print(
        f"night {number}: {len(one.committed)} shards committed, {one.parts.get('staged', 0)} parts purified, "
        f"{sum(one.calls.values())} calls of the stores, {len(one.reads)} objects of earlier nights opened, "
        f"{len(one.strays)} left over, {one.files} files, {one.threads} threads, {one.children} processes, "
        f"{one.pss_bytes / MIB:.0f} MiB, {one.seconds:.2f} s"
    )


def check(nights: list[Night]) -> None:
    for one in nights:
        assert list(one.committed) == list(one.new)
        assert set(one.parts) == {"staged"}
        assert one.reads == []
        assert one.strays == []


def test_two_hundred_nights_in_one_process(tmp_path: Path) -> None:
    nights = []
    for number in range(200):
        nights.append(night(tmp_path, number))
        if number % 20 == 19 or number == 0:
            told(number + 1, nights[-1])
    check(nights)
    assert len({tuple(sorted(one.calls.items())) for one in nights[1:]}) == 1
    early, late = nights[19], nights[-1]
    assert late.files <= early.files
    assert late.threads <= early.threads + 2
    assert late.pss_bytes <= early.pss_bytes + 32 * MIB
    report = verify(open_store(str(tmp_path / "out")))
    print(f"verify: {report.shards} shards, {report.samples} samples, {len(report.findings)} findings")
    assert (report.shards, report.samples, report.findings) == (200 * SHARDS, 200 * SHARDS * SAMPLES, [])


def test_ten_nights_on_ray_in_one_process(tmp_path: Path) -> None:
    nights = [Night(**said) for said in on_ray(tmp_path, 10)]
    for number, one in enumerate(nights):
        told(number + 1, one)
    check(nights)
    early, late = nights[1], nights[-1]
    assert [one.children for one in nights] == [0] * len(nights)
    assert late.files <= early.files + 2 * 8 + 2  # Ray keeps two sockets of each session that it has ended
    assert late.threads <= early.threads + 4
    assert late.pss_bytes <= early.pss_bytes + 64 * MIB
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def on_ray(folder: Path, count: int) -> list[dict[str, Any]]:
    """In a process of its own: Ray's threads and warnings are not this one's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nights", str(folder), str(count)],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
