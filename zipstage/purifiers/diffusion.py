"""What the methods with a diffusion prior share: cells in micro-batches, or whole tiles where the prior needs them.

Trap: with a prior that takes the whole canvas, images on a tile see each other.

Axes: b images of a micro-batch, s pixels a side of a cell, or of a whole tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from zipstage.noise import normal, normal_streams
from zipstage.priors.base import Prior
from zipstage.purifiers.batches import micro_batches, to_float, to_uint8
from zipstage.purifiers.calls import batch_size
from zipstage.tiles import TILE_PX, Tiles, cells_per_tile

FILL_KEY = np.zeros((1, 2), dtype=np.uint64)
"""Key of the noise where no cell lies: fixed, since what lies there belongs to nobody."""


class DiffusionPurifier(ABC):
    """Cells, or whole tiles where the prior needs them, through a sampler.

    Args:
        prior: On `device` already.
        device: `cpu` or `cuda`.
        batch: Cells (or tiles) in a network call; 0 takes the device's default.
    """

    number_type = "float32"
    calls: int

    def __init__(self, prior: Prior, device: str, batch: int = 0) -> None:
        self.prior, self.device, self.batch = prior, device, batch
        self.isolates = not prior.canvas
        self.digest = prior.digest

    @abstractmethod
    def sample(self, y: Tensor, noise: Iterator[Tensor]) -> Tensor:
        """Purify a micro-batch.

        Args:
            y: Images as received, in [-1, 1], [b, 3, s, s].
            noise: Standard normal tensors of the shape of y, without end.

        Returns:
            The purified images, about [-1, 1].
        """

    def purify(self, tiles: Tiles) -> Tiles:
        return self._purify_cells(tiles) if self.isolates else self._purify_canvases(tiles)

    def _purify_cells(self, tiles: Tiles) -> Tiles:
        purified = tiles.cells()
        for place, cells, keys in micro_batches(tiles, self.device, self.batch):
            noise = normal_streams(keys, (3, tiles.cell_px, tiles.cell_px))
            purified[place] = self._sampled(cells, noise)[: place.stop - place.start]
        return tiles.with_cells(purified)

    def _purify_canvases(self, tiles: Tiles) -> Tiles:
        num, size = len(tiles.pixels), batch_size(self.device, TILE_PX, self.batch)
        purified = np.empty_like(tiles.pixels)
        for start in range(0, num, size):
            index = np.minimum(np.arange(start, start + size), num - 1)
            images = self._sampled(tiles.pixels[index], canvas_noise(tiles, index))
            purified[start : start + size] = images[: num - start]
        # Only cells are taken over: what the prior paints into unused places is nobody's image.
        return tiles.with_cells(replace(tiles, pixels=purified).cells())

    @torch.inference_mode()
    def _sampled(self, images: np.ndarray, noise: Iterator[Tensor]) -> np.ndarray:
        draws = (draw.to(self.device) for draw in noise)
        return to_uint8(self.sample(to_float(images, self.device), draws))


def canvas_noise(tiles: Tiles, index: np.ndarray) -> Iterator[Tensor]:
    """Draws for whole tiles, [b, 3, 256, 256], in which each cell's noise is that of its own key.

    So a cell's noise doesn't depend on where in which tile it lies.

    Args:
        tiles: Whose cells' keys are taken.
        index: Which of the tiles, int [b].
    """
    c, side, per_tile = tiles.cell_px, tiles.per_side, cells_per_tile(tiles.cell_px)
    draw = 0
    while True:
        canvas = normal(FILL_KEY, (3, TILE_PX, TILE_PX), draw).repeat(len(index), 1, 1, 1)
        for tile, number in zip(canvas, index, strict=True):
            keys = tiles.keys[number * per_tile : (number + 1) * per_tile]
            for place, cell in enumerate(normal(keys, (3, c, c), draw)):
                row, column = divmod(place, side)
                tile[:, row * c : (row + 1) * c, column * c : (column + 1) * c] = cell
        yield canvas
        draw += 1
