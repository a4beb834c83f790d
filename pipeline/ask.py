"""A committed shard is asked about: received and purified images, side by side, in one pass.

Answers are staged every `ask.chunk` samples, so that a killed run asks again only about the open
ones. Asking stands apart from the graph: a slow endpoint holds no purifier, and `query` is this
same path over shards that have no such record yet. Costs one more read of each shard.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import answers, ledger, pairs, tables
from pipeline.answers import Asking
from pipeline.classifiers import build
from pipeline.classifiers.base import Classifier
from pipeline.commit import Committed
from pipeline.config import ClassifierConfig, JobConfig
from pipeline.errors import (
    TRY_AGAIN,
    ClassifierAwayError,
    ConfigError,
    ExistsError,
    NotFoundError,
    ShardError,
    StoreAwayError,
)
from pipeline.store import Shard, Store
from zipstage.errors import ZipstageError


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


def classifier_name(config: ClassifierConfig) -> str:
    """The folder of a classifier's predictions: its set name, else its model and what it is asked with.

    Raises:
        ConfigError: The set name can't be a folder's.
    """
    if config.name:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", config.name):
            raise ConfigError(
                f"classifier.name {config.name!r}: expected letters, digits, '_', '.' and '-', beginning with none "
                "of the last two, since its predictions lie in a folder of that name. Choose another."
            )
        return config.name
    title = config.model or (config.path or "").rsplit("/", 1)[-1].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", title).lstrip(".-")
    return f"{plain or 'classifier'}-{ledger.canonical_digest(_asked_with(config), 8)}"


def _asked_with(config: ClassifierConfig) -> dict[str, Any]:
    """What decides a classifier's answers; nothing secret."""
    return config.model_dump(mode="json", include={"protocol", "url", "path", "model", "version", "input", "output"})


def asked_of(config: JobConfig) -> ClassifierConfig:
    """The job's classifier.

    Raises:
        ConfigError: It has none.
    """
    if config.classifier is None:
        raise ConfigError("expected `classifier` in the job, found none. Say which black box to ask.")
    return config.classifier


class Asker:
    """Asks about shards, one classifier for all; what goes wrong becomes part of the answer.

    After three shards in a row that found the classifier away, the others aren't tried: each would
    wait out its retries, and the rerun asks about them anyway.
    """

    PATIENCE = 3

    def __init__(self, config: JobConfig, output: Store) -> None:
        self.config, self.output, self.of = config, output, asked_of(config)
        self.classifier: Classifier | None = None
        self.asking: Asking | None = None
        self.connecting = asyncio.Lock()  # shards that begin together share one client
        self.away: list[str] = []

    async def __call__(self, shard: Shard, committed: Committed) -> Asked:
        if len(self.away) >= self.PATIENCE:
            return Asked(shard.name, away=self.away[-1], exit_code=TRY_AGAIN)
        try:
            asked = await ask_shard(shard, committed, await self._connected(), self.config, self.output)
        except (ClassifierAwayError, StoreAwayError) as error:
            self.away.append(str(error))
            return Asked(shard.name, away=str(error), exit_code=TRY_AGAIN)
        except ZipstageError as error:
            return Asked(shard.name, error=str(error), exit_code=error.exit_code)
        self.away.clear()
        return asked

    async def _connected(self) -> Asking:
        async with self.connecting:
            if self.asking is None:
                self.classifier = await build(self.of).__aenter__()
                self.asking = Asking(self.classifier, self.of)
            return self.asking

    async def close(self) -> None:
        if self.classifier is not None:
            await self.classifier.__aexit__(None, None, None)
            self.classifier = self.asking = None


async def ask_shard(shard: Shard, committed: Committed, asking: Asking, config: JobConfig, output: Store) -> Asked:
    """Ask about one committed shard, chunk by chunk, and write its predictions with their record.

    Raises:
        ClassifierAwayError: It doesn't answer; what was answered so far is staged.
        ClassifierError: It refuses what it is asked.
        StoreError, ShardError: A shard can't be read, or answers can't be written.
    """
    name = classifier_name(asked_of(config))
    done = await asyncio.to_thread(_read_record, output, name, shard, committed)
    if done is not None:
        return done
    prefix = _staging_prefix(shard, committed, name, config)
    staged = await asyncio.to_thread(_list_staged, output, prefix)
    chunks = pairs.read_chunks(shard, config, output, staged)
    num_chunks = 0
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        if num_chunks not in staged:
            rows = await answers.ask_about(chunk, asking, config.ask)
            await asyncio.to_thread(_stage, output, _staged_path(prefix, num_chunks), rows)
        num_chunks += 1
    return await asyncio.to_thread(_finish, shard, committed, num_chunks, prefix, name, output)


# --- staging ------------------------------------------------------------------------------------------


def _staging_folder(shard: Shard, name: str) -> str:
    return f"_staging/{shard.name}/ask/{name}/"


def _staging_prefix(shard: Shard, committed: Committed, name: str, config: JobConfig) -> str:
    """Where answers wait: another shard, other settings or another classifier of the same name wait elsewhere."""
    facts = [shard.identity, _purified(committed), _asked_with(asked_of(config)), config.ask.model_dump()]
    return f"{_staging_folder(shard, name)}{ledger.canonical_digest([*facts, pairs.CHUNK_MIB], 12)}/"


def _purified(committed: Committed) -> str:
    """The sha256 of a committed shard's purified samples."""
    digest: str = committed.record["outputs"][ledger.shard_path(committed.shard)]["sha256"]
    return digest


def _staged_path(prefix: str, index: int) -> str:
    return f"{prefix}{index:05d}.arrow"


def _list_staged(output: Store, prefix: str) -> frozenset[int]:
    names = (stored.path.removeprefix(prefix) for stored in output.list(prefix))
    return frozenset(int(name.removesuffix(".arrow")) for name in names)


def _stage(output: Store, path: str, rows: list[dict[str, Any]]) -> None:
    try:
        output.put(path, tables.to_ipc(rows, tables.PREDICTIONS, {}), create=True)
    except ExistsError:
        return  # another asker was first; its answers are as good as ours, and they are the ones that count


# --- predictions and their record ----------------------------------------------------------------------


def _finish(shard: Shard, committed: Committed, num_chunks: int, prefix: str, name: str, output: Store) -> Asked:
    """Stitch the staged chunks into the predictions; then the record, then drop the staging."""
    try:
        asked = _write(shard, committed, [_staged_path(prefix, i) for i in range(num_chunks)], name, output)
    except NotFoundError:
        done = _read_record(output, name, shard, committed)  # another asker was done first and dropped the staging
        if done is None:
            raise ShardError(
                f"shard {shard.name}: staged answers are gone, and no record says why. Ask again."
            ) from None
        output.delete_below(_staging_folder(shard, name))
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
    output.delete_below(_staging_folder(shard, name))  # what waits from asking with other settings as well
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
            output.delete_below(_staging_folder(shard, name))  # else each rerun would end here
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
