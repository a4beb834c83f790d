"""The pictures of a folder, in order, each with the key that it gets in a shard.

A key is the path without its suffix. WebDataset ends a key at the first dot of the file's name and
joins what has one key, so dots become `_`, and a second picture of one key gets a number. Hidden
files and links to folders are left out; links to files are followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.images import IMAGE_SUFFIXES

_RESERVED = re.compile(r"^__([^/]*)__(?=/)")
"""A folder's name that readers of shards keep for themselves."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to pack.

    Args:
        path: Below the folder, with `/`.
        key: In its shard; unique.
        suffix: Of its member, in small letters.
        size: Bytes, when the folder was read.
    """

    path: str
    key: str
    suffix: str
    size: int


@dataclass(slots=True)
class Found:
    """What a folder holds.

    Args:
        pictures: Sorted by their paths' bytes.
        renamed: Keys that aren't their paths, by path.
        others: Files that are no pictures.
        hidden: Hidden files and folders.
        links: Links to folders, links to nothing, and what is neither file nor folder.
    """

    pictures: list[Picture] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def find_pictures(folder: Path) -> Found:
    """Look through a folder and all below it.

    Raises:
        ConfigError: It isn't there, can't be read, or holds no picture.
    """
    found = Found()
    sizes: dict[str, int] = {}
    for path in _walk(folder, "", found):
        if _suffix(path) in IMAGE_SUFFIXES:
            sizes[path] = (folder / path).stat().st_size
        else:
            found.others.append(path)
    taken: set[str] = set()
    for path in sorted(sizes, key=os.fsencode):
        key = _free(key_of(path), taken)
        taken.add(key)
        if key != path[: -len(_suffix(path)) - 1]:
            found.renamed[path] = key
        found.pictures.append(Picture(path, key, _suffix(path), sizes[path]))
    if not found.pictures:
        raise ConfigError(
            f"{folder}: expected pictures below it ({', '.join(sorted(IMAGE_SUFFIXES))}), found {_instead(found)}."
        )
    return found


def _walk(folder: Path, below: str, found: Found) -> Iterator[str]:
    """The files below a folder, but for those that are left out."""
    try:
        entries = sorted(os.scandir(folder / below), key=lambda entry: os.fsencode(entry.name))
    except NotADirectoryError:
        raise ConfigError(f"{folder}: expected a folder of pictures, found a file.") from None
    except OSError as error:
        raise ConfigError(f"{folder / below}: can't be read: {error.strerror}.") from None
    for entry in entries:
        path = f"{below}{entry.name}"
        if entry.name.startswith("."):
            found.hidden.append(path)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{path}/", found)
        elif entry.is_file():
            yield path
        else:
            found.links.append(path)


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def key_of(path: str) -> str:
    """The path without suffix, dots of its name, and what a table or a tar can't hold."""
    above, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0].replace(".", "_")
    plain = "".join(c if c.isprintable() and c != "\\" else "_" for c in f"{above}{slash}{stem}")
    return _RESERVED.sub(r"_\1_", plain)


def _free(key: str, taken: set[str]) -> str:
    """The key, or the first of it with a number that no other picture has."""
    free, number = key, 2
    while free in taken:
        free, number = f"{key}_{number}", number + 1
    return free


def _instead(found: Found) -> str:
    counts = (("other files", found.others), ("hidden ones", found.hidden), ("links", found.links))
    return ", ".join(f"{len(names):,} {what}" for what, names in counts if names) or "nothing"
