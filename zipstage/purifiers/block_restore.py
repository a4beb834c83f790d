"""`block_restore`: block means, and one call of a restorer that makes an image of them.

A control: super-resolution in one pass, without noise. Costs one network call a cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zipstage.priors.builtin import Restorer
from zipstage.priors.damage import BLOCK_SIGMA, set_contrast
from zipstage.purifiers.batches import micro_batches, to_float, to_uint8
from zipstage.purifiers.settings import BlockRestoreSettings
from zipstage.tiles import Tiles
from zipstage.transforms import BlockMean


class BlockRestorePurifier:
    """Block means through a restorer.

    Args:
        settings: Edge of a block.
        restorer: The network, at its best one that was trained on block means.
        device: `cpu` or `cuda`.
        batch: Images in a network call; 0 takes the device's default for the cell size.
    """

    isolates, calls, number_type = True, 1, "float32"

    def __init__(self, settings: BlockRestoreSettings, restorer: Restorer, device: str, batch: int = 0) -> None:
        self.device, self.batch, self.digest = device, batch, restorer.digest
        self._network, self._blocks = restorer.network, BlockMean(settings.scale)

    def purify(self, tiles: Tiles) -> Tiles:
        purified = tiles.cells()
        for place, cells, _ in micro_batches(tiles, self.device, self.batch):
            purified[place] = to_uint8(self._restored(to_float(cells, self.device)))[: place.stop - place.start]
        return tiles.with_cells(purified)

    @torch.inference_mode()
    def _restored(self, images: Tensor) -> Tensor:
        blocks, mean, scale = set_contrast(self._blocks.apply(images))  # the contrast of what is left of the image
        nothing, visible = blocks.new_zeros(len(blocks)), torch.ones_like(blocks[:, :1])
        inputs = blocks.contiguous(memory_format=torch.channels_last)
        x0: Tensor = self._network(inputs, nothing + BLOCK_SIGMA, nothing, visible)
        return x0 * scale + mean
