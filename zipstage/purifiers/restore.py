"""`restore`: damage an image lightly on purpose, and have it repaired by a network that is told how.

    damaged = mask * (y + sigma_white * white + sigma_smooth * smooth)
    x0 = R(damaged, white_told, smooth_told, mask)

White noise drowns what is small and sharp, and suspicious places are hidden altogether. What is large
and soft is taken out by telling the network of more smooth noise than there is: none is added by
default. Suspicious places are found in two ways: a spotter sees what was pasted (a restorer keeps a
solid square as it is), and a first look, a restoration of its own that can be had for a call more,
shows what nothing around it explains. The mean of K draws is sharpened a little at the end. Each
image alone: no statistic of a batch.

Costs K network calls an image (K draws), one more with the first look, and the spotter's sixth of one.
Axes: b images of a micro-batch, c pixels a side of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Tensor

from zipstage.errors import PriorError
from zipstage.noise import NUM_SMOOTH, normal, smooth_field
from zipstage.priors.builtin import Restorer
from zipstage.priors.damage import set_contrast
from zipstage.priors.network import fast_bf16
from zipstage.priors.spotter import pasted_places
from zipstage.purifiers.batches import micro_batches, to_float, to_uint8
from zipstage.purifiers.settings import RestoreSettings
from zipstage.tiles import Tiles

REFERENCE_PX = 32  # the noise levels of the settings are meant for cells of this side
FIRST_WHITE, SECOND_WHITE, SECOND_SMOOTH = 0, 1, 2  # draws of an image's noise: first look, then pairs


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a micro-batch.

    Args:
        x0: The restored images in [-1, 1], not clipped, [b, 3, c, c].
        damaged: The last draw's damaged images, in the same range, [b, 3, c, c].
        mask: 1 where visible, 0 where hidden, [b, 1, c, c].
        residual: How far the box that changed most stands out: its mean change over the image's, [b].
    """

    x0: Tensor
    damaged: Tensor
    mask: Tensor
    residual: Tensor


class RestorePurifier:
    """The default method.

    Args:
        settings: Strengths and steps.
        restorer: The network R.
        device: `cpu` or `cuda`.
        batch: Images in a network call; 0 takes the device's default for the cell size.

    Raises:
        PriorError: The settings want a spotter, and the restorer has none.
    """

    isolates = True

    def __init__(self, settings: RestoreSettings, restorer: Restorer, device: str, batch: int = 0) -> None:
        self.settings, self.device, self.batch = settings, device, batch
        self.digest = restorer.digest
        self.calls = settings.draws + settings.first_look
        self._network = restorer.network
        self._spotter = restorer.spotter if settings.spot_above < 1 else None
        if settings.spot_above < 1 and restorer.spotter is None:
            raise PriorError(
                "restorer: expected a spotter in its file, found none. Train it with this version, or set "
                "purifier.spot_above to 1 to look without one."
            )
        self._bf16 = fast_bf16(torch.device(device))

    @property
    def number_type(self) -> str:
        return "bfloat16" if self._bf16 else "float32"

    def purify(self, tiles: Tiles) -> Tiles:
        restored = [part for _, part in self.restored(tiles)]
        cells = np.concatenate([to_uint8(part.x0) for part in restored])[: tiles.count]
        residual = torch.cat([part.residual for part in restored]).cpu().numpy()[: tiles.count]
        return tiles.with_cells(cells, residual)

    def damaged(self, tiles: Tiles) -> np.ndarray:
        """The cells as the network got them, uint8 [count, c, c, 3]: for people to look at."""
        return np.concatenate([to_uint8(part.damaged) for _, part in self.restored(tiles)])[: tiles.count]

    def restored(self, tiles: Tiles) -> Iterator[tuple[slice, Restored]]:
        """Each micro-batch's place among the cells, and what became of it; the last one is filled up."""
        for place, cells, keys in micro_batches(tiles, self.device, self.batch):
            with torch.inference_mode():
                restored = self.restore(to_float(cells, self.device), keys)
            yield place, restored

    def restore(self, images: Tensor, keys: np.ndarray) -> Restored:
        """Restore a micro-batch; differentiable, for those who study how it can be attacked.

        Args:
            images: In [-1, 1], [b, 3, c, c].
            keys: Of their noise, uint64 [b, 2].
        """
        settings, size = self.settings, images.shape[-1]
        growth = self._growth(size)
        y, mean, scale = set_contrast(images)
        own = self._own_variance(y)
        mask = self._visible(y, keys, own)

        sigma_white = settings.sigma_white * growth
        white_told = (sigma_white**2 + own).sqrt()
        smooth_growth = growth if size <= settings.smooth_up_to else 0.0
        sigma_smooth = settings.sigma_smooth * smooth_growth
        smooth_told = math.hypot(settings.sigma_smooth, settings.assumed_smooth) * smooth_growth
        total = torch.zeros_like(y)
        for draw in range(settings.draws):
            noise = sigma_white * self._white(keys, SECOND_WHITE + 2 * draw, size)
            if sigma_smooth:
                noise += sigma_smooth * self._smooth(keys, SECOND_SMOOTH + 2 * draw, size)
            damaged = mask * (y + noise)
            total += self._network_at(damaged, white_told, torch.full_like(own, smooth_told), mask)
        x0 = sharpened(total / settings.draws, settings.sharpen)
        # What was hidden has been painted anew: where that was a trigger, nothing else changed as much.
        residual = largest_box(y - x0, settings.box).ratio
        return Restored(x0 * scale + mean, damaged * scale + mean, mask, residual)

    def hidden(self, tiles: Tiles) -> np.ndarray:
        """Which pixels of each cell are hidden from the network, bool [count, c, c]: for those who study it."""
        masks = []
        for _, cells, keys in micro_batches(tiles, self.device, self.batch):
            with torch.inference_mode():
                y, _, _ = set_contrast(to_float(cells, self.device))
                masks.append(self._visible(y, keys, self._own_variance(y))[:, 0] == 0)
        hidden: np.ndarray = torch.cat(masks).cpu().numpy()[: tiles.count]
        return hidden

    def _growth(self, size: int) -> float:
        return float((size / REFERENCE_PX) ** self.settings.growth)

    def _own_variance(self, y: Tensor) -> Tensor:
        """Variance of the noise that images carry, as far as it isn't forgiven, [b]."""
        return ((self.settings.own_factor * carried_noise(y)) ** 2 - self.settings.own_floor**2).clamp_min(0)

    def _visible(self, y: Tensor, keys: np.ndarray, own: Tensor) -> Tensor:
        """1 where the network may look, 0 where something was found that is to be hidden, [b, 1, c, c]."""
        mask = torch.ones_like(y[:, :1])
        if self.settings.first_look:
            size = y.shape[-1]
            sigma = self.settings.first_sigma * self._growth(size)
            noisy = y + sigma * self._white(keys, FIRST_WHITE, size)
            seen = self._network_at(noisy, (sigma**2 + own).sqrt(), torch.zeros_like(own), mask)
            mask = hide(y - seen, self.settings.box, self.settings.hide_above)
        return mask * self._not_pasted(y)

    def _network_at(self, damaged: Tensor, sigma_told: Tensor, sigma_smooth: Tensor, mask: Tensor) -> Tensor:
        inputs = damaged.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=self._bf16):
            x0: Tensor = self._network(inputs, sigma_told, sigma_smooth, mask)
        return x0.float()

    def _not_pasted(self, y: Tensor) -> Tensor:
        if self._spotter is None:
            return torch.ones_like(y[:, :1])
        with torch.autocast(self.device, torch.bfloat16, enabled=self._bf16):
            logits = self._spotter(y.contiguous(memory_format=torch.channels_last))
        return (~pasted_places(logits, self.settings.spot_above)).to(y.dtype)

    def _white(self, keys: np.ndarray, draw: int, size: int) -> Tensor:
        return normal(keys, (3, size, size), draw).to(self.device)

    def _smooth(self, keys: np.ndarray, draw: int, size: int) -> Tensor:
        return smooth_field(normal(keys, (3, NUM_SMOOTH), draw).to(self.device), size)


def carried_noise(y: Tensor) -> Tensor:
    """The white noise that images already carry, as a standard deviation, [b].

    From the diagonal band of one Haar step, where natural images have little: median of |.| / .6745
    (Donoho & Johnstone 1994).

    Args:
        y: Images [b, 3, c, c] with even c.
    """
    band = (y[..., ::2, ::2] - y[..., ::2, 1::2] - y[..., 1::2, ::2] + y[..., 1::2, 1::2]) / 2
    return band.abs().flatten(1).median(1).values / 0.6745


def sharpened(x0: Tensor, amount: float) -> Tensor:
    """Unsharp masking with a 3x3 binomial kernel.

    What a restorer gives is a mean over what could have been there, and so smoother than images are. A
    victim that was taught a warp or a resampling takes smoothness itself for its trigger.

    Args:
        x0: Images [b, 3, c, c].
        amount: How many times what the kernel smooths away is added; 0 changes nothing.
    """
    binomial = x0.new_tensor([1, 2, 1]) / 4
    kernel = (binomial[:, None] * binomial).expand(3, 1, 3, 3)
    smooth = F.conv2d(F.pad(x0, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    return x0 + amount * (x0 - smooth)


class LargestBox(NamedTuple):
    """The box of an image that changed most.

    Args:
        ratio: Its mean change over the image's, [b].
        top, left: Of its upper left pixel, [b].
        edge: In pixels.
    """

    ratio: Tensor
    top: Tensor
    left: Tensor
    edge: int


def largest_box(change: Tensor, box: float) -> LargestBox:
    """Where images changed most, and how far that stands out.

    Args:
        change: One image less another, [b, 3, c, c].
        box: Edge of the box as a share of c.
    """
    size = change.shape[-1]
    edge = max(1, round(box * size))
    amount = change.abs().mean(1, keepdim=True)
    boxes = F.avg_pool2d(amount, edge, stride=1)
    largest, place = boxes.flatten(1).max(1)
    ratio = largest / amount.mean((1, 2, 3)).clamp_min(1e-6)
    return LargestBox(ratio, place // boxes.shape[-1], place % boxes.shape[-1], edge)


def hide(residual: Tensor, box: float, above: float) -> Tensor:
    """Hide the box that the restoration changed most, where it stands out.

    An opaque trigger is what a denoiser can't explain by its surroundings, so there its residual is
    largest.

    Args:
        residual: Received less restored images, [b, 3, c, c].
        box: Edge of the box as a share of c.
        above: The box is hidden when its mean is over this many times the image's.

    Returns:
        The mask, [b, 1, c, c], 0 where hidden.
    """
    ratio, top, left, edge = largest_box(residual, box)
    axis = torch.arange(residual.shape[-1], device=residual.device)
    rows = (axis >= top[:, None]) & (axis < top[:, None] + edge)
    columns = (axis >= left[:, None]) & (axis < left[:, None] + edge)
    hidden = rows[:, :, None] & columns[:, None, :] & (ratio > above)[:, None, None]
    return (~hidden).to(residual.dtype)[:, None]
