from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from pipeline import graph
from pipeline.ask import Asked
from pipeline.attempts import Progress
from pipeline.cluster import OWN, own_cluster_options
from pipeline.config_loading import load_config, nest
from pipeline.errors import ClassifierError, ConfigError, StalledError
from pipeline.facts import Failed, Slowest, Warned
from pipeline.graph import ASKS, RayEngine
from pipeline.ledger import Task
from pipeline.sizing import Node, Sizing
from pipeline.store import Shard, Store, Stored
from tests.making import job


class Remote:
    """A remote function, or an actor's method: hands out references and runs nothing."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def remote(self, first: Any, *_: Any) -> object:
        self.started.append(first)
        return f"{id(self)} {len(self.started)}"


class Actor:
    def __init__(self) -> None:
        self.ask = Remote()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    """An engine whose commits and asks end when they are waited for, on no cluster."""
    engine = RayEngine(job(tmp_path), Store(str(tmp_path / "out"), 1), "")
    vars(engine).update(_asker=Actor(), _commit=Remote(), _output=None)
    monkeypatch.setattr(graph.ray, "wait", lambda open_, num_returns, timeout: (open_[:num_returns], []))
    monkeypatch.setattr(graph.ray, "get", lambda reference: reference)
    return engine


def shard(name: str) -> Shard:
    return Shard(name, f"/in/{name}", "/in", Stored(name, 1, "e"))


def test_asks_wait_for_their_turn_and_count_as_open(engine: RayEngine):
    for i in range(10):
        engine.start_ask(shard(f"{i}.tar"))
    actor: Actor = vars(engine)["_asker"]
    assert len(actor.ask.started) == ASKS
    assert engine.num_open == 10
    ended = 0
    while engine.num_open:
        ended += len(engine.finished())
        assert len(actor.ask.started) <= min(10, ended + ASKS)
    assert ended == 10
    assert [s.name for s in actor.ask.started] == [f"{i}.tar" for i in range(10)]


def test_the_slowest_stage_is_looked_for_without_waiting(engine: RayEngine, monkeypatch: pytest.MonkeyPatch):
    answers: list[Any] = []
    attempts = SimpleNamespace(progress=SimpleNamespace(remote=lambda: "asked"))
    vars(engine).update(_attempts=attempts)
    monkeypatch.setattr(graph.ray, "wait", lambda open_, num_returns, timeout: (answers, open_))
    monkeypatch.setattr(graph.ray, "get", lambda reference: answers.pop())
    assert [engine._look_for_slowest() for _ in range(3)] == [None] * 3  # asked once, and no answer yet
    answers.append(Progress((), {"reading": 9, "purifying": 4, "staging": 3}))
    assert engine._look_for_slowest() == Slowest("purifying", 5)
    assert [engine._look_for_slowest() for _ in range(3)] == [None] * 3  # not so soon again


def test_a_run_that_ends_asks_nobody_for_its_slowest_stage(engine: RayEngine):
    vars(engine).update(_attempts=None)  # its cluster may be gone
    engine.drain()
    assert engine._look_for_slowest() is None


def test_names_dont_decide_what_counts_as_a_commit(engine: RayEngine):
    for i in range(ASKS):
        engine.start_ask(shard(f"commit {i}.tar"))
    engine.start_commit(Task(shard("ask.tar"), "0" * 12, frozenset(), replaces=False), 1)
    commits: Remote = vars(engine)["_commit"]
    assert len(commits.started) == 1


def test_commits_and_asks_that_ray_loses_say_why_each_in_its_kind(engine: RayEngine, monkeypatch: pytest.MonkeyPatch):
    def get(reference: Any) -> Any:
        cause = ClassifierError("it refuses")
        raise RayTaskError("x", "Traceback\n  coloured", cause, "x", 1, "127.0.0.1").as_instanceof_cause()

    monkeypatch.setattr(graph.ray, "get", get)
    engine.start_ask(shard("a.tar"))
    engine.start_commit(Task(shard("b.tar"), "0" * 12, frozenset(), replaces=False), 1)
    asked, failed = engine.finished()
    assert asked == Asked("a.tar", error="shard a.tar: ask: it refuses", exit_code=2)
    assert failed == Failed("b.tar", "shard b.tar: commit: it refuses", 2)


def test_shared_memory_is_set_for_a_cluster_of_its_own_alone():
    config = job(Path("/x"), cluster__object_store_mib=200).cluster
    assert own_cluster_options(config, OWN)["object_store_memory"] == 200 * 2**20
    assert own_cluster_options(config, "10.0.0.1:6379") == {}
    assert "object_store_memory" not in own_cluster_options(job(Path("/x")).cluster, OWN)


def test_a_device_that_isnt_one_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'auto', 'cpu' or 'cuda'"):
        load_config(None, nest({"input": "in", "output": "out", "purifier.device": "gpu"}))


class Chain:
    """Stands for a dataset; keeps what is mapped over it."""

    def __init__(self) -> None:
        self.mapped: list[dict[str, Any]] = []

    def map_batches(self, function: Any, **options: Any) -> Chain:
        self.mapped.append({"function": function, **options})
        return self


def chain(engine: RayEngine, sizing: Sizing, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made = Chain()
    monkeypatch.setattr(graph.ray.data, "from_items", lambda rows, override_num_blocks: made)
    vars(engine).update(_sizing=sizing, _attempts=None, purifiers=sizing.purifiers, device=sizing.device)
    assert vars(RayEngine)["_dataset"](engine, [Task(shard("a.tar"), "0" * 12, frozenset())]) is made
    return made.mapped


def test_purifiers_on_gpus_take_one_part_at_a_time(engine: RayEngine, monkeypatch: pytest.MonkeyPatch):
    # Ray refuses a function that takes whole blocks, whatever their size, when it asks for a GPU.
    _, purify, _ = chain(engine, Sizing("cuda", 2, 1.0, 1.0), monkeypatch)
    assert (purify["num_gpus"], purify["batch_size"]) == (1.0, 1)


def test_ray_retries_readers_and_stagers_for_ever_since_they_are_counted_elsewhere(
    engine: RayEngine, monkeypatch: pytest.MonkeyPatch
):
    read, _, stage = chain(engine, Sizing("cpu", 2, 0.5), monkeypatch)
    assert (read["max_retries"], stage["max_retries"]) == (-1, -1)
    assert "attempts" in read["fn_kwargs"]
    assert "attempts" in stage["fn_kwargs"]


@pytest.fixture
def waiting(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    """An engine with a commit and an ask that don't end, and no patience."""
    monkeypatch.setattr(graph.ray, "wait", lambda open_, num_returns, timeout: ([], open_))
    cluster = engine.config.cluster.model_copy(update={"stall_s": 1e-9})
    engine.config = engine.config.model_copy(update={"cluster": cluster})
    engine.start_commit(Task(shard("slow.tar"), "0" * 12, frozenset()), 1)
    engine.start_ask(shard("asked.tar"))
    return engine


def test_a_commit_that_does_not_end_is_named_and_waited_for(
    waiting: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.cluster, "nodes", lambda: [Node(2.0)])
    (said,) = waiting.finished()
    assert isinstance(said, Warned)
    assert "slow.tar" in said.message
    assert "asked.tar" not in said.message  # an endpoint may be as slow as it likes
    assert waiting.num_open == 2


def test_a_run_that_no_node_is_left_for_ends_and_may_be_tried_again(
    waiting: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.cluster, "nodes", lambda: [Node(0.0)])
    with pytest.raises(StalledError, match=r"no node.*slow\.tar, asked\.tar") as raised:
        waiting.finished()
    assert raised.value.exit_code == 75


def test_ray_data_may_use_all_of_the_cluster_and_asks_for_no_nodes_that_the_pool_has_no_use_for() -> None:
    # With limits that follow measured rates two waiting readers left no CPU for the staging that they waited for.
    from ray.data._internal.cluster_autoscaler import CLUSTER_AUTOSCALER_ENV_KEY, DefaultClusterAutoscalerV2

    assert os.environ[CLUSTER_AUTOSCALER_ENV_KEY] == "V2"
    assert DefaultClusterAutoscalerV2.DEFAULT_CLUSTER_SCALING_UP_UTIL_THRESHOLD > 1
