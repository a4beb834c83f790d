"""Purifying and asking at once on a real Ray: as fast as the slower of the two; a slow endpoint holds nothing back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.bench import overlap
from jobs.bench.memory import MemoryWatch, pss_of, tree_of
from jobs.bench.shards import flat, write_shards
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest
from pipeline.facts import Fact, Started
from pipeline.job import purify

pytestmark = [pytest.mark.drill, pytest.mark.ray, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SHARDS = 16
MIB = 1 << 20


def test_the_whole_job_takes_as_long_as_the_slower_of_purifying_and_asking(tmp_path: Path) -> None:
    figures = tmp_path / "overlap.json"
    command = [sys.executable, "-W", "ignore", "-m", "jobs", "bench", "--overlap", "--json", str(figures)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(f"\n{ended.stdout}")
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(figures.read_text())
    assert found["whole_s"] <= 1.1 * max(found["purify_s"], found["ask_s"])


def slow_job(tmp_path: Path, url: str, batch: int) -> JobConfig:
    fields = {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "purifier.method": "none",
        "part.tiles": 1,
        "cluster.actors": 1,
        "cluster.object_store_mib": 200,
        "classifier": {
            "protocol": "json-http",
            "url": url,
            "content": "npy",
            "result": "classes",
            "batch": batch,
            "rate_per_s": 1,
            "attempts": 8,
        },
    }
    return load_config(None, nest(fields))


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_server_of_one_request_a_second_holds_no_purifier_back_and_makes_no_memory_grow(tmp_path: Path) -> None:
    per_shard = overlap.PARTS * overlap.IMAGES_A_PART
    write_shards(flat(SHARDS * per_shard, overlap.SIDE_PX), tmp_path / "in", per_shard)
    committed: list[float] = []
    asked: list[float] = []
    memory: list[int] = []

    def watch(fact: Fact) -> None:
        if isinstance(fact, Committed | Asked):
            (committed if isinstance(fact, Committed) else asked).append(time.monotonic())
        if isinstance(fact, Asked | Started):
            memory.append(sum(map(pss_of, tree_of(os.getpid()))))

    batch = 8
    requests = SHARDS * 2 * per_shard // batch
    with overlap.serving(0.0, rate_per_s=1) as url, MemoryWatch() as peak:
        summary = purify(slow_job(tmp_path, url, batch), watch, overlap.sleeping_engine)
    assert summary.exit_code == 0, summary.unanswered
    took, alone = committed[-1] - committed[0], (SHARDS - 1) * overlap.PARTS * overlap.PART_S
    after = [at for at in asked if at > committed[-1]]
    print(f"\npurified and committed {SHARDS} shards in {took:.1f} s, of which the purifier slept {alone:.1f} s")
    print(f"asked {requests} times, once a second: done {asked[-1] - committed[-1]:.0f} s later, {len(after)} shards")
    print(f"memory: {memory[1] / MIB:.0f} MiB at the first shard that was answered, {memory[-1] / MIB:.0f} at the last")
    print(f"its peak: {peak.peak_bytes / MIB:.0f} MiB")
    assert len(after) >= SHARDS // 2  # by their order, not by the clock: a busy machine purifies late as well
    assert memory[-1] <= 1.1 * memory[1]
