"""Where shards were expected and there are none: what lies there, and what makes shards of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.images import IMAGE_SUFFIXES
from pipeline.store_open import is_local, normal_uri

_ARCHIVES = frozenset({"zip", "7z", "rar", "tgz", "bz2", "xz", "zst"})


def why_no_shards(text: str, paths: Iterable[str]) -> str:
    """The line that tells what was found at an input instead of shards.

    Args:
        text: The input, as people typed it.
        paths: What a listing of it found.
    """
    expected = f"input {text}: expected .tar or .tar.gz shards there"
    if is_local(text) and not Path(normal_uri(text)).exists():
        return f"input {text}: there is no such file or folder."
    suffix = PurePosixPath(text).suffix[1:].lower()
    if is_local(text) and Path(normal_uri(text)).is_file():
        if suffix in _ARCHIVES:
            return f"{expected}, found another archive. Unpack it into a folder, then: {_pack('FOLDER')}"
        if suffix in IMAGE_SUFFIXES:
            return f"{expected}, found a picture. Pack the folder that it is in: {_pack(str(Path(text).parent))}"
        return f"{expected}, found a file of another kind."
    pictures = sum(PurePosixPath(path).suffix[1:].lower() in IMAGE_SUFFIXES for path in paths)
    if pictures:
        place = text if is_local(text) else "FOLDER"
        fetch = "" if is_local(text) else "Fetch them into a folder. "
        return f"{expected}, found {pictures:,} pictures. {fetch}Pack them first: {_pack(place)}"
    return f"{expected}, found none."


def _pack(folder: str) -> str:
    return f"zipstage pack {shlex.quote(folder)} shards/"
