"""The graph's side of Ctrl-C and SIGTERM: what is purified is waited for, what is not is let go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from making import job
from ray.exceptions import GetTimeoutError, RaySystemError

from pipeline import graph
from pipeline.attempts import Attempts
from pipeline.graph import RayEngine
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.sizing import Sizing
from pipeline.store import Store


def counting() -> Attempts:
    return Attempts(3, lambda node: True)


def test_while_it_drains_no_part_is_begun_and_those_that_were_are_counted_until_they_are_staged() -> None:
    attempts = counting()
    for part in range(3):
        assert attempts.begin("purifying", "a.tar", part) == 1
    attempts.end("purifying", "a.tar", 0)
    attempts.end("purifying", "a.tar", 1)
    attempts.end("staging", "a.tar", 1)
    assert attempts.drain() == 2  # part 0 waits, part 2 is being purified
    assert attempts.begin("purifying", "a.tar", 3) == 0
    assert attempts.begin("staging", "a.tar", 0) == 1
    attempts.end("staging", "a.tar", 0)
    assert attempts.drain() == 1
    attempts.end("purifying", "a.tar", 2)
    assert attempts.drain() == 1
    attempts.end("staging", "a.tar", 2)
    attempts.end("staging", "a.tar", 3)  # passed by unpurified: staged by nobody, counted for nobody
    assert attempts.drain() == 0


def receipt(index: int, outcome: Any = "staged") -> Receipt:
    return Receipt("a.tar", "0" * 12, index, is_last=False, outcome=outcome)


class Remote:
    def __init__(self, name: str) -> None:
        self.name = name

    def remote(self) -> str:
        return self.name


class Actor:
    drain, progress = Remote("drain"), Remote("progress")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RayEngine]]:
    """An engine without a cluster: what its graph yields, and what is said to be on its way at each look."""
    ended = threading.Event()

    def make(items: Sequence[Receipt | BaseException], on_their_way: Sequence[int | BaseException]) -> RayEngine:
        made = RayEngine(job(tmp_path), Store(str(tmp_path / "out"), 1), "")
        vars(made).update(_attempts=Actor(), _sizing=Sizing("cpu", 1, 1.0, 0.0))
        looks = iter(on_their_way)

        def pump(window: Sequence[Task], received: queue.SimpleQueue[Any], stop: threading.Event) -> None:
            for item in items:
                received.put(item)
            ended.wait()  # the rest of the graph never comes

        def get(reference: str, timeout: float) -> int:
            found = next(looks)
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(made, "_pump", pump)
        monkeypatch.setattr(graph.ray, "get", get)
        monkeypatch.setattr(graph.ray, "wait", lambda open_, num_returns, timeout: ([], open_))
        return made

    yield make
    ended.set()


def test_a_drained_graph_ends_when_what_was_purified_is_staged(engine: Callable[..., RayEngine]) -> None:
    items = [receipt(0), receipt(1), receipt(2, "stopped"), receipt(3), RaySystemError("ended with its driver")]
    draining = engine(items, [2, 1, 1, 1, 0])
    receipts = draining.receipts(())
    assert next(receipts) == receipt(0)
    draining.drain()
    draining.drain()
    assert [one.index for one in receipts if one is not None] == [1, 3]  # stopped parts are no news, nor are errors


def test_a_cluster_that_ends_with_its_driver_ends_the_draining(engine: Callable[..., RayEngine]) -> None:
    draining = engine([], [RaySystemError("gone")])
    draining.drain()
    assert list(draining.receipts(())) == []


def test_draining_has_an_end(engine: Callable[..., RayEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    for looks in ([GetTimeoutError("no answer")], []):
        draining = engine([], looks)
        monkeypatch.setattr(graph, "DRAIN_S", 0.0 if not looks else 20.0)
        draining.drain()
        assert list(draining.receipts(())) == []


def test_a_graph_that_nothing_comes_of_any_more_delays_the_end_by_seconds_at_most(
    engine: Callable[..., RayEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "CLOSE_S", 0.01)
    stuck = engine([receipt(0)], [])
    receipts = stuck.receipts(())
    next(receipts)
    receipts.close()
    stuck._close()
    assert vars(stuck)["_reader"].is_alive()
