"""`_info.json`: names and lengths of the committed shards, as timm and others read them.

Records that the file before knew are not read again; the others are, many at once: one after the
other, ten thousand of them in a bucket take minutes.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from pipeline import ledger
from pipeline.commit import read_record
from pipeline.errors import NotFoundError
from pipeline.store import Store

INFO_PATH = "_info.json"

_READERS = 16


def write_info(output: Store) -> None:
    """Rewrite `_info.json` after the records that are there."""
    whole = [(name, sorted(identities)[-1]) for name, identities in sorted(ledger.list_records(output).items())]
    lengths = _known(output)
    new = [one for one in whole if ledger.record_path(*one) not in lengths]

    def length(one: tuple[str, str]) -> int | None:
        committed = read_record(output, *one)
        return committed.num_images if committed else None

    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(zip(new, readers.map(length, new), strict=True))
    shards = {one: found.get(one, lengths.get(ledger.record_path(*one))) for one in whole}
    there = {one: count for one, count in shards.items() if count is not None}
    info = {
        "splits": {
            "all": {
                "filenames": [ledger.shard_path(name) for name, _ in there],
                "shard_lengths": list(there.values()),
                "num_samples": sum(there.values()),
            }
        },
        "records": [ledger.record_path(*one) for one in there],
    }
    output.put(INFO_PATH, json.dumps(info, indent=1, sort_keys=True).encode())


def _known(output: Store) -> dict[str, int]:
    """The lengths that the file before tells, by record: a record names one content, and settings never change."""
    try:
        info = json.loads(output.get(INFO_PATH))
        return dict(zip(info["records"], info["splits"]["all"]["shard_lengths"], strict=True))
    except (NotFoundError, ValueError, KeyError, TypeError):
        return {}  # none yet, or not ours: all is read anew
