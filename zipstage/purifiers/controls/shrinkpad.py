"""`shrinkpad`: made smaller and put at a random place on black (Li et al. 2021).

A trigger that is tied to its place and size loses both. Trap: an image that is smaller than its cell
lies in the cell's upper left corner, mirrored beyond; it moves within the cell, not within itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from zipstage.keys import stream
from zipstage.purifiers.checks import check, number
from zipstage.purifiers.controls.cellwise import Cellwise


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkPadSettings:
    """`shrinkpad`: smaller, bilinearly, then at a random place on black, each image at its own. A control.

    Args:
        share: Of each side, what is taken away: 1/8 is 4 px of 32, as published.
    """

    share: float = number(1 / 8, 0, 0.5)

    def __post_init__(self) -> None:
        check(self)


class ShrinkPadPurifier(Cellwise[ShrinkPadSettings]):
    """Smaller, and elsewhere: the place comes from the image's key."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        side = cells.shape[1]
        room = round(self.settings.share * side)
        small = side - room
        changed = np.zeros_like(cells)
        for cell, key, out in zip(cells, keys, changed, strict=True):
            top, left = stream(key).integers(0, room, 2, endpoint=True)
            image = Image.fromarray(cell).resize((small, small), Image.Resampling.BILINEAR)
            out[top : top + small, left : left + small] = image
        return changed
