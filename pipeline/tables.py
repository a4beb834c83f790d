"""The schemas of what is read by others: tables, predictions, staged parts, staged answers.

No column holds a clock's time: the same input and settings give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

TABLE = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        ("status", pa.string()),  # ok, undecodable, rejected, failed
        ("error", pa.string()),
        ("label", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("sha256_received", pa.string()),
        ("sha256_purified", pa.string()),
        ("psnr", pa.float32()),  # dB between received and purified pixels; null when equal
        ("residual", pa.float32()),
    ]
)

SCORES = pa.list_(pa.struct([("class", pa.int32()), ("score", pa.float32())]))

PREDICTIONS = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("status", pa.string()),  # those of the table, and unanswered
        ("error", pa.string()),
        ("prediction_before", pa.int64()),
        ("prediction_after", pa.int64()),
        ("scores_before", SCORES),
        ("scores_after", SCORES),
        ("flipped", pa.bool_()),
        ("suspicion", pa.float32()),
    ]
)

MEMBERS = pa.list_(pa.struct([("name", pa.string()), ("data", pa.large_binary())]))

STAGED = pa.schema([*TABLE, ("members", MEMBERS)])


def to_ipc(rows: list[dict[str, Any]], schema: pa.Schema, facts: dict[str, Any]) -> bytes:
    """Rows and facts about them as one Arrow IPC stream."""
    schema = schema.with_metadata({"facts": json.dumps(facts, sort_keys=True)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow is untyped


def from_ipc(data: bytes) -> tuple[pa.Table, dict[str, Any]]:
    """The rows and the facts of such a stream."""
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    return table.replace_schema_metadata(None), json.loads(table.schema.metadata[b"facts"])


def count_by_status(statuses: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for status in statuses:
        counts[status] = counts.get(status, 0) + 1
    return dict(sorted(counts.items()))
