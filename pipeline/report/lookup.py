"""The image files of a few samples, out of a received or a purified shard.

No table says where in a tar a sample lies, so a shard is read up to the last one that is wanted, while there
is time. What is found counts only with the digest of its row: an input may be gone or another one by now.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pipeline import images, ledger, shards
from pipeline.config import LimitsConfig
from pipeline.errors import ChangedError, NotFoundError
from pipeline.report.samples import Row
from pipeline.store import Store, Stored, open_store
from zipstage.errors import ZipstageError

INPUT_PATIENCE_S = 3.0
"""How long an input that can't be reached is waited for: the page can do without it."""

MAX_MEMBER_MIB, MAX_SAMPLE_MIB, MAX_PIXELS = 32, 64, 50_000_000
"""What the page takes of one sample at most: it is written by the driver, which has other things in its memory."""

MAX_HELD_BYTES = 64 << 20
"""Of the image files of one shard."""

Files = dict[int, bytes | str]
"""By index: an image file, or why there is none."""


@dataclass(frozen=True, slots=True)
class Tar:
    """A shard to look into.

    Args:
        kind: Which digest of a row its images have.
        store: Where it lies.
        stored: What lay there when it was committed.
        limits: What is read of it at most.
    """

    kind: Literal["received", "purified"]
    store: Store
    stored: Stored
    limits: LimitsConfig


def received(source: dict[str, Any], limits: LimitsConfig) -> Tar:
    """The received shard that a record names, as it was then.

    Raises:
        StoreError: There are no credentials for it.
    """
    root, _, path = source["uri"].rpartition("/")
    stored = Stored(path, source["size"], source["etag"])
    return Tar("received", open_store(root or "/", INPUT_PATIENCE_S), stored, for_a_page(limits))


def purified(output: Store, name: str) -> Tar:
    """A committed shard.

    Raises:
        NotFoundError: It is gone.
    """
    return Tar("purified", output, output.head(ledger.shard_path(name)), for_a_page(shards.NO_LIMITS))


def for_a_page(limits: LimitsConfig) -> LimitsConfig:
    """The limits, or those of a page where they are narrower."""
    most = {"max_member_mib": MAX_MEMBER_MIB, "max_sample_mib": MAX_SAMPLE_MIB, "max_pixels": MAX_PIXELS}
    return limits.model_copy(update={name: min(value, getattr(limits, name)) for name, value in most.items()})


def find_files(open_tar: Callable[[], Tar], rows: Iterable[Row], until_s: float | None) -> Files:
    """The image files of some samples of one shard.

    Args:
        open_tar: Gives the shard.
        rows: The samples' rows.
        until_s: When to read no more, by the monotonic clock; none: read on.
    """
    by_key = {row["key"]: row for row in rows}
    found: Files = {row["index"]: "not found in its shard" for row in by_key.values()}
    try:
        tar = open_tar()
        for key, data in _members(tar, set(by_key), until_s):
            row = by_key[key]
            is_its = isinstance(data, str) or hashlib.sha256(data).hexdigest() == row[f"sha256_{tar.kind}"]
            found[row["index"]] = data if is_its else "another image by now"
    except NotFoundError:
        why = "its shard is gone"
    except ChangedError:
        why = "its shard is another one by now"
    except ZipstageError as error:
        why = str(error)
    else:
        return found
    return {index: data if isinstance(data, bytes) else why for index, data in found.items()}


def _members(tar: Tar, wanted: set[str], until_s: float | None) -> Iterator[tuple[str, bytes | str]]:
    held = 0
    with tar.store.open(tar.stored) as file:
        for sample in shards.read_samples(file, tar.stored.path, tar.limits):
            if until_s is not None and time.monotonic() > until_s:
                yield from ((key, "not read: time was up") for key in wanted)
                return
            if sample.key in wanted:
                wanted.remove(sample.key)
                data = _image_of(sample)
                held += len(data) if isinstance(data, bytes) else 0
                yield (
                    sample.key,
                    data if held <= MAX_HELD_BYTES else "too large for a page with the others of its shard",
                )
            if not wanted:
                return


def _image_of(sample: shards.Sample) -> bytes | str:
    if sample.rejected is not None:
        return sample.rejected
    try:
        return sample.members[images.image_position(sample)].data
    except images.RejectedError as error:
        return str(error)
