"""What packing promises for any mix of sizes."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zipstage.tiles import (
    CELL_SIZES,
    MIN_OVERLAP,
    TILE_PX,
    cell_for,
    cells_per_tile,
    num_cells,
    num_tiles,
    pack,
    unpack,
    windows_of,
)

sides = st.one_of(st.integers(1, 300), st.sampled_from([1, 2, 31, 32, 33, 255, 256, 257, 448, 449, 600]))
sizes = st.tuples(sides, sides)


def draw_images(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def draw_keys(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2), dtype=np.uint64)


@given(st.lists(sizes, max_size=6), st.integers(0, 2**32))
@example([(1, 5000), (1, 1), (32, 32), (5000, 1)], 0)
@example([(257, 257), (40, 33), (33, 40), (700, 500)], 0)
@settings(deadline=None, max_examples=40)
def test_tiles_and_back_is_the_identity(shapes, seed):
    images = draw_images(shapes, seed)
    packed = pack(images, draw_keys(len(images)))
    back, residuals = unpack(packed.groups, packed.placements)
    assert residuals == [None] * len(images)
    assert len(back) == len(images)
    for image, again in zip(images, back, strict=True):
        assert again.dtype == np.uint8
        assert np.array_equal(image, again)


@given(st.lists(sizes, max_size=8))
@settings(deadline=None, max_examples=40)
def test_the_cost_is_known_without_packing(shapes):
    packed = pack(draw_images(shapes), draw_keys(len(shapes)))
    assert sum(len(group.pixels) for group in packed.groups) == num_tiles(shapes)
    assert sum(group.count for group in packed.groups) == sum(num_cells(*shape) for shape in shapes)
    found = Counter({group.cell_px: group.count for group in packed.groups})
    expected = Counter()
    for shape in shapes:
        expected[cell_for(*shape)] += num_cells(*shape)
    assert found == expected
    for group in packed.groups:
        assert len(group.keys) == group.count <= len(group.pixels) * cells_per_tile(group.cell_px)


@given(st.lists(sizes, max_size=8))
@settings(deadline=None, max_examples=40)
def test_groups_stand_in_order_of_first_appearance(shapes):
    packed = pack(draw_images(shapes), draw_keys(len(shapes)))
    assert [group.cell_px for group in packed.groups] == list(dict.fromkeys(cell_for(*shape) for shape in shapes))


@given(st.integers(1, 20_000), st.integers(1, 600))
@example(449, 1)
@settings(deadline=None, max_examples=60)
def test_windows_cover_an_image_and_overlap(height, width):
    windows = windows_of(height, width)
    assert len(windows) == num_cells(height, width)
    for side, axis, length in ((height, "top", "height"), (width, "left", "width")):
        spans = sorted({(getattr(w, axis), getattr(w, axis) + getattr(w, length)) for w in windows})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= MIN_OVERLAP


@given(st.lists(st.tuples(st.integers(1, 600), st.integers(1, 600)), max_size=6))
@settings(deadline=None, max_examples=30)
def test_no_two_cells_share_a_key(shapes):
    packed = pack(draw_images(shapes), draw_keys(len(shapes)))
    keys = [tuple(key) for group in packed.groups for key in group.keys.tolist()]
    assert len(set(keys)) == len(keys)


@given(sizes)
@settings(deadline=None, max_examples=60)
def test_an_image_lies_in_the_smallest_cell_that_holds_it(shape):
    longest = max(shape)
    fitting = [cell for cell in CELL_SIZES if cell >= longest]
    assert cell_for(*shape) == (min(fitting) if fitting else TILE_PX)


@given(sizes, st.integers(0, 255), st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_a_blended_pixel_lies_between_those_of_its_windows(shape, level, seed):
    packed = pack(draw_images([shape]), draw_keys(1))
    (group,) = packed.groups
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, group.count, dtype=np.uint8)
    cells = np.broadcast_to(levels[:, None, None, None], (group.count, group.cell_px, group.cell_px, 3))
    (image,), _ = unpack([group.with_cells(cells)], packed.placements)
    assert image.shape == (*shape, 3)
    assert levels.min() <= image.min() <= image.max() <= levels.max()


@given(st.lists(sizes, min_size=1, max_size=5), st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_an_images_residual_is_the_largest_of_its_windows(shapes, seed):
    packed = pack(draw_images(shapes), draw_keys(len(shapes)))
    rng = np.random.default_rng(seed)
    groups = [
        dataclasses.replace(group, residual=rng.random(group.count).astype(np.float32)) for group in packed.groups
    ]
    _, residuals = unpack(groups, packed.placements)
    for shape, place, residual in zip(shapes, packed.placements, residuals, strict=True):
        values = groups[place.group].residual[place.first : place.first + num_cells(*shape)]
        assert residual == max(values.tolist())
