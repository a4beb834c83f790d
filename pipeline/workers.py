"""What runs on Ray's workers: thin shells around the stages, commits and asks, which know no Ray.

Parts travel as one row of one block each. Whatever fails comes back as a value, since an exception
would end the job for all other shards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray

from pipeline import metrics
from pipeline.ask import Asked, Asker
from pipeline.attempts import StageName
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.device_errors import SickDeviceError
from pipeline.engine import try_ask, try_commit
from pipeline.facts import Failed
from pipeline.ledger import Task
from pipeline.parts import part_from_bytes, part_to_bytes
from pipeline.rereading import read_counted
from pipeline.stages import Purify, stage_part
from pipeline.store import Shard, Store, open_store

WAIT_S = 0.2
"""Seconds between two looks of a reader at whether it may go on."""


def is_node_alive(node: str) -> bool:
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


class Readers:
    """Counts a shard's readers in the actor that counts all attempts; holds back those that run ahead.

    Ray holds them back by bytes, but lets one part of an idle reader through every ten seconds, whatever lies
    there already: behind slow purifiers all of a shard ends in the object store, and then on disk.
    """

    def __init__(self, attempts: Any) -> None:  # noqa: ANN401 - a Ray actor handle
        self._attempts = attempts

    def begin(self, shard: str) -> int:
        return _begin(self._attempts, "reading", shard)

    def num_read(self, shard: str) -> int:
        number: int = ray.get(self._attempts.num_read.remote(shard))
        return number

    def advance(self, shard: str, part: int) -> None:
        # Before the part is counted: readers that wait must not be what they wait for.
        while not ray.get(self._attempts.may_hand_on.remote(shard, part)):
            time.sleep(WAIT_S)
        self._attempts.advance.remote(shard, part)

    def end(self, shard: str) -> None:
        self._attempts.end.remote("reading", shard)


def read(batch: pa.Table, config: JobConfig, attempts: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - a Ray actor handle
    for text in batch["task"].to_pylist():
        for part in read_counted(Task.from_json(text), config, Readers(attempts)):
            yield _row("payload", part_to_bytes(part), pa.large_binary())


class _DrainingError(Exception):
    """The run takes no new parts."""


class PurifyActor:
    """One purifier on its device, for as long as a window lasts."""

    def __init__(self, config: JobConfig, device: str, attempts: Any) -> None:  # noqa: ANN401 - a Ray actor handle
        from pipeline.purifier import build_purifier

        purifier, profile = build_purifier(config, device)

        def count(shard: str, part: int) -> int:
            number = _begin(attempts, "purifying", shard, part)
            if not number:
                raise _DrainingError
            return number

        self._attempts = attempts
        self._clock = metrics.PurifierClock(purifier, device, config.purifier.batch)
        self._purify = Purify(purifier, profile, count, config.cluster.max_attempts, config.give_up)

    def __call__(self, batch: pa.Table) -> pa.Table:
        part = part_from_bytes(batch["payload"][0].as_buffer())
        try:
            with self._clock.busy():
                purified = self._purify(part)
        except SickDeviceError:
            os._exit(1)  # an exception would end the job; a dead actor is replaced, and the part tried again
        except _DrainingError:
            return _row("payload", part_to_bytes(part.failed("stopped", "the run was stopped")), pa.large_binary())
        self._clock.count(purified.purified)
        self._attempts.end.remote("purifying", part.shard, part.index)
        return _row("payload", part_to_bytes(purified), pa.large_binary())


def stage(batch: pa.Table, config: JobConfig, output: tuple[str, float], attempts: Any) -> pa.Table:  # noqa: ANN401 - a Ray actor handle
    part = part_from_bytes(batch["payload"][0].as_buffer())
    tries = config.cluster.max_attempts
    if part.outcome is None and _begin(attempts, "staging", part.shard, part.index) > tries:
        part = part.failed(
            "failed", f"shard {part.shard}, part {part.index}: given up: {tries} workers died staging it"
        )
    with metrics.took("stage"):
        receipt = stage_part(part, _output(*output), config)
    attempts.end.remote("staging", part.shard, part.index)
    return _row("receipt", receipt.to_json(), pa.string())


def _begin(attempts: Any, stage: StageName, shard: str, part: int = 0) -> int:  # noqa: ANN401 - a Ray actor handle
    node = ray.get_runtime_context().get_node_id()
    number: int = ray.get(attempts.begin.remote(stage, shard, part, node))
    return number


@lru_cache(maxsize=1)
def _output(uri: str, patience_s: float) -> Store:
    """Opened once a process: for each part, a bucket would be asked for credentials and connected to anew (20 ms)."""
    return open_store(uri, patience_s)


def commit(task: Task, num_parts: int, output: Store, fingerprint: str) -> Committed | Failed:
    with metrics.took("commit"):
        return try_commit(task, num_parts, output, fingerprint)


class AskActor:
    """Asks about shards, several at once, through one client of the classifier."""

    def __init__(self, config: JobConfig, output: Store) -> None:
        self._asker, self._output = Asker(config, output), output
        metrics.announce("zipstage_queries_total")
        if ray.get_runtime_context().was_current_actor_reconstructed:
            self._asker.gate.close("the process that counted the images asked about was lost")

    async def ask(self, shard: Shard) -> Asked:
        with metrics.took("ask"):
            return await try_ask(self._asker, shard, self._output)


def _row(name: str, value: bytes | str, kind: pa.DataType) -> pa.Table:
    return pa.table({name: pa.array([value], kind)})
