"""A committed shard is asked about: received and purified images, side by side, in one pass.

Answers are staged every `ask.chunk` samples, so that a killed run asks again only about the open
ones. Asking stands apart from the graph: a slow endpoint holds no purifier, and `query` is this
same path over shards that have no such record yet. Costs one more read of each shard.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import answers, ledger, pairs, tables
from pipeline.answers import Asking
from pipeline.black_box import BlackBox, asked_of, identify
from pipeline.classifiers import build
from pipeline.classifiers.base import Classifier
from pipeline.classifiers.gate import Gate
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.errors import (
    TRY_AGAIN,
    ClassifierAwayError,
    ClassifierError,
    ExistsError,
    NotFoundError,
    ShardError,
    SpentError,
    StoreAwayError,
)
from pipeline.store import Shard, Store
from zipstage.errors import ZipstageError

_WAITING = re.compile(r"_staging/(?P<name>.+\.tar(\.gz)?)/ask/(?P<box>[^/]+)/[0-9a-f]{12}/[0-9]{5,}\.arrow")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a classifier said of a shard, in numbers.

    Args:
        shard: NAME.
        statuses: Rows by status.
        flipped: Rows whose answer changed.
        away: Why the classifier could not be asked now; the shard stays open.
        error: Why it can't be asked at all.
        exit_code: The command's, when one of these is set.
    """

    shard: str
    statuses: dict[str, int] = field(default_factory=dict)
    flipped: int = 0
    away: str | None = None
    error: str | None = None
    exit_code: int = 2


class Breaker:
    """Spares shards that will find the classifier away: each would wait out its retries.

    After `LIMIT` failures in a row it lets one shard through every `PAUSE_S`, which tells whether the
    classifier is back; what was turned away is asked about by the rerun.
    """

    LIMIT = 3
    PAUSE_S = 30.0

    def __init__(self) -> None:
        self._failures = 0
        self._next_try_s = 0.0

    def lets_through(self) -> bool:
        if self._failures < self.LIMIT:
            return True
        if time.monotonic() < self._next_try_s:
            return False
        self._pause()  # one shard finds out, not all that are waiting
        return True

    def failed(self) -> None:
        self._failures += 1
        self._pause()

    def answered(self) -> None:
        self._failures = 0

    def _pause(self) -> None:
        self._next_try_s = time.monotonic() + self.PAUSE_S


class Asker:
    """Asks about shards, one classifier for all; what goes wrong becomes part of the answer."""

    def __init__(self, config: JobConfig, output: Store) -> None:
        self.config, self.output, self.of = _with_chunks_that_fit(config), output, asked_of(config)
        self.gate = Gate.of(self.of)
        self.classifier: Classifier | None = None
        self.asking: Asking | None = None
        self.box = BlackBox("", {})
        self.connecting = asyncio.Lock()  # shards that begin together share one client
        self.breaker = Breaker()
        self.why = Asked("")  # the last failure that concerned no single shard

    async def __call__(self, shard: Shard, committed: Committed) -> Asked:
        try:
            self.gate.check()
            if not self.breaker.lets_through():
                return replace(self.why, shard=shard.name)
            asking, box = await self._connected()
            asked = await ask_shard(shard, committed, asking, box, self.config, self.output)
        except SpentError as error:
            return Asked(shard.name, away=str(error), exit_code=TRY_AGAIN)
        except (ClassifierAwayError, StoreAwayError) as error:
            return self._failed(Asked(shard.name, away=str(error), exit_code=TRY_AGAIN))
        except ClassifierError as error:
            return self._failed(Asked(shard.name, error=str(error), exit_code=error.exit_code))
        except ZipstageError as error:
            return Asked(shard.name, error=str(error), exit_code=error.exit_code)
        self.breaker.answered()
        return asked

    def _failed(self, why: Asked) -> Asked:
        self.breaker.failed()
        self.why = why
        return why

    async def _connected(self) -> tuple[Asking, BlackBox]:
        async with self.connecting:
            if self.asking is None:
                box = await asyncio.to_thread(identify, self.of)
                self.classifier = await build(self.of, self.gate).__aenter__()
                if box != await asyncio.to_thread(identify, self.of):
                    await self.close()
                    raise ClassifierError(f"classifier {self.of.path}: its file changed while it was read. Ask again.")
                self.box, self.asking = box, Asking(self.classifier, self.of, self.gate)
            return self.asking, self.box

    async def close(self) -> None:
        if self.classifier is not None:
            await self.classifier.__aexit__(None, None, None)
            self.classifier = self.asking = None


def _with_chunks_that_fit(config: JobConfig) -> JobConfig:
    """Chunks of half of what a run may ask at most: with larger ones none would ever be answered whole."""
    most = asked_of(config).max_queries
    if most is None:
        return config
    chunk = min(config.ask.chunk, max(1, most // (2 * (1 + config.ask.before))))
    return config.model_copy(update={"ask": config.ask.model_copy(update={"chunk": chunk})})


async def ask_shard(
    shard: Shard, committed: Committed, asking: Asking, box: BlackBox, config: JobConfig, output: Store
) -> Asked:
    """Ask about one committed shard, chunk by chunk, and write its predictions with their record.

    Raises:
        ClassifierAwayError: It doesn't answer; what was answered so far is staged.
        ClassifierError: It refuses what it is asked.
        StoreError, ShardError: A shard can't be read, or answers can't be written.
    """
    done = await asyncio.to_thread(_read_record, output, box.name, shard, committed)
    if done is not None:
        return done
    prefix = _staging_prefix(shard, committed, box, config)
    staged = await asyncio.to_thread(_list_staged, output, prefix)
    chunks = pairs.read_chunks(shard, config, output, staged)
    num_chunks = 0
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        if num_chunks not in staged:
            rows = await answers.ask_about(chunk, asking, config.ask)
            await asyncio.to_thread(_stage, output, _staged_path(prefix, num_chunks), rows)
        num_chunks += 1
    return await asyncio.to_thread(_finish, shard, committed, num_chunks, prefix, box.name, output)


# --- staging ------------------------------------------------------------------------------------------


def _staging_folder(shard: str, box: str) -> str:
    return f"_staging/{shard}/ask/{box}/"


def _staging_prefix(shard: Shard, committed: Committed, box: BlackBox, config: JobConfig) -> str:
    """Where answers wait: another shard, other settings or another classifier of the same name wait elsewhere."""
    facts = [shard.identity, _purified(committed), box.asked_with, config.ask.model_dump()]
    return f"{_staging_folder(shard.name, box.name)}{ledger.canonical_digest([*facts, pairs.CHUNK_MIB], 12)}/"


def _purified(committed: Committed) -> str:
    """The sha256 of a committed shard's purified samples."""
    digest: str = committed.record["outputs"][ledger.shard_path(committed.shard)]["sha256"]
    return digest


def _staged_path(prefix: str, index: int) -> str:
    return f"{prefix}{index:05d}.arrow"


def _list_staged(output: Store, prefix: str) -> frozenset[int]:
    names = (stored.path.removeprefix(prefix) for stored in output.list(prefix))
    return frozenset(int(name.removesuffix(".arrow")) for name in names)


def drop_leftovers(output: Store, shards: Iterable[Shard]) -> None:
    """Drop staged answers of shards whose predictions are written: a run ended before it did so itself."""
    waiting = {(found["name"], found["box"]) for found in map(_WAITING.fullmatch, _paths(output)) if found}
    predicted = {box: ledger.list_predicted(output, box) for box in {box for _, box in waiting}}
    identities = {shard.name: shard.identity for shard in shards}
    for name, box in sorted(waiting):
        if identities.get(name) in predicted[box].get(name, ()):
            output.delete_below(_staging_folder(name, box))


def _paths(output: Store) -> Iterator[str]:
    return (stored.path for stored in output.list("_staging"))


def _stage(output: Store, path: str, rows: list[dict[str, Any]]) -> None:
    try:
        output.put(path, tables.to_ipc(rows, tables.PREDICTIONS, {}), create=True)
    except ExistsError:
        return  # another asker was first; its answers are as good as ours, and they are the ones that count


# --- predictions and their record ----------------------------------------------------------------------


def _finish(shard: Shard, committed: Committed, num_chunks: int, prefix: str, name: str, output: Store) -> Asked:
    """Stitch the staged chunks into the predictions; then the record, then drop the staging."""
    try:
        paths = [_staged_path(prefix, i) for i in range(num_chunks)]
        asked = output.written(lambda: _write(shard, committed, paths, name, output))
    except NotFoundError:
        done = _read_record(output, name, shard, committed)  # another asker was done first and dropped the staging
        if done is None:
            raise ShardError(
                f"shard {shard.name}: staged answers are gone, and no record says why. Ask again."
            ) from None
        output.delete_below(_staging_folder(shard.name, name))
        return done
    record = {
        "shard": shard.name,
        "identity": shard.identity,
        "classifier": name,
        "purified_sha256": _purified(committed),
        "statuses": asked.statuses,
        "flipped": asked.flipped,
    }
    path = ledger.predictions_record_path(name, shard.name, shard.identity)
    output.put(path, json.dumps(record, indent=1, sort_keys=True).encode())
    output.delete_below(_staging_folder(shard.name, name))  # what waits from asking with other settings as well
    return asked


def _write(shard: Shard, committed: Committed, paths: list[str], name: str, output: Store) -> Asked:
    """Write the predictions, which aren't there if this raises."""
    statuses: dict[str, int] = {}
    flipped = 0
    with (
        output.writer(ledger.predictions_path(name, shard.name)) as file,
        pq.ParquetWriter(pa.PythonFile(file, mode="w"), tables.PREDICTIONS, compression="zstd") as parquet,
    ):
        for path in paths:
            rows, _ = tables.from_ipc(output.get(path))
            parquet.write_table(rows)
            for status, count in tables.count_by_status(rows["status"].to_pylist()).items():
                statuses[status] = statuses.get(status, 0) + count
            flipped += sum(bool(value) for value in rows["flipped"].to_pylist())
        found, expected = sum(statuses.values()), committed.record["samples"]
        if found != expected:
            output.delete_below(_staging_folder(shard.name, name))  # else each rerun would end here
            raise ShardError(
                f"shard {shard.name}: expected answers for {expected} samples, found {found}, now dropped. Ask again."
            )
    return Asked(shard.name, dict(sorted(statuses.items())), flipped)


def _read_record(output: Store, name: str, shard: Shard, committed: Committed) -> Asked | None:
    """What was said of a shard, unless it was said of another purification."""
    try:
        record = json.loads(output.get(ledger.predictions_record_path(name, shard.name, shard.identity)))
    except NotFoundError:
        return None
    if record["purified_sha256"] != _purified(committed):
        return None
    return Asked(shard.name, record["statuses"], record["flipped"])
