"""A purifier that fails at a part may fail at one image of it: which, is found by halving.

Used where a shard may be committed without the images that fail (`give_up`); else the part fails
as a whole. Costs some 2 log2(n) calls for one bad image among n. A part that kills its process can't be halved so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pipeline import device_errors
from zipstage.purifiers.base import Purifier
from zipstage.tiles import Tiles, cells_per_tile

HOPELESS = 8
"""Bad cells of a part after which the fault is taken for the purifier's own, and the whole part for failed."""


@dataclass(slots=True)
class Apart:
    """Purifies what can be; `failed` tells why not, by the cell's place in the tiles."""

    purifier: Purifier
    failed: dict[int, Exception] = field(default_factory=dict)

    def purify(self, tiles: Tiles) -> Tiles:
        """The purified tiles; cells that failed stay as they came, and must not be used.

        Raises:
            Exception: What the purifier raised, when its device is sick or memory short, or when too much fails.
        """
        found = self._purified(tiles, 0)
        cells, residuals = [cell for cell, _ in found], [residual for _, residual in found]
        known = [residual for residual in residuals if residual is not None]
        residual = np.array([0.0 if r is None else r for r in residuals], np.float32) if known else None
        return tiles.with_cells(cells, residual)

    def _purified(self, tiles: Tiles, first: int) -> list[tuple[np.ndarray, float | None]]:
        try:
            done = self.purifier.purify(tiles)
        except Exception as error:
            if device_errors.is_sick(error) or device_errors.is_out_of_memory(error):
                raise
            return self._halved(tiles, first, error)
        residuals = [None] * done.count if done.residual is None else done.residual.tolist()
        return list(zip(done.cells(), residuals, strict=True))

    def _halved(self, tiles: Tiles, first: int, error: Exception) -> list[tuple[np.ndarray, float | None]]:
        if tiles.count == 1:
            self.failed[first] = error
            if len(self.failed) == HOPELESS:
                raise error
            return [(tiles.cells()[0], None)]
        half = tiles.count // 2
        before, after = _some(tiles, 0, half), _some(tiles, half, tiles.count)
        return self._purified(before, first) + self._purified(after, first + half)


def _some(tiles: Tiles, start: int, stop: int) -> Tiles:
    """Some cells of the tiles, as tiles."""
    count = stop - start
    pixels = np.zeros((-(-count // cells_per_tile(tiles.cell_px)), *tiles.pixels.shape[1:]), np.uint8)
    blank = replace(tiles, pixels=pixels, count=count, keys=tiles.keys[start:stop], residual=None)
    return blank.with_cells(tiles.cells()[start:stop])
