"""Received and purified images side by side, in chunks: what a classifier is asked about.

A chunk ends where `ask.chunk` samples or `CHUNK_MIB` of pixels are full, by the table's numbers
alone: a rerun that decodes only the open chunks cuts the same ones. Memory: two chunks, and one
sample's bytes. Costs one read of both shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import images, ledger, shards
from pipeline.config import JobConfig, LimitsConfig
from pipeline.errors import ConfigError, ShardError
from pipeline.store import Shard, Store, open_store

CHUNK_MIB = 64
"""MiB of pixels in a chunk, received and purified; one sample may be more."""

FACTS = ("key", "shard", "index", "label", "status", "error")


@dataclass(frozen=True, slots=True)
class Pair:
    """One received sample with what was made of it; pixels uint8 [h, w, 3], None when not asked about."""

    facts: dict[str, Any]
    received: np.ndarray | None
    purified: np.ndarray | None


_Row = dict[str, Any]
_RawPair = tuple[_Row, shards.Sample, shards.Sample | None]


def limits_of(made_with: dict[str, Any]) -> LimitsConfig:
    """The limits under which the images of an output were decoded, out of its settings.

    Raises:
        ConfigError: They hold none.
    """
    try:
        return LimitsConfig.model_validate(made_with["settings"]["limits"])
    except (KeyError, TypeError, ValueError):
        expected = "expected the limits that images were decoded under, found none"
        raise ConfigError(f"{ledger.SETTINGS_PATH}: {expected}. Was it edited?") from None


def read_chunks(shard: Shard, config: JobConfig, output: Store, skipped: Container[int]) -> Iterator[list[Pair]]:
    """The samples of a committed shard in received order; those of chunks with a skipped number aren't decoded.

    Raises:
        ShardError: Shard, table and purified shard don't fit together.
    """
    chunk: list[Pair] = []
    size = index = 0
    for row, sample, made in _read_pairs(shard, config, output):
        more = _num_bytes(row, config)
        if chunk and (len(chunk) == config.ask.chunk or size + more > CHUNK_MIB << 20):
            yield chunk
            chunk, size, index = [], 0, index + 1
        chunk.append(_pair(row, sample, None if index in skipped else made, config))
        size += more
    if chunk:
        yield chunk


def _num_bytes(row: _Row, config: JobConfig) -> int:
    return row["width"] * row["height"] * 3 * (1 + config.ask.before) if row["status"] == "ok" else 0


def _pair(row: _Row, sample: shards.Sample, made: shards.Sample | None, config: JobConfig) -> Pair:
    facts = {name: row[name] for name in FACTS}
    if made is None:
        return Pair(facts, None, None)
    before = _pixels(sample, config.limits, row) if config.ask.before else None
    return Pair(facts, before, _pixels(made, shards.NO_LIMITS, row))


def _pixels(sample: shards.Sample, limits: LimitsConfig, row: _Row) -> np.ndarray:
    try:
        return images.decode(sample.members[images.image_position(sample)].data, limits).pixels
    except (images.RejectedError, images.UndecodableError) as error:
        raise _differ(
            row["shard"], f"the image of {sample.key!r}, which is `ok` there, can't be read: {error}"
        ) from None


def _read_pairs(shard: Shard, config: JobConfig, output: Store) -> Iterator[_RawPair]:
    """Walk both tars and the table in step; each row of the table is one received sample."""
    source = open_store(shard.store_uri, config.storage.patience_s)
    shard_file, table_file = ledger.shard_path(shard.name), ledger.table_path(shard.name)
    with (
        source.open(shard.stored, config.storage.range_mib) as received_file,
        output.open(output.head(shard_file), config.storage.range_mib) as purified_file,
        output.open(output.head(table_file), config.storage.range_mib) as rows_file,
    ):
        received = shards.read_samples(received_file, shard.name, config.limits)
        # Our own output has no limits: a PNG may be larger than the JPEG that it was made of.
        purified = shards.read_samples(purified_file, shard_file, shards.NO_LIMITS)
        for row, sample in itertools.zip_longest(_rows(rows_file, shard.name), received):
            if row is None or sample is None or row["key"] != sample.key:
                raise _differ(shard.name, "rows and samples don't go together")
            made = next(purified, None) if row["status"] == "ok" else None
            if row["status"] == "ok" and (made is None or made.key != sample.key):
                raise _differ(shard.name, f"there is no purified sample {sample.key!r}")
            yield row, sample, made


def _rows(file: Any, name: str) -> Iterator[_Row]:  # noqa: ANN401 - a readable file, for pyarrow
    try:
        for batch in pq.ParquetFile(file).iter_batches(columns=[*FACTS, "width", "height"]):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise _differ(name, f"it can't be read: {' '.join(str(error).split())}") from None


def _differ(name: str, found: str) -> ShardError:
    return ShardError(f"shard {name}: its table and its samples differ: {found}. `zipstage verify` tells where.")
