"""`latest.json`: the last night that is whole, for whoever waits for it. Written after all else, in one put.

What it says is counted over all that is committed and answered, not over one run, so that a night that
took three runs reads as one that took one. A date never goes back: a night done again later leaves it alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pipeline import ledger
from pipeline.black_box import identify
from pipeline.config import JobConfig
from pipeline.errors import ALERT, ConfigError, NotFoundError
from pipeline.facts import Summary
from pipeline.store import Shard, Store, open_store

NAME = "latest.json"

_READERS = 16


def publish_latest(config: JobConfig, output: Store, shards: Iterable[Shard], summary: Summary) -> str | None:
    """Name this output as the latest, if it is whole.

    Args:
        config: The job; its `latest` says where.
        output: What was purified.
        shards: All that the job is about.
        summary: How the run ended.

    Returns:
        Where it was written, or which later date stays there; None when this output isn't whole.

    Raises:
        ConfigError: Something else lies there.
        StoreError: Storage can't be reached or used.
    """
    if config.latest is None or config.limit is not None or summary.exit_code not in (0, ALERT):
        return None
    counts = _counted(config, output, tuple(shards))
    if counts is None:
        return None
    folder, _, name = _place(config.latest).rpartition("/")
    store = open_store(folder or "/", config.storage.patience_s)
    before = _before(store, name)
    later = str(before.get("date") or "")
    if config.date is not None and later > config.date:
        return f"{store.uri_of(name)} stays at {later}"
    told = {
        "date": config.date,
        "output": output.uri,
        "run": summary.run,
        "alert": summary.alert.to_dict() if summary.alert else None,
        **counts,
    }
    store.put(name, json.dumps(told, indent=1, sort_keys=True).encode())
    return store.uri_of(name)


def _place(latest: str) -> str:
    path = latest if latest.endswith(".json") else f"{latest.rstrip('/')}/{NAME}"
    return path if "/" in path else f"./{path}"


def _before(store: Store, name: str) -> dict[str, Any]:
    """What is there; nothing when nothing is.

    Raises:
        ConfigError: It isn't ours.
    """
    try:
        found = json.loads(store.get(name))
    except NotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"date", "output", "run"} <= found.keys():
        raise ConfigError(
            f"latest {store.uri_of(name)}: expected one of an earlier run, or nothing, found something else. "
            "All is committed; move that away or name another `latest`, and run again."
        )
    return found


def _counted(config: JobConfig, output: Store, shards: tuple[Shard, ...]) -> dict[str, Any] | None:
    """Shards, samples and answers as their records count them; None unless each shard has all of them."""
    samples = _read(output, [ledger.record_path(shard.name, shard.identity) for shard in shards])
    counts = {"shards": len(shards), "samples": _sum(samples), "classifier": None, "answers": None, "flipped": None}
    is_whole = len(samples) == len(shards)
    if config.classifier is not None:
        name = identify(config.classifier).name
        answers = _read(output, [ledger.predictions_record_path(name, shard.name, shard.identity) for shard in shards])
        flipped = sum(record["flipped"] for record in answers)
        counts |= {"classifier": name, "answers": _sum(answers), "flipped": flipped}
        is_whole = is_whole and len(answers) == len(shards)
    return counts if is_whole else None


def _read(output: Store, paths: list[str]) -> list[dict[str, Any]]:
    """The records that are there."""
    with ThreadPoolExecutor(_READERS) as readers:
        return [record for record in readers.map(partial(_record, output), paths) if record is not None]


def _record(output: Store, path: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(output.get(path))
    except NotFoundError:
        return None
    return record


def _sum(records: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for record in records:
        for status, count in record["statuses"].items():
            total[status] = total.get(status, 0) + count
    return dict(sorted(total.items()))
