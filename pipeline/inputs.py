"""The received shards: what an input stands for, and whether an output may lie where it does.

An input is a folder, a glob, a brace pattern or one shard. A trap: outputs go by name, so two
shards of one name, and one shard under two names, are both refused.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache, partial
from itertools import islice, takewhile
from pathlib import Path

from braceexpand import braceexpand

from pipeline.errors import ConfigError, NotFoundError
from pipeline.no_shards import why_no_shards
from pipeline.store import Shard, Store, Stored, open_store
from pipeline.store_open import is_local, normal_uri

SHARD_SUFFIXES = (".tar", ".tar.gz")

MAX_SEGMENT_BYTES = 200
"""Of a shard's name between two slashes; file systems take 255, and a record's name is longer by 18."""

_MAGIC = re.compile(r"[*?\[{]")


def find_shards(inputs: Sequence[str], patience_s: float = 60.0, refused: dict[str, str] | None = None) -> list[Shard]:
    """All shards of the inputs, sorted by the bytes of their names.

    Args:
        inputs: Folders (searched through), globs (`*`, `?`, `[...]`, `**`), brace patterns
            (`{000..011}`, `{a,b}`), single shards; local, file:// or in a bucket. The name
            begins after the last folder that holds no pattern.
        patience_s: How long an unreachable store is waited for.
        refused: Gets the shards whose names can't be in an output, as they can be printed, with the reason.

    Raises:
        ConfigError: An input without shards, two shards of one name, one shard under two, or, without
            `refused`, a name that can't be.
    """
    by_name: dict[str, Shard] = {}
    by_uri: dict[str, Shard] = {}
    open_once = cache(partial(open_store, patience_s=patience_s))  # a list may name a thousand shards of one bucket
    for text in inputs:
        for shard in _shards_of(text, open_once):
            reason = _why_refused(shard)
            if reason is not None:
                if refused is None:
                    raise ConfigError(reason)
                refused[repr(shard.name)[1:-1]] = reason
                continue
            other = by_name.setdefault(shard.name, shard)
            if other != shard:  # the same shard by two patterns is one shard
                raise ConfigError(
                    f"input {text}: {shard.uri} and {other.uri} both have the name {shard.name!r}; "
                    "outputs go by name. Name a folder above both, or run two jobs."
                )
            other = by_uri.setdefault(shard.uri, shard)
            if other.name != shard.name:
                raise ConfigError(
                    f"input {text}: {shard.uri} has two names, {other.name!r} and {shard.name!r}, as one input lies "
                    "inside another; it would be purified twice. Name one of them."
                )
    return [by_name[name] for name in sorted(by_name, key=str.encode)]


def refuse_overlap(output: str, inputs: Sequence[str], shards: Sequence[Shard]) -> None:
    """Refuse an output that would be read as input, or in which received shards lie; links are followed.

    Raises:
        ConfigError: The input and the output are named.
    """
    place = _real(output)
    for text in inputs:
        root, pattern = split_pattern(text)
        below = _below(place, _real(root))
        if below is not None and (not pattern or any(_may_meet(wanted, below) for wanted in _expand(text, pattern))):
            raise ConfigError(
                f"output {output}: lies inside the input {text}. Name a place beside it: the input is never written to."
            )
    for shard in shards:
        if _below(_real(shard.uri), place) is not None:
            raise ConfigError(
                f"output {output}: the received shard {shard.uri} lies below it, where purified ones are written. "
                "Name a place that holds no input."
            )


def _real(uri: str) -> str:
    return os.path.realpath(normal_uri(uri)) if is_local(uri) else normal_uri(uri)


def _below(uri: str, root: str) -> list[str] | None:
    """The segments of a place below a root, none for the root itself; None where it isn't below."""
    root = root.rstrip("/")
    if uri.rstrip("/") != root and not uri.startswith(f"{root}/"):
        return None
    return list(filter(None, uri[len(root) :].split("/")))


def _may_meet(wanted: str, folder: Sequence[str]) -> bool:
    """Whether a glob may match anything in a folder, whatever that will hold: as far as both go, they agree."""
    segments = wanted.strip("/").split("/")
    fixed = segments[: segments.index("**")] if "**" in segments else segments
    return all(fnmatchcase(name, segment) for segment, name in zip(fixed, folder, strict=False))


def _shards_of(text: str, open_once: Callable[[str], Store]) -> list[Shard]:
    root, pattern = split_pattern(text)
    if not pattern and text.endswith(SHARD_SUFFIXES):
        root, _, pattern = normal_uri(text).rpartition("/")
        store = open_once(root or "/")
        with suppress(NotFoundError):
            return [_shard(store, store.head(pattern))]
        raise ConfigError(f"input {text}: there is no such shard.")
    store = open_once(root)
    everything = list(store.list())
    listed = [stored for stored in everything if stored.path.endswith(SHARD_SUFFIXES)]
    if not pattern:
        found = listed
    else:
        found = []
        by_path = {stored.path: stored for stored in listed}
        for wanted in _expand(text, pattern):
            # Looked up where it can be: ten thousand names against ten thousand shards would take minutes.
            matches = [by_path[wanted]] if wanted in by_path else _matching(wanted, listed)
            if not matches:
                raise ConfigError(f"input {text}: nothing matches {wanted!r} below {store.uri}.")
            found += matches
    if not found:
        raise ConfigError(why_no_shards(text, (stored.path for stored in everything)))
    return [_shard(store, stored) for stored in found]


def _shard(store: Store, stored: Stored) -> Shard:
    return Shard(stored.path, store.uri_of(stored.path), store.uri, stored)


def split_pattern(text: str) -> tuple[str, str]:
    """The folder before the first segment with a pattern in it, and the rest."""
    if "://" not in text and Path(text).exists():
        return text, ""  # a folder may have brackets in its name
    start = text.find("://") + 3 if "://" in text else 0
    found = _MAGIC.search(text, start)
    if not found:
        return text, ""
    cut = text.rfind("/", start, found.start()) + 1
    return text[:cut] or ".", text[cut:].rstrip("/")


def _expand(text: str, pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise ConfigError(f"input {text}: the braces don't match; a pattern is like shard-{{000..011}}.tar.") from None


def _matching(wanted: str, listed: list[Stored]) -> list[Stored]:
    """Those that match a glob, looked for among those that begin as it does: braces make a thousand globs of one."""
    wanted = wanted.strip("/")
    fixed = _MAGIC.split(wanted, maxsplit=1)[0].encode(errors="surrogateescape")
    start = bisect_left(listed, fixed, key=lambda stored: stored.path.encode())
    alike = takewhile(lambda stored: stored.path.encode().startswith(fixed), islice(listed, start, None))
    segments = wanted.split("/")
    return [stored for stored in alike if _matches(segments, stored.path.split("/"))]


def _matches(wanted: Sequence[str], path: Sequence[str]) -> bool:
    """Whether the segments of a path match those of a glob; a match of a folder matches all below it."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return _matches(wanted[1:], path) or (bool(path) and _matches(wanted, path[1:]))
    return bool(path) and fnmatchcase(path[0], wanted[0]) and _matches(wanted[1:], path[1:])


def _why_refused(shard: Shard) -> str | None:
    """Names become paths of the output, so each segment must be a plain one."""
    for segment in shard.name.split("/"):
        if segment in ("", ".", "..") or "\\" in segment or not segment.isprintable():
            return (
                f"input {shard.uri!r}: the segment {segment!r} of its name can't be in a path of the output. Rename it."
            )
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            return (
                f"input {shard.uri!r}: a segment of its name has more than {MAX_SEGMENT_BYTES} bytes, and the output's "
                "names are longer still. Rename it."
            )
    return None
