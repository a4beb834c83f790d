"""Single samples of an output: a row, what classifiers said of it, its image as received and as purified.

For whoever shows some of them to people; a job never comes here. Rows and images are found by place
or key, in one pass from the start of their file. A trap: what lies at the input now need not be what
was purified; `received_image` proves it by the digest in the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import images, ledger, shards
from pipeline.commit import Committed, read_record
from pipeline.config import LimitsConfig
from pipeline.errors import ConfigError, NotFoundError, ShardError
from pipeline.inputs import find_shards
from pipeline.store import Shard, Store, open_store

ROWS = 4096

PATIENCE_S = 5.0
"""How long a received shard's storage is waited for: a person sits there, and the purified image can be shown."""

Row = dict[str, Any]


def committed_shards(output: Store) -> dict[str, str]:
    """The identity of each committed shard, by NAME.

    Raises:
        ConfigError: There are none.
    """
    records = ledger.list_records(output)
    if not records:
        raise ConfigError(
            f"output {output.uri}: expected records of committed shards below it, found none. "
            "Name the output of a `zipstage purify`."
        )
    return {name: max(identities) for name, identities in sorted(records.items())}


def list_classifiers(output: Store) -> list[str]:
    """The names of the classifiers that have answered for some shard."""
    records = (stored.path for stored in output.list("predictions") if stored.path.endswith(".json"))
    return sorted({path.split("/")[1] for path in records})


def column(output: Store, path: str, name: str) -> Iterator[tuple[int, pa.Array]]:
    """One column of a table, some rows at a time, each time with the number of the first."""
    start = 0
    with output.open(output.head(path)) as file:
        for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=[name]):
            yield start, batch.column(0)
            start += batch.num_rows


def rows_with_key(output: Store, key: str, name: str) -> list[int]:
    """The numbers of a shard's rows with a key: none, one, or more where the key came back and was rejected."""
    return [
        start + found
        for start, keys in column(output, ledger.table_path(name), "key")
        for found in pc.indices_nonzero(pc.equal(keys, key)).to_pylist()
    ]


def row_at(output: Store, path: str, number: int) -> Row:
    """One row of a table or of predictions.

    Raises:
        NotFoundError: There is no such table.
        ShardError: It has no such row.
    """
    left = number
    with output.open(output.head(path)) as file:
        for batch in pq.ParquetFile(file).iter_batches(ROWS):
            if left < batch.num_rows:
                return dict(batch.slice(left, 1).to_pylist()[0])
            left -= batch.num_rows
    raise ShardError(f"{path}: expected a row {number}, found {number - left}. `zipstage verify` tells what differs.")


def answers_of(output: Store, name: str, identity: str, number: int) -> dict[str, Row]:
    """What each classifier that has answered for a shard said of one row, by its name."""
    return {
        classifier: row_at(output, ledger.predictions_path(classifier, name), number)
        for classifier in list_classifiers(output)
        if identity in ledger.list_predicted(output, classifier).get(name, ())
    }


def read_committed(output: Store, name: str, identity: str) -> Committed:
    """A shard's record.

    Raises:
        NotFoundError: It was withdrawn in the meantime.
    """
    committed = read_record(output, name, identity)
    if committed is None:
        raise NotFoundError(f"shard {name}: its record was withdrawn just now: is a run at work? Try again later.")
    return committed


def purified_images(output: Store, name: str, keys: Collection[str]) -> dict[str, bytes]:
    """The encoded images of some samples of a purified shard, by key; one pass, up to the last of them."""
    path = ledger.shard_path(name)
    wanted, found = set(keys), {}
    with output.open(output.head(path)) as file:
        for sample in shards.read_samples(file, path, shards.NO_LIMITS):
            if sample.key in wanted:
                found[sample.key] = sample.members[images.image_position(sample)].data
                if len(found) == len(wanted):
                    break
    return found


def find_received(committed: Committed, moved_to: str | None = None) -> Shard:
    """The received shard of a committed one: where its record says, or where it was moved to.

    Args:
        committed: What was made of it.
        moved_to: A folder, prefix or pattern that holds it now under its name, or the shard itself.

    Raises:
        StoreError: It isn't there, or storage said no.
        ConfigError: It isn't at the place that it was moved to.
    """
    name = committed.shard
    if moved_to is None:
        folder, _, file = committed.record["source"]["uri"].rpartition("/")
        store = open_store(folder or "/", PATIENCE_S)
        return Shard(name, store.uri_of(file), store.uri, store.head(file))
    found = find_shards([moved_to], PATIENCE_S, refused={})
    alone = len(found) == 1 and f"/{name}".endswith(f"/{found[0].name}")
    same = [shard for shard in found if shard.name == name or alone]
    if not same:
        raise ConfigError(f"input {moved_to}: expected the shard {name} below it, found {len(found)} others.")
    return same[0]


def received_image(shard: Shard, row: Row, limits: LimitsConfig) -> bytes:
    """The encoded image of one sample as received, proved to be the one that its row tells of.

    Raises:
        ShardError: The shard is broken before it, or another sample is at its place.
        StoreError: Storage said no.
    """
    with open_store(shard.store_uri, PATIENCE_S).open(shard.stored) as file:
        for sample in shards.read_samples(file, shard.name, limits):
            if sample.index == row["index"] and sample.key == row["key"] and sample.rejected is None:
                data = sample.members[images.image_position(sample)].data
                if hashlib.sha256(data).hexdigest() == row["sha256_received"]:
                    return data
            if sample.index >= row["index"]:
                break
    raise ShardError(f"{shard.uri}: its sample {row['key']!r} isn't the one that was purified. Was it replaced?")
