"""The controls, on the same door: a purifier that can't beat them has no place.

None of them calls a network; each takes a cell alone.
"""

from __future__ import annotations

import numpy as np

from zipstage.purifiers.batches import to_float, to_uint8
from zipstage.purifiers.settings import NaiveSettings
from zipstage.tiles import Tiles
from zipstage.transforms import BlockMean


class NonePurifier:
    """The images as they came."""

    isolates, calls, digest, number_type = True, 0, "", "uint8"

    def purify(self, tiles: Tiles) -> Tiles:
        return tiles


class NaivePurifier:
    """P y alone: block means, with nothing to restore what they took."""

    isolates, calls, digest, number_type = True, 0, "", "float32"

    def __init__(self, settings: NaiveSettings) -> None:
        self._projection = BlockMean(settings.scale)

    def purify(self, tiles: Tiles) -> Tiles:
        return tiles.with_cells(to_uint8(self._projection.apply(to_float(tiles.cells(), "cpu"))))


class MedianPurifier:
    """Each pixel the median of the 3x3 around it, channel by channel; edges are mirrored."""

    isolates, calls, digest, number_type = True, 0, "", "uint8"

    def purify(self, tiles: Tiles) -> Tiles:
        return tiles.with_cells(median_3x3(tiles.cells()))


def median_3x3(cells: np.ndarray) -> np.ndarray:
    """Medians of uint8 [n, h, w, 3], by whole-array minima and maxima.

    With each column of three sorted, the median of nine is that of: the largest of the lows, the
    median of the middles, the smallest of the highs (Smith 1996).
    """
    x = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    low, middle, high = _sorted(x[:, :-2], x[:, 1:-1], x[:, 2:])
    lows = np.maximum(np.maximum(low[:, :, :-2], low[:, :, 1:-1]), low[:, :, 2:])
    middles = _sorted(middle[:, :, :-2], middle[:, :, 1:-1], middle[:, :, 2:])[1]
    highs = np.minimum(np.minimum(high[:, :, :-2], high[:, :, 1:-1]), high[:, :, 2:])
    return _sorted(lows, middles, highs)[1]


def _sorted(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)
