"""The two images of one sample, each proved to be its row's by the digest there.

The received shard lies where its record says, or where it was moved to since.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from jobs.pack.pack import CLASSES
from pipeline import images, ledger
from pipeline.commit import Committed
from pipeline.config import LimitsConfig
from pipeline.errors import ConfigError, ShardError, StoreError
from pipeline.inputs import find_shards
from pipeline.report.lookup import INPUT_PATIENCE_S, Tar, find_files
from pipeline.sample import Row
from pipeline.shards import NO_LIMITS
from pipeline.store import Store, open_store


def purified_image(output: Store, row: Row) -> np.ndarray:
    """The purified image, uint8 [h, w, 3].

    Raises:
        StoreError: Its shard is gone, or storage said no.
        ShardError: It isn't the one of its row.
    """
    path = ledger.shard_path(row["shard"])
    data, why = _image_of(Tar("purified", output, output.head(path), NO_LIMITS), row)
    if data is None:
        raise ShardError(f"{path}: the sample {row['key']!r}: {why}. `zipstage verify` tells what differs.")
    return images.decode(data, NO_LIMITS).pixels


def received_image(committed: Committed, row: Row, limits: LimitsConfig, moved_to: str | None) -> np.ndarray:
    """The received image, uint8 [h, w, 3].

    Args:
        committed: What was made of its shard.
        row: Its row.
        limits: Under which it was decoded.
        moved_to: A folder, prefix or pattern that holds its shard now, or the shard itself; none: where it was.

    Raises:
        StoreError: Its shard is gone, or storage said no.
        ConfigError: Its shard isn't at the place that it was moved to.
        ShardError: The shard is broken before it, or doesn't hold it any more.
    """
    tar = _find_received(committed, limits, moved_to)
    data, why = _image_of(tar, row)
    if data is None:
        raise ShardError(f"{tar.store.uri_of(tar.stored.path)}: {why}.")
    return images.decode(data, limits).pixels


def class_names(committed: Committed) -> list[str]:
    """What `zipstage pack` called the classes, beside the shards that it wrote; empty where there is no such list."""
    root = committed.record["source"]["uri"].removesuffix(committed.shard)
    with suppress(StoreError, UnicodeDecodeError):
        return open_store(root, INPUT_PATIENCE_S).get(CLASSES).decode().splitlines()
    return []


def _find_received(committed: Committed, limits: LimitsConfig, moved_to: str | None) -> Tar:
    name = committed.shard
    if moved_to is None:
        folder, _, file = committed.record["source"]["uri"].rpartition("/")
        store = open_store(folder or "/", INPUT_PATIENCE_S)
        return Tar("received", store, store.head(file), limits)
    found = find_shards([moved_to], INPUT_PATIENCE_S, refused={})
    alone = len(found) == 1 and f"/{name}".endswith(f"/{found[0].name}")
    same = [shard for shard in found if shard.name == name or alone]
    if not same:
        raise ConfigError(f"input {moved_to}: expected the shard {name} below it, found {len(found)} others.")
    return Tar("received", open_store(same[0].store_uri, INPUT_PATIENCE_S), same[0].stored, limits)


def _image_of(tar: Tar, row: Row) -> tuple[bytes | None, str]:
    """The encoded image, or None and the reason."""
    (found,) = find_files(lambda: tar, [row], None).values()
    return (found, "") if isinstance(found, bytes) else (None, found)
