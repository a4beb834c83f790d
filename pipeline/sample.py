"""Single samples of an output: where a key stands, a row, and what classifiers said of it.

For whoever shows some of them to people; a job never comes here. Rows are found by place or key, in
one pass from the start of their file. Loads nothing of `pipeline.report`, which loads this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.commit import Committed, read_record
from pipeline.errors import ConfigError, NotFoundError, ShardError
from pipeline.store import Store

ROWS = 4096

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
