"""`zip`: what a trigger needs is projected away, and a diffusion prior restores the rest (Shi et al. 2023).

Costs `calls` network calls a cell: 2 by default, 20 for the paper's Algorithm 2, 1000 for its
Algorithm 1. Trap: with a prior that takes the whole canvas, images on a tile see each other.

Axes: b images of a micro-batch, s pixels a side of a cell, or of a whole tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from zipstage.guidance import Guidance, HardSwitch, SoftSwitch
from zipstage.noise import normal, normal_streams
from zipstage.priors.base import Prior
from zipstage.purifiers.batches import batch_size, micro_batches, to_float, to_uint8
from zipstage.purifiers.settings import ZipSettings
from zipstage.samplers import ddim, ddpm, few, last, leading_timesteps, paper_timesteps
from zipstage.schedule import TRAIN_STEPS, schedule
from zipstage.tiles import TILE_PX, Tiles, cells_per_tile
from zipstage.transforms import transform_for

FILL_KEY = np.zeros((1, 2), dtype=np.uint64)
"""Key of the noise where no cell lies: fixed, since what lies there belongs to nobody."""


class ZipPurifier:
    """ZIP on cells, or on whole tiles where the prior needs them.

    Args:
        settings: Transform, sampler and switch.
        prior: On `device` already.
        device: `cpu` or `cuda`.
        batch: Cells (or tiles) in a network call; 0 takes the device's default.
    """

    number_type = "float32"

    def __init__(self, settings: ZipSettings, prior: Prior, device: str, batch: int = 0) -> None:
        self.settings, self.prior, self.device, self.batch = settings, prior, device, batch
        self.isolates = not prior.canvas
        self.digest = prior.digest
        self.guidance = guidance_of(settings)
        self.timesteps = timesteps_of(settings)
        self.calls = len(self.timesteps)

    def purify(self, tiles: Tiles) -> Tiles:
        return self._purify_cells(tiles) if self.isolates else self._purify_canvases(tiles)

    def _purify_cells(self, tiles: Tiles) -> Tiles:
        purified = tiles.cells()
        for place, cells, keys in micro_batches(tiles, self.device, self.batch):
            noise = normal_streams(keys, (3, tiles.cell_px, tiles.cell_px))
            purified[place] = self._sample(cells, noise)[: place.stop - place.start]
        return tiles.with_cells(purified)

    def _purify_canvases(self, tiles: Tiles) -> Tiles:
        num, size = len(tiles.pixels), batch_size(self.device, TILE_PX, self.batch)
        purified = np.empty_like(tiles.pixels)
        for start in range(0, num, size):
            index = np.minimum(np.arange(start, start + size), num - 1)
            images = self._sample(tiles.pixels[index], canvas_noise(tiles, index))
            purified[start : start + size] = images[: num - start]
        # Only cells are taken over: what the prior paints into unused places is nobody's image.
        return tiles.with_cells(replace(tiles, pixels=purified).cells())

    @torch.inference_mode()
    def _sample(self, images: np.ndarray, noise: Iterator[Tensor]) -> np.ndarray:
        settings, table = self.settings, schedule()
        y = to_float(images, self.device)
        draws = (draw.to(self.device) for draw in noise)
        match settings.sampler:
            case "ddpm":
                steps = ddpm(self.prior, y, self.guidance, draws, schedule=table)
            case "ddim":
                steps = ddim(
                    self.prior, y, self.guidance, draws, schedule=table, timesteps=self.timesteps, eta=settings.eta
                )
            case _:
                start = self.guidance.range_part(y) if settings.start == "projected" else y
                steps = few(
                    self.prior, y, self.guidance, draws,
                    schedule=table, timesteps=self.timesteps, start=start, eta=settings.eta,
                )  # fmt: skip
        return to_uint8(last(steps))


def guidance_of(settings: ZipSettings) -> Guidance:
    """Transform and switch that the settings name."""
    transform = transform_for(settings.transform, scale=settings.scale, share=settings.share)
    hard = settings.switch == "hard"
    return Guidance(transform, HardSwitch(settings.lambda_) if hard else SoftSwitch(settings.power))


def timesteps_of(settings: ZipSettings) -> tuple[int, ...]:
    """The timesteps at which the network is called, falling."""
    match settings.sampler:
        case "few":
            return settings.timesteps
        case "ddpm":
            return paper_timesteps(1)
    leading = settings.spacing == "leading"
    return leading_timesteps(settings.steps) if leading else paper_timesteps(TRAIN_STEPS // settings.steps)


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
