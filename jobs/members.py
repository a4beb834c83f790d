"""One member of a shard, for pictures: read by its name, without the rest."""

from __future__ import annotations

import tarfile
from pathlib import Path


def member_of(shard: Path, name: str) -> bytes:
    """The bytes of one member of a shard.

    Raises:
        FileNotFoundError: The shard has no such file.
    """
    with tarfile.open(shard) as members:
        try:
            file = members.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise FileNotFoundError(f"{shard}: expected a file {name}, found none. Is it the shard that was meant?")
        return file.read()
