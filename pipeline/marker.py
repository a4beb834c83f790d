"""The producer's word that an input is complete: a file such as `_SUCCESS`, written after its last shard.

For runs at a fixed hour: without the marker, shards that come late would be missing from the night.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import NotFoundError, NotReadyError
from pipeline.inputs import SHARD_SUFFIXES, split_pattern
from pipeline.store import open_store


def require_marker(inputs: Sequence[str], marker: str | None, patience_s: float = 60.0) -> None:
    """Go on only when the marker of each input is there.

    Args:
        inputs: As the job names them.
        marker: A name, looked for in each input's folder; or a path or URI of its own; none: nothing is asked.
        patience_s: How long an unreachable store is waited for.

    Raises:
        NotReadyError: One isn't there yet.
        StoreError: Storage can't be reached or used; no such bucket.
    """
    if marker is None:
        return
    for place in marker_places(inputs, marker):
        folder, _, name = place.rpartition("/")
        store = open_store(folder or "/", patience_s)
        try:
            store.head(name)
        except NotFoundError:
            # Asked for as well: a bucket that isn't there says so to a listing alone.
            num_shards = sum(stored.path.endswith(SHARD_SUFFIXES) for stored in store.list())
            raise NotReadyError(
                f"marker {place}: not there yet (shards there: {num_shards:,}), so the input is taken for incomplete "
                "and nothing was done. Its producer writes it after the last shard. Try again later, or correct "
                "`marker`, `input` or the date."
            ) from None


def marker_places(inputs: Sequence[str], marker: str) -> list[str]:
    """Where the marker of each input is looked for."""
    if "/" in marker:
        return [marker]
    return list(dict.fromkeys(f"{_folder(text).rstrip('/')}/{marker}" for text in inputs))


def _folder(text: str) -> str:
    """The folder of an input: that of a single shard, and that before a pattern."""
    folder, pattern = split_pattern(text)
    if not pattern and folder.endswith(SHARD_SUFFIXES):
        return folder.rpartition("/")[0] or "."
    return folder
