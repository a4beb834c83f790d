"""How large a network call is, and how many calls some cells take. Loads no torch: it is also asked about them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from zipstage.purifiers.base import Purifier

PIXELS_IN_A_CALL = {"cpu": 32 * 32 * 32, "cuda": 1024 * 32 * 32}
"""Default size of a network call. On a CPU larger ones leave the cache and gain nothing."""


def batch_size(device: str, cell_px: int, batch: int = 0) -> int:
    """Cells in a network call: the setting, or what the device takes well at this cell size."""
    return batch or max(1, PIXELS_IN_A_CALL[device] // cell_px**2)


def num_calls(cells: Mapping[int, float], tiles: float, purifier: Purifier, device: str, batch: int = 0) -> int:
    """Network calls that a purifier makes, each of one micro-batch or, without `isolates`, of one tile.

    Args:
        cells: How many, by their size in px.
        tiles: That they lie in.
        purifier: The method.
        device: Where.
        batch: Cells in a network call; 0 takes the device's default.
    """
    if not purifier.isolates:
        return math.ceil(tiles) * purifier.calls
    batches = (math.ceil(count / batch_size(device, cell_px, batch)) for cell_px, count in cells.items())
    return sum(batches) * purifier.calls
