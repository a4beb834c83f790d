"""The class of each picture: its folder's name, a line of a CSV file, or none.

Classes are numbered in sorted order, names of digits by their value, so that the folders 0 to 42
keep their numbers. A trap: a classifier has an order of its own; compare it with `classes.txt`.
"""

from __future__ import annotations

import csv
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.plain import plain

NAMED = 5
"""Paths that a message names at most."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes of some pictures.

    Args:
        by_path: Index of the class; pictures without one are not in it.
        names: Of the classes, in order of their index; none where a CSV file gives indices.
    """

    by_path: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def from_folders(folder: Path, paths: Iterable[str]) -> Labels:
    """Classes by the first folder of each path; none where no picture lies in a folder.

    Raises:
        ConfigError: Some pictures lie in folders and some don't.
    """
    paths = list(paths)
    loose = [path for path in paths if "/" not in path]
    if len(loose) == len(paths):
        return Labels()
    if loose:
        raise ConfigError(
            f"{folder}: expected all pictures in sub-folders named for their classes, or none; found {len(loose):,} "
            f"beside them, such as {some(loose, 3)}. Move them, or say --no-labels or --labels FILE.csv."
        )
    return _numbered({path: path.partition("/")[0] for path in paths})


def from_csv(file: Path, paths: Iterable[str]) -> Labels:
    """Classes by the lines `path,class` of a CSV file; a class is a name, or all are indices.

    The first line may be a header. Paths are those below the folder.

    Raises:
        ConfigError: It can't be read, or names pictures that aren't there, or one twice.
    """
    known = set(paths)
    lines = _read(file)
    if lines and lines[0][0] not in known and not _is_index(lines[0][1]):
        lines = lines[1:]  # a header; a wrong path stands on the other lines as well
    unknown = [path for path, _ in lines if path not in known]
    if unknown:
        raise ConfigError(
            f"--labels {file}: expected paths of pictures, as {some(sorted(known), 1)}; {len(unknown):,} of "
            f"{len(lines):,} lines name none, such as {some(unknown, 3)}."
        )
    by_path = dict(lines)
    if len(by_path) < len(lines):
        ((twice, _),) = Counter(path for path, _ in lines).most_common(1)
        raise ConfigError(f"--labels {file}: expected a line for each picture, found two for {twice}.")
    if not by_path:
        raise ConfigError(f"--labels {file}: expected lines `path,class`, found none.")
    if all(_is_index(label) for label in by_path.values()):
        return Labels({path: int(label) for path, label in by_path.items()})
    return _numbered(by_path)


def some(names: Iterable[str], most: int = NAMED) -> str:
    """The first few names, printable, for a message."""
    names = list(names)
    return ", ".join(map(plain, names[:most])) + (", ..." if len(names) > most else "")


def _read(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--labels {file}: can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--labels {file}: expected CSV in UTF-8, found other bytes.") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if row]
    for row in rows:
        if len(row) != 2:
            raise ConfigError(f"--labels {file}: expected lines `path,class`, found {separator.join(row)!r}.")
    return [(posixpath.normpath(path.strip().replace("\\", "/")), label.strip()) for path, label in rows]


def _numbered(name_by_path: Mapping[str, str]) -> Labels:
    found = set(name_by_path.values())
    by_value = all(_is_index(name) for name in found)
    names = sorted(found, key=lambda name: (int(name) if by_value else 0, name))
    index = {name: i for i, name in enumerate(names)}
    return Labels({path: index[name] for path, name in name_by_path.items()}, tuple(map(plain, names)))


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit()
