"""`bicubic`: made smaller and larger again. What a low-pass alone does, without a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from zipstage.purifiers import checks
from zipstage.purifiers.controls.cellwise import Cellwise


@dataclass(frozen=True, slots=True, kw_only=True)
class BicubicSettings:
    """`bicubic`: down and up again by a factor, bicubically, with antialiasing on the way down. A control.

    Args:
        scale: The factor.
    """

    scale: int = checks.scale()

    def __post_init__(self) -> None:
        checks.check(self)


class BicubicPurifier(Cellwise[BicubicSettings]):
    """Down and up again, in 8 bits between the two."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return np.stack([self._down_and_up(cell) for cell in cells])

    def _down_and_up(self, cell: np.ndarray) -> np.ndarray:
        side = len(cell)
        small = (side // self.settings.scale, side // self.settings.scale)
        image = Image.fromarray(cell).resize(small, Image.Resampling.BICUBIC)
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
