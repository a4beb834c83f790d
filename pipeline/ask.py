"""A committed shard is asked about: received and purified images, side by side, in one pass.

Answers are staged every `ask.chunk` samples, so that a killed run asks again only about the open
ones. Asking stands apart from the graph: a slow endpoint holds no purifier, and `query` is this
same path over shards that have no such record yet. Costs one more read of each shard.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import images, ledger, shards, tables
from pipeline.classifiers import build
from pipeline.classifiers.base import Answers, Classifier
from pipeline.commit import Committed
from pipeline.config import ClassifierConfig, JobConfig
from pipeline.errors import ClassifierAwayError, ConfigError, ExistsError, NotFoundError, ShardError, StoreAwayError
from pipeline.store import Shard, Store, open_store
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
    """

    shard: str
    statuses: dict[str, int] = field(default_factory=dict)
    flipped: int = 0
    away: str | None = None
    error: str | None = None


def classifier_name(config: ClassifierConfig) -> str:
    """The folder of a classifier's predictions: its set name, else its model and what it is asked with."""
    if config.name:
        return config.name
    facts = config.model_dump(mode="json", include={"protocol", "url", "path", "model", "version", "input", "output"})
    title = config.model or (config.path or "classifier").rsplit("/", 1)[-1].split(".")[0]
    return f"{title}-{ledger.canonical_digest(facts, 8)}"


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
        self.limit = asyncio.Semaphore(self.of.concurrency)
        self.classifier: Classifier | None = None
        self.connecting = asyncio.Lock()  # shards that begin together share one client
        self.away: list[str] = []

    async def __call__(self, shard: Shard, committed: Committed) -> Asked:
        if len(self.away) >= self.PATIENCE:
            return Asked(shard.name, away=self.away[-1])
        try:
            classifier = await self._connected()
            asked = await ask_shard(shard, committed, classifier, self.config, self.output, self.limit)
        except (ClassifierAwayError, StoreAwayError) as error:
            self.away.append(str(error))
            return Asked(shard.name, away=str(error))
        except ZipstageError as error:
            return Asked(shard.name, error=str(error))
        self.away.clear()
        return asked

    async def _connected(self) -> Classifier:
        async with self.connecting:
            if self.classifier is None:
                self.classifier = await build(self.of).__aenter__()
            return self.classifier

    async def close(self) -> None:
        if self.classifier is not None:
            await self.classifier.__aexit__(None, None, None)
            self.classifier = None


async def ask_shard(
    shard: Shard,
    committed: Committed,
    classifier: Classifier,
    config: JobConfig,
    output: Store,
    limit: asyncio.Semaphore,
) -> Asked:
    """Ask about one committed shard, chunk by chunk, and write its predictions with their record.

    Raises:
        ClassifierAwayError: It doesn't answer; what was answered so far is staged.
        ClassifierError: It refuses what it is asked.
        StoreError, ShardError: A shard can't be read, or answers can't be written.
    """
    name = classifier_name(asked_of(config))
    done = _read_record(output, name, shard)
    if done is not None:
        return done
    made_of = committed.record["outputs"][ledger.shard_path(shard.name)]["sha256"][:12]
    prefix = f"_staging/{shard.name}/ask/{name}/{shard.identity}-{made_of}/"
    staged = {stored.path for stored in output.list(prefix)}
    paths = []
    pairs = _pairs(shard, config, output)
    for index in itertools.count():
        path = f"{prefix}{index:05d}.arrow"
        chunk = await asyncio.to_thread(_chunk, pairs, config, path not in staged)
        if not chunk:
            break
        paths.append(path)
        if path not in staged:
            rows = await _ask_chunk(chunk, classifier, config, limit)
            await asyncio.to_thread(_stage, output, path, rows)
    return await asyncio.to_thread(_finish, shard, committed, paths, prefix, name, output)


# --- received and purified, side by side -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """One received sample with what was made of it; pixels uint8 [h, w, 3], None when not asked about."""

    row: dict[str, Any]
    received: np.ndarray | None
    purified: np.ndarray | None


_RawPair = tuple[dict[str, Any], shards.Sample, shards.Sample | None]


def _pairs(shard: Shard, config: JobConfig, output: Store) -> Iterator[_RawPair]:
    """Walk both tars and the table in step; each row of the table is one received sample."""
    source = open_store(shard.store_uri, config.storage.patience_s)
    shard_file, table_file = ledger.shard_path(shard.name), ledger.table_path(shard.name)
    columns = ["key", "shard", "index", "label", "status", "error"]
    with (
        source.open(shard.stored, config.storage.range_mib) as received_file,
        output.open(output.head(shard_file), config.storage.range_mib) as purified_file,
        output.open(output.head(table_file), config.storage.range_mib) as rows_file,
    ):
        received = shards.read_samples(received_file, shard.name, config.limits, None)
        purified = shards.read_samples(purified_file, shard_file, config.limits, None)
        rows = _rows(rows_file, columns)
        for row, sample in itertools.zip_longest(rows, received):
            if row is None or sample is None or row["key"] != sample.key:
                raise ShardError(f"shard {shard.name}: its table and its samples differ; `zipstage verify` tells where")
            made = next(purified, None) if row["status"] == "ok" else None
            if row["status"] == "ok" and (made is None or made.key != sample.key):
                raise ShardError(f"shard {shard_file}: no sample {sample.key!r} where its table has one")
            yield row, sample, made


def _rows(file: Any, columns: list[str]) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - a readable file, for pyarrow
    for batch in pq.ParquetFile(file).iter_batches(columns=columns):
        yield from batch.to_pylist()


def _chunk(pairs: Iterator[_RawPair], config: JobConfig, decoded: bool) -> list[Pair]:
    chunk = []
    for row, sample, made in itertools.islice(pairs, config.ask.chunk):
        if made is None or not decoded:
            chunk.append(Pair(row, None, None))
            continue
        before = _pixels(sample, config) if config.ask.before else None
        chunk.append(Pair(row, before, _pixels(made, config)))
    return chunk


def _pixels(sample: shards.Sample, config: JobConfig) -> np.ndarray:
    return images.decode(sample.members[images.image_position(sample)].data, config.limits).pixels


# --- asking -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Said:
    """Answers put together in the order of what was asked."""

    classes: list[int | None]
    scores: list[np.ndarray | None]
    errors: list[str | None]


async def _ask_chunk(
    chunk: Sequence[Pair], classifier: Classifier, config: JobConfig, limit: asyncio.Semaphore
) -> list[dict[str, Any]]:
    before = await _ask_all([pair.received for pair in chunk], classifier, config, limit)
    after = await _ask_all([pair.purified for pair in chunk], classifier, config, limit)
    return [_row(pair.row, before, after, i, config) for i, pair in enumerate(chunk)]


async def _ask_all(
    pictures: Sequence[np.ndarray | None], classifier: Classifier, config: JobConfig, limit: asyncio.Semaphore
) -> _Said:
    """Ask in batches of equal size and at most so many at once; the answers in the pictures' order."""
    count = len(pictures)
    said = _Said([None] * count, [None] * count, [None] * count)
    asked = {i: picture for i, picture in enumerate(pictures) if picture is not None}
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, picture in asked.items():
        by_size.setdefault(picture.shape, []).append(i)
    size = min(asked_of(config).batch, classifier.max_batch)
    batches = [group[at : at + size] for group in by_size.values() for at in range(0, len(group), size)]

    async def ask(batch: list[int]) -> None:
        async with limit:
            answers = await classifier.predict(np.stack([asked[i] for i in batch]))
        _note(said, batch, answers)

    await _all([asyncio.ensure_future(ask(batch)) for batch in batches])
    return said


async def _all(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Wait for all; the first error ends the others and is raised as it is, not in a group."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _note(said: _Said, batch: Iterable[int], answers: Answers) -> None:
    for position, i in enumerate(batch):
        said.errors[i] = answers.errors[position]
        if said.errors[i] is None:
            said.classes[i] = int(answers.classes[position])
            said.scores[i] = None if answers.scores is None else answers.scores[position]


def _row(facts: dict[str, Any], before: _Said, after: _Said, i: int, config: JobConfig) -> dict[str, Any]:
    row = dict(facts)
    error = after.errors[i] or before.errors[i]
    if row["status"] == "ok" and error:
        row["status"], row["error"] = "unanswered", error
    row["prediction_before"], row["prediction_after"] = before.classes[i], after.classes[i]
    row["scores_before"], row["scores_after"] = _top(before.scores[i], config), _top(after.scores[i], config)
    both = before.classes[i] is not None and after.classes[i] is not None
    row["flipped"] = before.classes[i] != after.classes[i] if both else None
    row["suspicion"] = suspicion(before.scores[i], after.scores[i])
    return row


def _top(scores: np.ndarray | None, config: JobConfig) -> list[dict[str, float]] | None:
    if scores is None:
        return None
    order = np.argsort(-scores, kind="stable")[: config.ask.top]
    return [{"class": int(c), "score": float(scores[c])} for c in order]


def suspicion(before: np.ndarray | None, after: np.ndarray | None) -> float | None:
    """Half the L1 distance of two score vectors as probabilities: 0 the same, 1 nothing in common.

    Scores that aren't probabilities (logits) are made so by a softmax.
    """
    if before is None or after is None or before.shape != after.shape:
        return None
    return float(np.abs(_probabilities(before) - _probabilities(after)).sum() / 2)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    if scores.min() >= 0 and abs(scores.sum() - 1) < 1e-2:
        return scores
    raised: np.ndarray = np.exp(scores - scores.max())
    return np.asarray(raised / raised.sum())


# --- staging and the record -----------------------------------------------------------------------------


def _stage(output: Store, path: str, rows: list[dict[str, Any]]) -> None:
    try:
        output.put(path, tables.to_ipc(rows, tables.PREDICTIONS, {}), create=True)
    except ExistsError:
        return  # another asker was first; its answers are as good as ours, and they are the ones that count


def _finish(shard: Shard, committed: Committed, paths: list[str], prefix: str, name: str, output: Store) -> Asked:
    """Stitch the staged chunks into the predictions; then the record, then drop the staging."""
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
    record = {
        "shard": shard.name,
        "identity": shard.identity,
        "classifier": name,
        "purified_sha256": committed.record["outputs"][ledger.shard_path(shard.name)]["sha256"],
        "statuses": dict(sorted(statuses.items())),
        "flipped": flipped,
    }
    path = ledger.predictions_record_path(name, shard.name, shard.identity)
    output.put(path, json.dumps(record, indent=1, sort_keys=True).encode())
    output.delete_below(prefix)
    return Asked(shard.name, statuses, flipped)


def _read_record(output: Store, name: str, shard: Shard) -> Asked | None:
    try:
        record = json.loads(output.get(ledger.predictions_record_path(name, shard.name, shard.identity)))
    except NotFoundError:
        return None
    return Asked(shard.name, record["statuses"], record["flipped"])
