from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from zipstage.tiles import TILE_PX, Placement, num_tiles, pack, unpack

KEYS = np.arange(20, dtype=np.uint64).reshape(10, 2)


def gradient(height, width):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y % 256, x % 256, (x + y) % 256], -1).astype(np.uint8)


def test_nothing_packs_into_nothing():
    packed = pack([], [])
    assert packed.groups == ()
    assert unpack(packed.groups, packed.placements) == ([], [])


def test_padding_mirrors_the_image():
    image = gradient(3, 30)
    (tiles,) = pack([image], KEYS[:1]).groups
    cell = tiles.cells()[0]
    assert cell.shape == (32, 32, 3)
    assert np.array_equal(cell[3, :30], image[1])  # rows 0 1 2 1 0 1 2 ...
    assert np.array_equal(cell[4, :30], image[0])
    assert np.array_equal(cell[:3, 30], image[:, 28])


def test_a_single_pixel_fills_its_cell():
    (tiles,) = pack([np.array([[[7, 8, 9]]], np.uint8)], KEYS[:1]).groups
    assert (tiles.cells() == [7, 8, 9]).all()


def test_what_no_cell_uses_stays_black():
    (tiles,) = pack([np.full((96, 96, 3), 200, np.uint8)] * 3, KEYS[:3]).groups
    assert tiles.pixels.shape == (1, TILE_PX, TILE_PX, 3)
    assert (tiles.pixels != 0).sum() == 3 * 96 * 96 * 3


def test_an_image_of_one_cell_keeps_its_key():
    (tiles,) = pack([gradient(32, 32), gradient(20, 10)], KEYS[:2]).groups
    assert np.array_equal(tiles.keys, KEYS[:2])


def test_window_keys_depend_on_the_images_key_alone():
    first = pack([gradient(256, 600)], KEYS[:1]).groups[0].keys
    beside_others = pack([gradient(32, 32), gradient(256, 600)], KEYS[[1, 0]]).groups[1].keys
    of_another = pack([gradient(256, 600)], KEYS[2:3]).groups[0].keys
    assert np.array_equal(first, beside_others)
    assert not (first == of_another).all(1).any()


def test_windows_are_blended_without_a_seam():
    # Two windows of unlike brightness: the step between them is spread over their overlap.
    packed = pack([np.zeros((10, 448, 3), np.uint8)], KEYS[:1])
    (tiles,) = packed.groups
    cells = np.zeros((2, 256, 256, 3), np.uint8)
    cells[1] = 100
    (image,), _ = unpack([tiles.with_cells(cells)], packed.placements)
    line = image[0, :, 0].astype(int)
    assert line[0] == 0
    assert line[-1] == 100
    assert (np.diff(line) >= 0).all()
    assert np.diff(line).max() <= 4


def test_placements_are_plain_integers():
    placement = pack([gradient(40, 300), gradient(5, 5)], KEYS[:2]).placements[1]
    facts = json.loads(json.dumps(dataclasses.asdict(placement)))
    assert Placement(**facts) == placement


def test_tiles_are_counted_by_the_cells_they_share():
    assert num_tiles([(32, 32)] * 64) == 1
    assert num_tiles([(32, 32)] * 65) == 2
    assert num_tiles([(32, 32), (33, 33)]) == 2
    assert num_tiles([(500, 500)]) == 9
    assert num_tiles([]) == 0


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"image 0: expected uint8 \[h, w, 3\], found"):
        pack([image], KEYS[:1])


def test_a_missing_key_is_refused():
    with pytest.raises(ValueError, match="a key for each of 2 images, found 1"):
        pack([gradient(4, 4)] * 2, KEYS[:1])
