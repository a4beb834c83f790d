"""Micro-batches of a fixed size: PyTorch promises no equal bytes between batch sizes, so there is one.

The last batch is filled up by repeating its last cell; what comes of the filling is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zipstage.purifiers.calls import batch_size
from zipstage.tiles import Tiles


def micro_batches(tiles: Tiles, device: str, batch: int = 0) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The used cells in batches of one size.

    Yields:
        The batch's place among the used cells, its cells uint8 [b, c, c, 3], their keys [b, 2].
    """
    cells, size = tiles.cells(), batch_size(device, tiles.cell_px, batch)
    for start in range(0, tiles.count, size):
        index = np.minimum(np.arange(start, start + size), tiles.count - 1)
        yield slice(start, min(start + size, tiles.count)), cells[index], tiles.keys[index]


def to_float(cells: np.ndarray, device: str) -> Tensor:
    """uint8 [b, c, c, 3] as float32 [b, 3, c, c] in [-1, 1]."""
    return torch.from_numpy(cells).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """[b, 3, c, c] in [-1, 1] as uint8 [b, c, c, 3], rounded to the nearest and clipped."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()
