"""Proves an output: every record, digest, row and member. Reads all, writes nothing.

Each finding names the object and what differs. What is checked, for each record:

    shard and table have the size and the sha256 that the record says
    the table has one row for each received sample, numbered in received order without a gap
    the purified shard has exactly the samples whose row is `ok`, in that order, once each
    each purified image has the sha256 of its row
    predictions, where a record says that they are there, have one row for each row of the table
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from pipeline import images, ledger, shards
from pipeline.commit import read_record
from pipeline.errors import NotFoundError, ShardError
from pipeline.store import Store

CHUNK = 1 << 20
ROWS = 4096


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Args:
        shards: Records looked at.
        samples: Rows of their tables.
        predictions: Prediction records looked at.
        findings: One line each; none means that all is as promised.
    """

    shards: int = 0
    samples: int = 0
    predictions: int = 0
    findings: list[str] = field(default_factory=list)


def verify(output: Store, watch: Callable[[str], None] = lambda name: None) -> Report:
    """Check all that is committed below an output prefix.

    Args:
        output: The prefix.
        watch: Told each shard's NAME before it is read.
    """
    report = Report()
    for name, identities in sorted(ledger.list_records(output).items()):
        watch(name)
        if len(identities) > 1:
            report.findings.append(
                f"records/{name}: expected one record, found {len(identities)}: {', '.join(sorted(identities))}"
            )
        for identity in sorted(identities):
            report.findings += _check(output, name, identity, report)
            report.shards += 1
    report.findings += _check_predictions(output, report)
    return report


def _check(output: Store, name: str, identity: str, report: Report) -> Iterator[str]:
    committed = read_record(output, name, identity)
    if committed is None:
        yield f"records/{name}.{identity}.json: vanished while it was verified"
        return
    for path, said in committed.record["outputs"].items():
        yield from _check_object(output, path, said)
    try:
        yield from _check_rows(name, _rows(output, name), committed.record, report)
    except (NotFoundError, OSError, ValueError) as error:  # pyarrow raises ValueError's heirs for what is no parquet
        yield f"{ledger.table_path(name)}: can't be read: {_line(error)}"
        return
    try:
        yield from _check_samples(output, name, _rows(output, name))
    except (NotFoundError, ShardError) as error:
        yield f"{ledger.shard_path(name)}: can't be read: {_line(error)}"


def _check_object(output: Store, path: str, said: dict[str, Any]) -> Iterator[str]:
    try:
        stored = output.head(path)
    except NotFoundError:
        yield f"{path}: missing; its record says {said['size']} bytes"
        return
    digest = hashlib.sha256()
    with output.open(stored) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if stored.size != said["size"]:
        yield f"{path}: expected {said['size']} bytes, found {stored.size}"
    elif digest.hexdigest() != said["sha256"]:
        yield f"{path}: expected sha256 {said['sha256'][:12]}..., found {digest.hexdigest()[:12]}..."


def _rows(output: Store, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a shard's table, some at a time: a shard of a million samples must not fill the memory."""
    with output.open(output.head(ledger.table_path(name))) as file:
        for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=["key", "index", "status", "sha256_purified"]):
            yield from batch.to_pylist()


def _check_rows(name: str, rows: Iterator[dict[str, Any]], record: dict[str, Any], report: Report) -> Iterator[str]:
    path = ledger.table_path(name)
    statuses: Counter[str] = Counter()
    is_in_order = True
    for expected, row in enumerate(rows):
        statuses[row["status"]] += 1
        if is_in_order and row["index"] != expected:
            is_in_order = False
            yield f"{path}: row {expected} ({row['key']!r}): expected index {expected}, found {row['index']}"
    found = statuses.total()
    report.samples += found
    if found != record["samples"]:
        yield f"{path}: expected {record['samples']} rows, found {found}"
    if statuses != record["statuses"]:
        yield f"{path}: expected rows by status {record['statuses']}, found {dict(sorted(statuses.items()))}"


def _check_samples(output: Store, name: str, rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    path = ledger.shard_path(name)
    wanted = (row for row in rows if row["status"] == "ok")
    with output.open(output.head(path)) as file:
        for sample in shards.read_samples(file, path, shards.NO_LIMITS):
            row = next(wanted, None)
            if row is None or row["key"] != sample.key:
                expected = "no more samples" if row is None else f"sample {row['key']!r}"
                yield f"{path}: expected {expected}, found {sample.key!r}"
                return
            data = sample.members[images.image_position(sample)].data
            if hashlib.sha256(data).hexdigest() != row["sha256_purified"]:
                yield f"{path}: sample {sample.key!r}: its image is not the one of its row"
    missing = next(wanted, None)
    if missing is not None:
        yield f"{path}: expected sample {missing['key']!r}, found the end"


def _check_predictions(output: Store, report: Report) -> Iterator[str]:
    for stored in list(output.list("predictions")):
        if not stored.path.endswith(".json"):
            continue
        report.predictions += 1
        record = json.loads(output.get(stored.path))
        path = ledger.predictions_path(record["classifier"], record["shard"])
        committed = read_record(output, record["shard"], record["identity"])
        if committed is None:
            yield f"{stored.path}: answers for a shard that has no record"
            continue
        said = committed.record["outputs"][ledger.shard_path(record["shard"])]["sha256"]
        if record["purified_sha256"] != said:
            yield f"{stored.path}: answers for another purified shard than the committed one"
        try:
            with output.open(output.head(path)) as file:
                found = pq.ParquetFile(file).metadata.num_rows
        except (NotFoundError, OSError, ValueError) as error:
            yield f"{path}: can't be read: {_line(error)}"
            continue
        if found != committed.record["samples"]:
            yield f"{path}: expected {committed.record['samples']} rows, found {found}"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
