"""`median`: each pixel the median of the 3x3 around it, which drowns small patterns without a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zipstage.purifiers.controls.cellwise import Cellwise


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianSettings:
    """`median`: each pixel the median of 3x3, channel by channel; edges are mirrored. A control."""


class MedianPurifier(Cellwise[MedianSettings]):
    """Medians of 3x3."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return median_3x3(cells)


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
