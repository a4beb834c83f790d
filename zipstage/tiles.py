"""Tiles: how pixels travel. 256x256 canvases cut into a regular grid of equal square cells.

Cells come in few sizes, so that a network can be compiled once for each. An image lies in the
smallest cell that holds it, padded by reflection, and is cut out again at the end; above 256 px
it travels as overlapping windows that are blended. What packing wastes: a 32x32 image nothing,
a 33x33 one a third of its cell (40x40), and the last tile of a group whatever stays empty; empty
cells are never computed by a purifier that works on `cells()`.

Axes: t tiles, n cells in use, c pixels a side of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

TILE_PX = 256
CELL_SIZES = (32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of one cell size: the only argument and the only result of a purifier.

    Args:
        pixels: uint8 [t, 256, 256, 3], RGB; what no used cell covers is 0.
        cell_px: Pixels a side of a cell, one of `CELL_SIZES`.
        count: Cells in use, filled row by row, tile after tile.
        keys: uint64 [count, 2], the key of each used cell's noise.
        residual: float32 [count], coming out of a purifier that has such a thing: how far the
            residual box stands out (1 is the image's mean); else None.
    """

    pixels: np.ndarray
    cell_px: int
    count: int
    keys: np.ndarray
    residual: np.ndarray | None = None

    @property
    def per_side(self) -> int:
        return TILE_PX // self.cell_px

    def cells(self) -> np.ndarray:
        """The used cells, uint8 [count, c, c, 3]."""
        grid = self._grid(self.pixels)
        return np.ascontiguousarray(grid.reshape(-1, self.cell_px, self.cell_px, 3)[: self.count])

    def with_cells(self, cells: np.ndarray, residual: np.ndarray | None = None) -> Tiles:
        """The same tiles with other cells, uint8 [count, c, c, 3]; unused ones stay as they are."""
        pixels = self.pixels.copy()
        side, c = self.per_side, self.cell_px
        for i, cell in enumerate(cells):
            tile, place = divmod(i, side * side)
            row, column = divmod(place, side)
            pixels[tile, row * c : (row + 1) * c, column * c : (column + 1) * c] = cell
        return replace(self, pixels=pixels, residual=residual)

    def _grid(self, pixels: np.ndarray) -> np.ndarray:
        side, c = self.per_side, self.cell_px
        used = pixels[:, : side * c, : side * c].reshape(len(pixels), side, c, side, c, 3)
        return used.transpose(0, 1, 3, 2, 4, 5)
