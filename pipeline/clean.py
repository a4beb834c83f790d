"""Clears an output of what dead runs left behind: staging, temporary files, uploads that were never completed.

Never touches what is committed, and takes the lease, so never what a live driver works on. Trap: staged
parts are what the next run would go on from; who clears them has them purified again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import ledger, uploads
from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError
from pipeline.lease import Lease
from pipeline.stopping import Stop
from pipeline.store import Store, Stored
from pipeline.uploads import Upload

STAGING = "_staging"

_OURS = ("shards/", "tables/", "records/", "predictions/", "classifiers/", "runs/", f"{STAGING}/")
_OURS_AT_TOP = ("_", "settings.json")
"""How paths begin that runs write; others below the output are nobody's business."""

_TEMPORARY = re.compile(r".+#\d+")
"""What a local file is called until it is whole."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What dead runs left.

    Args:
        staged: Parts and answers on their way.
        temporary: Local files of killed writers, and their bytes.
        uploads: Those that were not completed; None where the storage doesn't list them.
    """

    staged: tuple[Stored, ...]
    temporary: dict[Path, int]
    uploads: tuple[Upload, ...] | None

    @property
    def size_bytes(self) -> int:
        """Without the uploads."""
        return sum(stored.size for stored in self.staged) + sum(self.temporary.values())


def clean(output: Store, tell: Callable[[str], None], *, dry_run: bool = False) -> Leftovers:
    """Remove what dead runs left; gives what that was.

    Args:
        output: Where.
        tell: Told that another's lease is being watched, which takes a while.
        dry_run: Only look.

    Raises:
        ConfigError: It is no output.
        LeaseError: A driver is at work there.
        StoreError: Storage said no.
    """
    if ledger.read_settings(output) is None:
        raise ConfigError(f"output {output.uri}: expected what purify made, found no {ledger.SETTINGS_PATH}.")
    stop = Stop()
    with Lease("of zipstage clean", ClusterConfig().lease_s, stop) as lease:
        lease.take(output, tell)
        found = _find(output)
        if not dry_run:
            _remove(found, output, stop)
    return found


def _find(output: Store) -> Leftovers:
    staged = tuple(output.list(STAGING))
    if output.is_local:
        temporary = {path: path.stat().st_size for path in _temporary(Path(output.uri))}
        return Leftovers(staged, temporary, ())
    unfinished = uploads.list_unfinished(output.uri)
    return Leftovers(staged, {}, unfinished and tuple(one for one in unfinished if _is_ours(one, output)))


def _temporary(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            below = path.relative_to(root).as_posix()
            if _TEMPORARY.fullmatch(name) and below.startswith(_OURS if "/" in below else _OURS_AT_TOP):
                yield path


def _is_ours(upload: Upload, output: Store) -> bool:
    below = f"s3://{upload.bucket}/{upload.key}".removeprefix(output.uri).lstrip("/")
    return below.startswith(_OURS)


def _remove(found: Leftovers, output: Store, stop: Stop) -> None:
    for upload in found.uploads or ():
        uploads.abort(upload)
    for path in found.temporary:
        path.unlink(missing_ok=True)
    for folder in sorted({stored.path.rpartition("/")[0] for stored in found.staged}):
        stop.insist()  # if the lease was lost in between, the right to remove was lost with it
        output.delete_below(folder)
    output.drop_empty_folders(STAGING)
