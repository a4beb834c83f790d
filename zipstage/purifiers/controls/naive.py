"""`naive`: P y alone, block means with nothing to restore what they took (ZIP, section 5.1).

In integers, so that a mean half way between two levels is rounded the same everywhere: to the even one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zipstage.purifiers import checks
from zipstage.purifiers.controls.cellwise import Cellwise


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveSettings:
    """`naive`: block means and nothing that restores. A control.

    Args:
        scale: Edge of a block in pixels.
    """

    scale: int = checks.scale()

    def __post_init__(self) -> None:
        checks.check(self)


class NaivePurifier(Cellwise[NaiveSettings]):
    """Each block replaced by its mean."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        n, c, s = len(cells), cells.shape[1], self.settings.scale
        sums = cells.reshape(n, c // s, s, c // s, s, 3).sum((2, 4), dtype=np.uint16)
        means: np.ndarray = np.rint(sums / np.float32(s * s)).astype(np.uint8)
        return np.repeat(np.repeat(means, s, 1), s, 2)
