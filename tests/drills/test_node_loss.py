"""A cluster of several nodes, with CPUs and GPUs that exist on paper alone, loses one in the middle of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from inprocess import run
from making import job, samples, tree, write_tar
from ray.cluster_utils import Cluster
from raydrill import Drill, drill, entries, environment, times
from rayscript import Script

from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = [
    pytest.mark.drill,
    # Ray leaves pipes of the nodes that it ends to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SHARDS, PARTS = 3, 8
MEMORY = 150 * 2**20


@contextmanager
def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, int]) -> Iterator[Cluster]:
    """A head without resources, for the driver, and nodes that may be lost."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    # A lost node is noticed after some five seconds instead of thirty.
    config = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 5}
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "_system_config": config},
    )
    try:
        for resources in nodes:
            made.add_node(object_store_memory=MEMORY, **resources)
        yield made
    finally:
        made.shutdown()


def received(folder: Path) -> dict[str, bytes]:
    """Three shards of eight parts; gives what an undisturbed run in one process makes of them."""
    for number in range(SHARDS):
        write_tar(folder / f"in/{number}.tar", samples(PARTS, 100 * number, 200, 200))
    run(job(folder / "whole", input=str(folder / "in"), part__tiles=1))
    return outputs(folder / "whole")


def outputs(folder: Path) -> dict[str, bytes]:
    return tree(folder / "out", "shards", "tables", "_staging")


def fields(folder: Path, made: Cluster, **more: Any) -> dict[str, Any]:
    return {
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "purifier.method": "none",
        "part.tiles": 1,
        "cluster.address": made.address,
        "cluster.shared_filesystem": True,
        "cluster.stall_s": 400,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def lose_a_node(made: Cluster, running: Drill) -> None:
    """End the node that holds most of what was purified."""
    running.until("Receipt", 4)
    busy = [one["node"] for one in entries(running.script, "begun") if one["work"].startswith("purifying")]
    victim = max(made.worker_nodes, key=lambda node: busy.count(node.node_id))
    on_it = {one["work"] for one in entries(running.script, "begun") if one["node"] == victim.node_id}
    made.remove_node(victim, allow_graceful=False)
    print(f"lost a node of {len(made.worker_nodes) + 1} that had begun {len(on_it)} pieces of work")


def check(folder: Path, expected: dict[str, bytes], script: Script) -> None:
    assert outputs(folder) == expected
    report = verify(open_store(str(folder / "out")))
    assert report.findings == []
    assert report.samples == SHARDS * PARTS
    ended = times(script, "ended", "purifying")
    again = {work for work, count in ended.items() if count > 1}
    print(f"same bytes in {len(expected)} objects, verify passes over {report.samples} samples")
    print(f"{ended.total()} parts purified for {SHARDS * PARTS}: {sorted(again)} twice, lost with their node")
    assert ended.total() <= SHARDS * PARTS + PARTS


@pytest.mark.parametrize("replaced", [False, True], ids=["without a replacement", "with one"])
def test_a_node_is_lost_and_the_job_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    expected = received(tmp_path)
    script = Script(str(tmp_path / "script"), purify_s=1.0)
    with cluster(monkeypatch, *[{"num_cpus": 2}] * 3) as made, drill(script, fields(tmp_path, made)) as running:
        lose_a_node(made, running)
        lost_at = time.monotonic()
        if replaced:
            made.add_node(num_cpus=2, object_store_memory=MEMORY)
        summary = running.end()
        print(f"ended {time.monotonic() - lost_at:.0f} s after the loss: {summary['parts']}")
    assert summary["exit_code"] == 0, summary
    check(tmp_path, expected, script)


GPU = {"num_cpus": 2, "num_gpus": 1}


@pytest.mark.parametrize("replaced", [False, True], ids=["without a replacement", "with one"])
def test_a_gpu_node_is_lost_and_the_run_says_what_it_waits_for_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    expected = received(tmp_path)
    script = Script(str(tmp_path / "script"), purify_s=1.0)
    with cluster(monkeypatch, GPU, GPU) as made, drill(script, fields(tmp_path, made)) as running:
        lose_a_node(made, running)
        if replaced:
            warned = running.until("Warned")["message"]
            made.add_node(object_store_memory=MEMORY, **GPU)
        summary = running.end()
        warned = running.warnings()[0]
    print(warned)
    assert "1 of 2 purifiers wait for room, 1 GPU" in warned
    assert summary["exit_code"] == 0, summary
    check(tmp_path, expected, script)


def test_the_last_gpu_node_is_lost_and_the_run_ends_with_75_and_the_next_one_reuses_what_is_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = received(tmp_path)
    script = Script(str(tmp_path / "script"), purify_s=1.0)
    with cluster(monkeypatch, GPU) as made:
        # The shards come from a node that stays.
        made.add_node(num_cpus=2, object_store_memory=MEMORY)
        with drill(script, fields(tmp_path, made, cluster__stall_s=60)) as running:
            running.until("Receipt", 4)
            (last,) = [node for node in made.worker_nodes if _has_gpu(made, node)]
            made.remove_node(last, allow_graceful=False)
            end = running.end()
        print(end["message"])
        assert (end["raised"], end["exit_code"]) == ("StalledError", 75)
        assert "1 of 1 purifiers wait for room" in end["message"]
        assert ", 0 staged" not in end["message"]  # what counts them stays when nodes go
        staged = list((tmp_path / "out/_staging").rglob("*.arrow"))
        made.add_node(object_store_memory=MEMORY, **GPU)
        rerun = Script(str(tmp_path / "rerun"))
        with drill(rerun, fields(tmp_path, made)) as running:
            summary = running.end()
    print(f"{len(staged)} parts were staged; the next run: {summary['parts']}")
    assert summary["exit_code"] == 0, summary
    begun = times(rerun, "begun", "purifying")
    assert not {f"purifying {path.parent.parent.name} {int(path.stem)}" for path in staged} & set(begun)
    assert outputs(tmp_path) == expected
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def _has_gpu(made: Cluster, node: Any) -> bool:
    return bool(node.get_resource_and_label_spec().num_gpus)
