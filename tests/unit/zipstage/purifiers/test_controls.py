from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from zipstage.errors import SettingsError
from zipstage.purifiers import build
from zipstage.purifiers.settings import settings_for
from zipstage.tiles import pack

KEYS = np.arange(10, dtype=np.uint64).reshape(5, 2)


@pytest.fixture
def tiles():
    rng = np.random.default_rng(0)
    return pack([rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(5)], KEYS).groups[0]


def test_none_changes_no_byte(tiles):
    assert np.array_equal(build(settings_for("none")).purify(tiles).pixels, tiles.pixels)


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_naive_leaves_block_means(tiles, scale):
    purified = build(settings_for("naive", "default", {"scale": scale})).purify(tiles).cells()
    blocks = tiles.cells().astype(float).reshape(5, 40 // scale, scale, 40 // scale, scale, 3).mean((2, 4))
    expected = blocks.repeat(scale, 1).repeat(scale, 2)
    assert np.abs(purified - expected).max() <= 0.5 + 1e-3


def test_median_is_what_scipy_says(tiles):
    purified = build(settings_for("median")).purify(tiles).cells()
    expected = scipy.ndimage.median_filter(tiles.cells(), size=(1, 3, 3, 1), mode="mirror")
    assert np.array_equal(purified, expected)


@pytest.mark.parametrize("method", ["none", "naive", "median"])
def test_a_control_calls_no_network_and_sees_one_image_alone(tiles, method):
    purifier = build(settings_for(method))
    assert purifier.calls == 0
    assert purifier.isolates
    assert purifier.digest == ""
    purified = purifier.purify(tiles)
    assert (purified.cell_px, purified.count) == (tiles.cell_px, tiles.count)


def test_naive_refuses_a_scale_that_does_not_divide_cells():
    with pytest.raises(SettingsError, match=r"purifier.scale: expected one of \(1, 2, 4, 8\)"):
        settings_for("naive", "default", {"scale": 3})
