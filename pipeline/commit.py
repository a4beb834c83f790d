"""A whole shard becomes visible: staged parts are stitched, and the record is written last.

Everything read here is immutable, so that a commit that is repeated, by a retry or by a second
driver, writes the same bytes. The order of writing is the promise: shard, table, record, and only
then is the staging dropped. A consumer reads shards that have a record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger, tables
from pipeline.errors import ExistsError, NotFoundError, ShardError
from pipeline.ledger import Task
from pipeline.shards import write_shard
from pipeline.store import Store, Stored

FACT_COLUMNS = [field.name for field in tables.TABLE]


@dataclass(frozen=True, slots=True)
class Committed:
    """A whole shard, as its record says.

    Args:
        shard: NAME.
        identity: Of the received shard.
        record: All that the record says.
    """

    shard: str
    identity: str
    record: dict[str, Any] = field(repr=False)

    @property
    def statuses(self) -> dict[str, int]:
        return dict(self.record["statuses"])

    @property
    def num_images(self) -> int:
        return self.statuses.get("ok", 0)


def commit(task: Task, num_parts: int, output: Store, fingerprint: str) -> Committed:
    """Make a whole shard visible, or find that it is.

    Args:
        task: The shard, as planned.
        num_parts: Its parts; all were staged.
        output: Where.
        fingerprint: Of the settings, for the record.

    Raises:
        ShardError: Staged parts are gone and no record says why.
        StoreError: The storage said no; nothing half visible is left that has a record.
    """
    name, identity = task.shard.name, task.shard.identity
    staged = {stored.path for stored in output.list(ledger.staging_prefix(name, task.plan))}
    paths = [_part_path(task, index, staged) for index in range(num_parts)]
    existing = read_record(output, name, identity)
    if existing is not None and not (staged.issuperset(paths) and _is_replaced(task, output)):
        _drop_staging(output, name)
        return existing
    withdraw(task, output)
    try:
        record = output.written(lambda: _write(task, paths, output, fingerprint))
    except NotFoundError:
        # Another driver committed it and dropped the staging; it was its record, perhaps, that we withdrew.
        committed = read_record(output, name, identity) or _put_back(existing, output)
        if committed is None:
            raise ShardError(
                f"shard {name}: staged parts are gone, and no record says that it is whole. Run again."
            ) from None
        return committed
    _put_record(output, name, identity, record)
    _drop_staging(output, name)
    return Committed(name, identity, record)


def _part_path(task: Task, index: int, staged: set[str]) -> str:
    """Where a part lies: one that was given up is taken only where there is no other, and where that is allowed."""
    whole = ledger.staged_path(task.shard.name, task.plan, index)
    failed = ledger.failed_path(task.shard.name, task.plan, index)
    return failed if task.gives_up and whole not in staged and failed in staged else whole


def _drop_staging(output: Store, name: str) -> None:
    """Drop the staged parts of a whole shard, those of other plans for it as well; answers stay."""
    plans = {ledger.plan_of(stored.path) for stored in output.list(f"_staging/{name}/")}
    for plan in sorted(filter(None, plans)):
        output.delete_below(ledger.staging_prefix(name, plan))


def withdraw(task: Task, output: Store) -> None:
    """Take away what the plan found of a shard that is replaced: first the records of answers, then its own."""
    if task.replaces:
        for stored in task.replaces:
            if _is_as_planned(stored, output):
                output.delete(stored.path)
        output.delete_below(f"_staging/{task.shard.name}/ask/")


def _is_replaced(task: Task, output: Store) -> bool:
    """Whether the shard's record is the one that the plan found: a fresh one of another driver stays.

    Storage that names versions by their bytes can't tell two records of equal bytes apart; see `_put_back`.
    """
    path = ledger.record_path(task.shard.name, task.shard.identity)
    return any(stored.path == path and _is_as_planned(stored, output) for stored in task.replaces or ())


def _is_as_planned(stored: Stored, output: Store) -> bool:
    try:
        return output.head(stored.path).etag.strip('"') == stored.etag.strip('"')
    except NotFoundError:
        return False


def _put_back(withdrawn: Committed | None, output: Store) -> Committed | None:
    """Put a withdrawn record back where shard and table are those that it tells of."""
    if withdrawn is None:
        return None
    for path, told in withdrawn.record["outputs"].items():
        try:
            with output.open(output.head(path)) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except NotFoundError:
            return None
        if found != told["sha256"]:
            return None
    _put_record(output, withdrawn.shard, withdrawn.identity, withdrawn.record)
    return withdrawn


def read_record(output: Store, name: str, identity: str) -> Committed | None:
    """The record of a shard, when it is whole."""
    try:
        return Committed(name, identity, json.loads(output.get(ledger.record_path(name, identity))))
    except NotFoundError:
        return None


def _write(task: Task, paths: list[str], output: Store, fingerprint: str) -> dict[str, Any]:
    """Write shard and table in one pass over the staged parts; gives the record."""
    name = task.shard.name
    facts: dict[str, Any] = {"profiles": [], "skipped": {}}
    statuses: dict[str, int] = {}
    with (
        output.writer(ledger.table_path(name)) as table_file,
        output.writer(ledger.shard_path(name)) as shard_file,
        pq.ParquetWriter(pa.PythonFile(table_file, mode="w"), tables.TABLE, compression="zstd") as parquet,
    ):

        def samples() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
            for path in paths:
                rows, about = tables.from_ipc(output.get(path))
                parquet.write_table(rows.select(FACT_COLUMNS))
                for status, count in tables.count_by_status(rows["status"].to_pylist()).items():
                    statuses[status] = statuses.get(status, 0) + count
                if about["profile"] and about["profile"] not in facts["profiles"]:
                    facts["profiles"].append(about["profile"])
                facts["skipped"] = about["skipped"] or facts["skipped"]
                for key, members in zip(rows["key"].to_pylist(), rows["members"].to_pylist(), strict=True):
                    if members is not None:
                        yield key, [(member["name"], member["data"]) for member in members]

        write_shard(shard_file, name, samples())
    return {
        "shard": name,
        "identity": task.shard.identity,
        "source": {"uri": task.shard.uri, "size": task.shard.stored.size, "etag": task.shard.stored.etag},
        "plan": task.plan,
        "fingerprint": fingerprint,
        "parts": len(paths),
        "samples": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "outputs": {
            ledger.shard_path(name): {"sha256": shard_file.sha256, "size": shard_file.size_bytes},
            ledger.table_path(name): {"sha256": table_file.sha256, "size": table_file.size_bytes},
        },
        **facts,
    }


def _put_record(output: Store, name: str, identity: str, record: dict[str, Any]) -> None:
    """Write the record; of several attempts that committed the same bytes the first one has it."""
    data = json.dumps(record, indent=1, sort_keys=True).encode()
    try:
        output.put(ledger.record_path(name, identity), data, create=True)
    except ExistsError:
        there = read_record(output, name, identity)
        if there is None or there.record["outputs"] != record["outputs"]:
            # Of other parts, staged anew on another device in between: what lies there now is what we wrote.
            output.put(ledger.record_path(name, identity), data)
