"""`zipstage pack`: shards out of a folder of pictures, the same bytes each time, visible when all are there.

    find       the pictures, their keys and classes
    cut        runs of them, by number and bytes
    write      `000000.tar` and so on, `classes.txt`, and last `_SUCCESS`

A new folder is written beside its place and then renamed. A bucket has no renaming: there `_SUCCESS`
tells a waiting `purify --marker _SUCCESS` that all is there, and what a broken run left is gone on with.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs.pack.folder import Found, Picture, find_pictures
from jobs.pack.labels import Labels, from_csv, from_folders, some
from pipeline.errors import ConfigError
from pipeline.inputs import refuse_overlap
from pipeline.shards import write_shard
from pipeline.store import Store, open_store
from pipeline.tars import BLOCK

CLASSES, MARKER = "classes.txt", "_SUCCESS"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to pack, and how.

    Args:
        folder: Of pictures.
        output: Folder or prefix of the shards.
        labels: A CSV file; none: the folders' names.
        has_labels: Whether pictures get classes at all.
        samples_per_shard: Pictures in a shard at most.
        shard_mib: MiB of a shard, about; a picture that is larger has one of its own.
    """

    folder: Path
    output: str
    labels: Path | None = None
    has_labels: bool = True
    samples_per_shard: int = 10_000
    shard_mib: float = 256


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed.

    Args:
        found: What the folder holds.
        labels: The classes.
        shards: How many shards.
        size_bytes: Of the pictures.
        is_new: Whether anything was written; else the same lay there already.
    """

    found: Found
    labels: Labels
    shards: int
    size_bytes: int
    is_new: bool


def pack(wanted: Wanted, note: Callable[[str], None]) -> Packed:
    """Write the shards, unless the same ones are there.

    Args:
        wanted: What, and how.
        note: Told each shard as it is written.

    Raises:
        ConfigError: No pictures, no classes that make sense, or an output that holds something else.
        StoreError: Storage said no; nothing half visible is left.
    """
    output = open_store(wanted.output)
    refuse_overlap(wanted.output, [str(wanted.folder)], ())
    found = find_pictures(wanted.folder)
    labels = _labels(wanted, [picture.path for picture in found.pictures])
    shards = {
        f"{number:06d}.tar": run
        for number, run in enumerate(cut(found.pictures, wanted.samples_per_shard, wanted.shard_mib))
    }
    is_new = _write(wanted, output, shards, labels, note)
    size = sum(picture.size for picture in found.pictures)
    return Packed(found, labels, len(shards), size, is_new)


def cut(pictures: Sequence[Picture], most: int, mib: float) -> Iterator[tuple[Picture, ...]]:
    """Runs of pictures, each of at most so many, of about so many MiB."""
    run: list[Picture] = []
    size = 0
    for picture in pictures:
        more = picture.size + 4 * BLOCK  # two headers, a label, half a block of padding each
        if run and (len(run) == most or size + more > mib * (1 << 20)):
            yield tuple(run)
            run, size = [], 0
        run.append(picture)
        size += more
    yield tuple(run)


def _labels(wanted: Wanted, paths: Sequence[str]) -> Labels:
    if wanted.labels is not None:
        return from_csv(wanted.labels, paths)
    return from_folders(wanted.folder, paths) if wanted.has_labels else Labels()


Shards = dict[str, tuple[Picture, ...]]


def _write(wanted: Wanted, output: Store, shards: Shards, labels: Labels, note: Callable[[str], None]) -> bool:
    """Write what isn't there; gives whether that was anything."""
    small = {CLASSES: "".join(f"{name}\n" for name in labels.names).encode()} if labels.names else {}
    small[MARKER] = b""
    there = {stored.path for stored in output.list()}
    foreign = sorted(there - {*shards, *small})
    same = {name for name in sorted(there - set(foreign)) if _is_same(wanted, output, name, shards, labels, small)}
    if foreign or same != there:
        other = [*foreign, *sorted(there - same)][0]
        raise ConfigError(f"output {wanted.output}: it holds something else, such as {other}. Name an empty place.")
    missing = [name for name in (*shards, *small) if name not in there]
    place = Path(output.uri)
    with _beside(place) if output.is_local and not place.exists() else nullcontext(output) as target:
        for name in missing:
            if name in small:
                target.put(name, small[name])
            else:
                target.written(partial(_stream, wanted, target, name, shards[name], labels))
                note(f"wrote {name}: {len(shards[name]):,} pictures")
    return bool(missing)


@contextmanager
def _beside(place: Path) -> Iterator[Store]:
    """A folder that is renamed when all is in it; nothing is left of it otherwise."""
    target = place.with_name(f".{place.name}.packing")
    shutil.rmtree(target, ignore_errors=True)  # what a killed run left
    try:
        yield open_store(str(target))
        target.rename(place)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _stream(wanted: Wanted, target: Store, name: str, pictures: Sequence[Picture], labels: Labels) -> None:
    with target.writer(name) as file:
        write_shard(file, name, _samples(wanted.folder, pictures, labels))


def _samples(
    folder: Path, pictures: Sequence[Picture], labels: Labels
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    for picture in pictures:
        try:
            members = [(f"{picture.key}.{picture.suffix}", (folder / picture.path).read_bytes())]
        except OSError as error:
            raise ConfigError(f"{folder / picture.path}: can't be read: {error.strerror}.") from None
        if picture.path in labels.by_path:
            members.append((f"{picture.key}.cls", str(labels.by_path[picture.path]).encode()))
        yield picture.key, members


class _Hashing(io.RawIOBase):
    """Takes a shard's bytes for their digest alone."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type] # whatever has the buffer protocol
        self.digest.update(view)
        return view.nbytes


def _is_same(wanted: Wanted, output: Store, name: str, shards: Shards, labels: Labels, small: dict[str, bytes]) -> bool:
    """Whether what lies there is what would be written."""
    if name in small:
        return output.get(name) == small[name]
    would = _Hashing()
    write_shard(would, name, _samples(wanted.folder, shards[name], labels))
    with output.open(output.head(name)) as file:
        return hashlib.file_digest(file, "sha256").digest() == would.digest.digest()


def told(packed: Packed, output: str, size: str) -> str:
    """What was packed, names and values, one a line.

    Args:
        packed: What was packed.
        output: As people typed it.
        size: Of the pictures, in words.
    """
    found, labels = packed.found, packed.labels
    shards = f"{packed.shards:,} shard{'s' * (packed.shards > 1)}"
    rows = [("pictures", f"{len(found.pictures):,} in {shards}, {size}")]
    rows.append(("classes", _classes(packed)))
    if len(labels.by_path) < len(found.pictures) and labels.by_path:
        rows.append(("", f"{len(found.pictures) - len(labels.by_path):,} pictures without one"))
    for name, left in (("not packed", found.others), ("hidden", found.hidden), ("links", found.links)):
        if left:
            rows.append((name, f"{len(left):,}: {some(left)}"))
    if found.renamed:
        renamed = [f"{path} is {key}" for path, key in found.renamed.items()]
        rows.append(("keys", f"{len(renamed):,} aren't their paths: {some(renamed, 2)}"))
    rows.append(("output", output if packed.is_new else f"{output}: the same was there already"))
    beside = "../purified/" if Path(output) == Path() else "purified/"  # an output inside its input is refused
    rows.append(("next", f"zipstage purify --input {shlex.quote(output)} --output {beside}"))
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def _classes(packed: Packed) -> str:
    labels = packed.labels
    if labels.names:
        return f"{len(labels.names):,}, in {CLASSES}: {some(f'{i} {name}' for i, name in enumerate(labels.names))}"
    return f"{len(set(labels.by_path.values())):,}, by their indices" if labels.by_path else "none"
