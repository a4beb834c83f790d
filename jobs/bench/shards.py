"""What the benchmark works on: images of the user's own shards, or drawn ones, in shards of equal length."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import LimitsConfig
from pipeline.errors import ConfigError
from pipeline.inputs import find_shards
from pipeline.shards import read_samples, write_shard
from pipeline.store import open_store

Members = Sequence[tuple[str, bytes]]


def write_shards(samples: Iterator[tuple[str, Members]], folder: Path, per_shard: int) -> None:
    """Write samples into shards of so many each."""
    folder.mkdir(parents=True)
    for number in itertools.count():
        first = next(samples, None)
        if first is None:
            return
        name = f"{number:06d}.tar"
        with (folder / name).open("wb") as file:
            write_shard(file, name, itertools.chain([first], itertools.islice(samples, per_shard - 1)))


def received(data: str, count: int) -> Iterator[tuple[str, Members]]:
    """The first samples of a user's shards, under new keys.

    Raises:
        ConfigError: There are fewer.
    """
    number = 0
    for shard in find_shards((data,)):
        with open_store(shard.store_uri).open(shard.stored) as file:
            for sample in read_samples(file, shard.name, LimitsConfig()):
                if number == count:
                    return
                key = f"{number:08d}"
                yield key, [(f"{key}.{member.suffix}", member.data) for member in sample.members]
                number += 1
    if number < count:
        raise ConfigError(f"--data {data}: expected {count:,} samples, found {number:,}. Ask for fewer with --images.")


def drawn(count: int, side: int = 32, seed: int = 0) -> Iterator[tuple[str, Members]]:
    """Images of noise: what costs a network the same as photographs do."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        yield _sample(number, generator.integers(0, 256, (side, side, 3), np.uint8))


def flat(count: int, side: int) -> Iterator[tuple[str, Members]]:
    """Images of one colour each: next to nothing as PNG, and a tile of its own from 160 px on."""
    for number in range(count):
        colour = np.array([number & 255, number >> 8 & 255, number >> 16], np.uint8)
        yield _sample(number, np.broadcast_to(colour, (side, side, 3)))


def _sample(number: int, pixels: np.ndarray) -> tuple[str, Members]:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    key = f"{number:08d}"
    return key, [(f"{key}.png", file.getvalue())]
