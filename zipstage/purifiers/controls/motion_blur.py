"""`motion_blur`: a blur along the rows, which keeps more of an image than block means do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zipstage.purifiers.checks import out_of_range
from zipstage.purifiers.controls.cellwise import Cellwise

LENGTHS = range(1, 32, 2)  # odd, so that nothing moves; below the smallest cell, so that one mirror is enough


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionBlurSettings:
    """`motion_blur`: each pixel the mean of those beside it in its row; edges are mirrored. A control.

    Args:
        length: Pixels that the mean is taken of: 1, 3, 5, ... 31.
    """

    length: int = 3

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise out_of_range("length", f"an odd number from 1 to {LENGTHS[-1]}", self.length)


class MotionBlurPurifier(Cellwise[MotionBlurSettings]):
    """The mean of a few pixels side by side."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        length, side = self.settings.length, cells.shape[2]
        padded = np.pad(cells, ((0, 0), (0, 0), (length // 2, length // 2), (0, 0)), mode="reflect")
        sums = np.zeros(cells.shape, np.uint16)
        for start in range(length):
            sums += padded[:, :, start : start + side]
        return np.rint(sums / np.float32(length)).astype(np.uint8)
