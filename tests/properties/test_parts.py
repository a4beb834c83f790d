"""Parts are a function of the shard and the part settings: not of what is staged, of time, or of who asks again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import encoded, job, write_tar

from pipeline.config import JobConfig
from pipeline.inputs import find_shards
from pipeline.ledger import Task
from pipeline.parts import Part, part_from_bytes, part_to_bytes
from pipeline.stages import read_parts
from zipstage.tiles import Tiles, unpack

SIDES = st.sampled_from([1, 20, 32, 33, 64, 100, 200, 256, 300])
laws = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def task_of(folder: Path, sizes: list[tuple[int, int]], tiles: int, max_mib: int = 64) -> tuple[Task, JobConfig]:
    groups = [
        [(f"{i:04d}.png", encoded(np.full((height, width, 3), i % 256, np.uint8))), (f"{i:04d}.txt", b"text")]
        for i, (height, width) in enumerate(sizes)
    ]
    write_tar(folder / "in" / "a.tar", groups)
    config = job(folder, part__tiles=tiles, part__max_mib=max_mib)
    (shard,) = find_shards(config.input)
    return Task(shard, "0" * 12, frozenset(), replaces=False), config


def keys(parts: Iterator[Part]) -> list[list[str]]:
    return [[sample.key for sample in part.samples] for part in parts]


@laws
@given(sizes=st.lists(st.tuples(SIDES, SIDES), max_size=12), tiles=st.integers(1, 4))
def test_parts_hold_each_sample_once_in_order_and_no_more_tiles_than_set(
    folder: Path, sizes: list[tuple[int, int]], tiles: int
) -> None:
    parts = list(read_parts(*task_of(folder, sizes, tiles)))
    assert [key for part in keys(iter(parts)) for key in part] == [f"{i:04d}" for i in range(len(sizes))]
    assert [part.index for part in parts] == list(range(len(parts)))
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts:
        assert sum(len(group.pixels) for group in part.received) <= tiles or len(part.samples) == 1


@laws
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), max_size=10),
    tiles=st.integers(1, 3),
    staged=st.frozensets(st.integers(0, 9)),
)
def test_parts_do_not_depend_on_what_is_staged(
    folder: Path, sizes: list[tuple[int, int]], tiles: int, staged: frozenset[int]
) -> None:
    task, config = task_of(folder, sizes, tiles)
    fresh = list(read_parts(task, config))
    resumed = list(read_parts(replace(task, staged=staged), config))
    assert len(resumed) == len(fresh)
    for part, again in zip(fresh, resumed, strict=True):
        if part.index in staged:
            assert (again.outcome, again.samples, again.is_last) == ("reused", (), part.is_last)
        else:
            assert part_to_bytes(again) == part_to_bytes(part)


@laws
@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6))
def test_a_part_travels_unchanged(folder: Path, sizes: list[tuple[int, int]]) -> None:
    for part in read_parts(*task_of(folder, sizes, 64)):
        arrived = part_from_bytes(part_to_bytes(part))
        assert arrived.samples == part.samples
        placements = [sample.placement for sample in arrived.samples if sample.placement]
        images, _ = unpack(arrived.received, placements)
        assert [image.shape[:2] for image in images] == sizes
        assert all((image == i % 256).all() for i, image in enumerate(images))


def test_a_larger_sample_is_a_part_of_its_own(folder: Path) -> None:
    parts = list(read_parts(*task_of(folder, [(32, 32), (700, 700), (32, 32)], 2, max_mib=1)))
    assert keys(iter(parts)) == [["0000"], ["0001"], ["0002"]]


def test_a_part_that_was_sent_is_let_go() -> None:
    pixels = np.zeros((1, 256, 256, 3), np.uint8)
    part = Part("a.tar", "0" * 12, 0, is_last=True, received=(Tiles(pixels, 32, 1, np.zeros((1, 2), np.uint64)),))
    held = sys.getrefcount(pixels)
    part_to_bytes(part)
    assert sys.getrefcount(pixels) == held
