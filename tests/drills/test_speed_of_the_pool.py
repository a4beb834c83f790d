"""How well purifiers are kept at work: a stub that sleeps for each part, with 1 to 64 of them on CPUs on paper.

A sleeping purifier needs no core, so a small machine shows what the graph itself costs. Judged is
the share of their time that purifiers spend on parts, from when each has done its first few until
the first one runs dry. ZIPSTAGE_DRILL_ACTORS names other numbers.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import pytest
from inprocess import run
from making import job, samples, tree, write_tar
from ray.cluster_utils import Cluster
from raydrill import drill, entries, environment
from rayscript import Script

pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PURIFY_S = 5.0
ROUNDS = 16
"""Parts for each purifier."""

STARTED = 3
"""Parts of each purifier that belong to the start: readers and stagers begin then, and load what they need."""

WORKER_MIB = 120
"""Measured: each purifier takes that, and so do the readers and stagers, up to two for each purifier."""

ACTORS = [int(number) for number in os.environ.get("ZIPSTAGE_DRILL_ACTORS", "1,4,16,32,64").split(",")]


@pytest.mark.parametrize("actors", ACTORS)
def test_purifiers_are_kept_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actors: int) -> None:
    needed, available = 3 * actors * WORKER_MIB, psutil.virtual_memory().available >> 20
    if needed > available:
        pytest.skip(f"{actors} purifiers and what is beside them need about {needed} MiB, {available} are available")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    per_shard = 16
    for number in range(math.ceil(actors * ROUNDS / per_shard)):
        write_tar(tmp_path / f"in/{number:03d}.tar", samples(per_shard, 100 * number, 200, 200))
    run(job(tmp_path / "whole", input=str(tmp_path / "in"), part__tiles=1))
    script = Script(str(tmp_path / "script"), purify_s=PURIFY_S)
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": max(4, 2 * actors), "object_store_memory": 400 * 2**20}
    )
    fields = {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "purifier.method": "none",
        "part.tiles": 1,
        "cluster.address": made.address,
        "cluster.actors": actors,
    }
    try:
        with drill(script, fields) as running:
            running.until("Receipt", actors)
            memory = _memory_mib(made)
            summary = running.end()
    finally:
        made.shutdown()
    assert summary["exit_code"] == 0, summary
    busy = _busy(script, actors, STARTED)
    whole = _busy(script, actors, 0)
    print(
        f"{actors} purifiers, {summary['parts']['staged']} parts of {PURIFY_S:g} s: {busy:.2f} of ideal, "
        f"{whole:.2f} with the start; {memory}"
    )
    assert tree(tmp_path / "out", "shards", "tables") == tree(tmp_path / "whole/out", "shards", "tables")
    if actors <= 16:
        assert busy >= 0.9


def _busy(script: Script, actors: int, skipped: int) -> float:
    """Share of their time that purifiers spent purifying, from when all had done some until the first ran dry."""
    begun = [one for one in entries(script, "begun") if one["work"].startswith("purifying")]
    ended = [one for one in entries(script, "ended") if one["work"].startswith("purifying")]
    pids = {one["pid"] for one in begun}
    assert len(pids) == actors
    start = max(sorted(one["at"] for one in begun if one["pid"] == pid)[skipped] for pid in pids)
    stop = min(max(one["at"] for one in ended if one["pid"] == pid) for pid in pids)
    inside = [min(one["at"] + PURIFY_S, stop) - max(one["at"], start) for one in begun]
    return sum(share for share in inside if share > 0) / (actors * (stop - start))


def _memory_mib(made: Cluster) -> str:
    """Unique memory of the workers, by the kernel's count."""
    own = [
        process.memory_full_info().uss / 2**20
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::")
    ]
    return f"{len(own)} workers of {sum(own) / max(1, len(own)):.0f} MiB"
