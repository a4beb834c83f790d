"""`_info.json`: names and lengths of the committed shards, as timm and others read them.

Records that the file before knew are not read again; the others are, many at once: one after the
other, ten thousand of them in a bucket take minutes.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter

from pipeline import ledger
from pipeline.commit import read_record
from pipeline.errors import NotFoundError
from pipeline.store import Store, Stored

INFO_PATH = "_info.json"

_READERS = 16


def write_info(output: Store) -> None:
    """Rewrite `_info.json` after the records that are there."""
    records = sorted(ledger.list_records(output).items())
    whole = [(name, max(versions.items(), key=itemgetter(0))) for name, versions in records]
    lengths = _known(output)
    new = [(name, identity) for name, (identity, stored) in whole if _version(stored) not in lengths]

    def length(one: tuple[str, str]) -> int | None:
        committed = read_record(output, *one)
        return committed.num_images if committed else None

    with ThreadPoolExecutor(_READERS) as readers:
        read = dict(zip(new, readers.map(length, new), strict=True))
    there = []
    for name, (identity, stored) in whole:
        count = read.get((name, identity), lengths.get(_version(stored)))
        if count is not None:  # else withdrawn in the meantime
            there.append((name, count, _version(stored)))
    info = {
        "splits": {
            "all": {
                "name": "all",  # for timm, which reads no split without
                "filenames": [ledger.shard_path(name) for name, _, _ in there],
                "shard_lengths": [count for _, count, _ in there],
                "num_samples": sum(count for _, count, _ in there),
            }
        },
        "records": [version for _, _, version in there],
    }
    output.put(INFO_PATH, json.dumps(info, indent=1, sort_keys=True).encode())


def _version(stored: Stored) -> str:
    """A record's path and version: one that was withdrawn and written anew may have the old one's path."""
    return f"{stored.path} {stored.etag}"


def _known(output: Store) -> dict[str, int]:
    """The lengths that the file before tells, by version of the record."""
    try:
        info = json.loads(output.get(INFO_PATH))
        return dict(zip(info["records"], info["splits"]["all"]["shard_lengths"], strict=True))
    except (NotFoundError, ValueError, KeyError, TypeError):
        return {}  # none yet, or not ours: all is read anew
