"""Pictures of a page: received, purified and their difference, small, as text that the page holds."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageChops

from pipeline import images, shards
from pipeline.commit import read_record
from pipeline.config import LimitsConfig
from pipeline.report import lookup
from pipeline.report.samples import Row
from pipeline.store import Store

AMPLIFIED = 4
"""How many times larger a difference is shown than it is."""

EXACT_PX = 64
"""Images up to so many pixels a side are shown pixel by pixel; larger ones are shrunk to `SHOWN_PX`, if need be."""

SHOWN_PX = 160

_AT_ONCE = 4
"""Shards that are read at once."""

Spot = tuple[str, int]
"""A shard's name, and a sample's index in it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI, or why there is none."""

    uri: str = ""
    why_not: str = ""
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """A sample in pictures."""

    received: Picture
    purified: Picture
    difference: Picture


def draw(
    output: Store, rows: Iterable[Row], identities: Mapping[str, str], limits: LimitsConfig, until_s: float | None
) -> dict[Spot, Pictures]:
    """Pictures of some samples that were purified.

    Args:
        output: Where the purified ones are.
        rows: The samples' rows.
        identities: Of the committed shards, by NAME.
        limits: Under which the received ones were decoded.
        until_s: When to read no more, by the monotonic clock; none: read on.
    """
    by_shard: dict[str, list[Row]] = {}
    for row in {(row["shard"], row["index"]): row for row in rows}.values():
        by_shard.setdefault(row["shard"], []).append(row)

    def files(name: str) -> tuple[lookup.Files, lookup.Files]:
        return _files(output, name, identities[name], by_shard[name], limits, until_s)

    pictures: dict[Spot, Pictures] = {}
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        for names in _some(list(by_shard)):  # what is read ahead lies in memory
            for name, (received, purified) in zip(names, readers.map(files, names), strict=True):
                for index in list(received):  # one after the other: some have 50 million pixels
                    pictures[name, index] = pictures_of(received.pop(index), purified.pop(index))
    return pictures


def _some(names: list[str]) -> Iterator[list[str]]:
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))


def _files(
    output: Store, name: str, identity: str, rows: list[Row], limits: LimitsConfig, until_s: float | None
) -> tuple[lookup.Files, lookup.Files]:
    """The image files of some samples of a shard, received and purified."""
    committed = read_record(output, name, identity)
    if committed is None:
        gone: lookup.Files = {row["index"]: "its shard was withdrawn meanwhile" for row in rows}
        return gone, dict(gone)
    source = committed.record["source"]
    return (
        lookup.find_files(lambda: lookup.received(source, limits), rows, until_s),
        lookup.find_files(lambda: lookup.purified(output, name), rows, until_s),
    )


def pictures_of(received: bytes | str, purified: bytes | str) -> Pictures:
    """A sample in pictures, of its image files or the reasons why there are none."""
    before, after = _decoded(received), _decoded(purified)
    if isinstance(before, str) or isinstance(after, str):
        difference = Picture(why_not="needs both images")
    elif before.size != after.size:
        difference = Picture(why_not="the images differ in size")
    else:
        difference = _difference(before, after)
    return Pictures(_shown(before), _shown(after), difference)


def _decoded(file: bytes | str) -> Image.Image | str:
    if isinstance(file, str):
        return file
    try:
        return Image.fromarray(images.decode(file, lookup.for_a_page(shards.NO_LIMITS)).pixels)
    except (images.RejectedError, images.UndecodableError) as error:
        return str(error)


def _difference(before: Image.Image, after: Image.Image) -> Picture:
    """How far each pixel moved, in each channel; amplified after the shrinking, which takes means."""
    small = _shrunk(ImageChops.difference(before, after))
    return _encoded(small.point(lambda value: min(255, AMPLIFIED * value)))


def _shown(image: Image.Image | str) -> Picture:
    return Picture(why_not=image) if isinstance(image, str) else _encoded(_shrunk(image))


def _shrunk(image: Image.Image) -> Image.Image:
    if max(image.size) <= SHOWN_PX:
        return image
    scale = SHOWN_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


def _encoded(image: Image.Image) -> Picture:
    is_exact = max(image.size) <= EXACT_PX
    kind, options = ("PNG", {"optimize": True}) if is_exact else ("WEBP", {"quality": 80})
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Picture(f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}", "", is_exact)
