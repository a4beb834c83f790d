"""What the restorer is trained on: random views of photographs, and random damage to them.

Everything is drawn on the device that trains, a whole batch at a time.

Axes: n images of the training set, b images of a batch, s pixels a side of the set's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Generator, Tensor

from zipstage.noise import NUM_SMOOTH, smooth_field
from zipstage.priors.network import SIGMA_DATA
from zipstage.transforms import BlockMean

MIN_DEVIATION = 0.05  # below this an image is flat: raising its contrast further would raise noise alone
BLOCK_SIGMA = 0.25
"""What a network is told of blocks of 2x2: noise as far from the image as their means are. Told of none, it would
pass on what it gets (`network.RestorationUNet`: c_skip is 1 there)."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged batch as the network sees it, and the clean one it should give back."""

    clean: Tensor
    damaged: Tensor
    sigma_white: Tensor
    sigma_smooth: Tensor
    mask: Tensor


def set_contrast(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each image mean 0 and standard deviation .5, over all of its pixels and channels.

    Returns:
        The images [b, 3, h, w], and what undoes it, `x * scale + mean`: mean and scale, [b, 1, 1, 1].
    """
    mean = x.mean((1, 2, 3), keepdim=True)
    scale = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(MIN_DEVIATION) / SIGMA_DATA
    return (x - mean) / scale, mean, scale


def random_views(
    images: Tensor, batch: int, size: int, generator: Generator, *, soft_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Random crops of random images, shrunk or enlarged to `size`, half of them mirrored.

    Enlarged crops are in it because the traffic signs and thumbnails that people classify are often
    enlarged themselves.

    Args:
        images: uint8 [n, 3, s, s].
        batch: Number of views.
        size: Pixels a side of a view.
        generator: Source of randomness, on the device of `images`.
        soft_share: Chance that all views of this batch are enlarged by two to three and a half: soft, as the
            crops are that detectors hand over.

    Returns:
        Views in [-1, 1], [batch, 3, size, size], and the index of each one's image, [batch].
    """
    device, side = images.device, images.shape[-1]
    is_soft = float(torch.rand((), generator=generator, device=device)) < soft_share if soft_share else False
    least, most = (0.28 * size, 0.5 * size) if is_soft else (min(0.6 * size, side), side)
    sides = torch.linspace(least, most, 9).round().to(torch.int64).tolist()
    crop = sides[int(torch.randint(0, len(sides), (), generator=generator, device=device))]
    index = torch.randint(0, len(images), (batch,), generator=generator, device=device)
    corner = torch.randint(0, side - crop + 1, (2, batch), generator=generator, device=device)
    offsets = torch.arange(crop, device=device)
    rows = (corner[0][:, None] + offsets)[:, None, :, None]
    columns = (corner[1][:, None] + offsets)[:, None, None, :]
    channels = torch.arange(3, device=device)[None, :, None, None]
    views = images[index[:, None, None, None], channels, rows, columns].float() / 127.5 - 1
    if crop != size:
        views = F.interpolate(views, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    return torch.where(mirrored[:, None, None, None], views.flip(3), views), index


@dataclass(frozen=True, slots=True)
class Strengths:
    """From where noise levels are drawn.

    Args:
        white: Range of sigma_white, drawn evenly in its logarithm.
        often: Range from which three images in five have it; the others take `white`.
        smooth: Range of sigma_smooth, drawn evenly.
        smooth_share: Share of images that get smooth noise.
        gray_share: Share of images whose white noise is partly the same in all channels, as that of cameras is.
    """

    white: tuple[float, float] = (0.03, 0.7)
    often: tuple[float, float] = (0.03, 0.7)
    smooth: tuple[float, float] = (0.0, 0.6)
    smooth_share: float = 0.5
    gray_share: float = 0.0


WIDE = Strengths()
FOCUSED = Strengths(often=(0.06, 0.25), smooth=(0.05, 0.35), smooth_share=0.6, gray_share=0.25)
"""Most of the training at the noise levels that the settings of `restore` have."""


def random_damage(views: Tensor, generator: Generator, *, patches: bool = True, strengths: Strengths = WIDE) -> Damaged:
    """Damage each view: white noise, for some of them smooth noise, for half something hidden, for some a patch.

    One image in eight gets noise of sigma .03 to 80 and keeps its own contrast: there the network
    is a diffusion denoiser.

    Args:
        views: Images in [-1, 1], [b, 3, s, s].
        generator: Source of randomness, on the device of `views`.
        patches: Whether small opaque patches are pasted onto some.
        strengths: Of the noise.
    """
    batch, _, size, _ = views.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator, device=views.device)

    diffusion = uniform(0, 1) < 1 / 8
    often = uniform(0, 1) < 0.6
    (low, high), (least, most) = strengths.white, strengths.often
    white = torch.where(often, uniform(math.log(least), math.log(most)), uniform(math.log(low), math.log(high)))
    sigma_white = torch.where(diffusion, uniform(math.log(0.03), math.log(80.0)), white).exp()
    smoothed = (uniform(0, 1) < strengths.smooth_share) & ~diffusion
    sigma_smooth = torch.where(smoothed, uniform(*strengths.smooth), torch.zeros_like(sigma_white))
    mask = torch.where(
        ((uniform(0, 1) < 0.5) & ~diffusion)[:, None, None, None],
        random_masks(batch, size, generator, views.device),
        torch.ones((), device=views.device),
    )
    patched = random_patches(views, generator) if patches else views
    seen, mean, scale = set_contrast(patched)  # with the patch in it, as an image comes
    keeps = diffusion[:, None, None, None]
    clean = torch.where(keeps, views, (views - mean) / scale)
    seen = torch.where(keeps, views, seen)
    noise = torch.randn(views.shape, generator=generator, device=views.device)
    if strengths.gray_share:
        gray = torch.randn((batch, 1, size, size), generator=generator, device=views.device)
        partly = (uniform(0, 1) < strengths.gray_share) & ~diffusion
        share = torch.where(partly, uniform(0, 1), torch.zeros_like(sigma_white))[:, None, None, None]
        noise = (1 - share).sqrt() * noise + share.sqrt() * gray  # of unit variance still
    coefficients = torch.randn((batch, 3, NUM_SMOOTH), generator=generator, device=views.device)
    noise = sigma_white[:, None, None, None] * noise
    noise = noise + sigma_smooth[:, None, None, None] * smooth_field(coefficients, size)
    return Damaged(clean, mask * (seen + noise), sigma_white, sigma_smooth, mask)


def block_damage(views: Tensor, scale: int) -> Damaged:
    """Each view's block means, and nothing else: the damage of the control `block_restore`.

    Args:
        views: Images in [-1, 1], [b, 3, s, s].
        scale: Edge of a block in pixels; divides s.
    """
    blocks, mean, deviation = set_contrast(BlockMean(scale).apply(views))
    nothing, visible = views.new_zeros(len(views)), torch.ones_like(views[:, :1])
    return Damaged((views - mean) / deviation, blocks, nothing + BLOCK_SIGMA, nothing, visible)


def random_patches(views: Tensor, generator: Generator) -> Tensor:
    """Paste up to two small opaque patches onto some views, about one in three of them.

    A good denoiser keeps a white square of 3x3 as faithfully as an eye. Trained on patches of random
    place, shape and content, the network learns that what stands on the pixel grid with sharp edges
    doesn't belong there, and its first look finds it. No attack's own pattern is among them.

    Args:
        views: Images in [-1, 1], [b, 3, s, s].
        generator: Source of randomness, on the device of `views`.
    """
    batch, _, size, _ = views.shape
    device = views.device
    axis = torch.arange(size, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    for _ in range(2):
        length = 2 + (uniform(2, batch) * (size * 5 / 32 - 1)).long()
        start = (uniform(2, batch) * (size + 1 - length)).long()
        rows = (axis >= start[0][:, None]) & (axis < (start[0] + length[0])[:, None])
        columns = (axis >= start[1][:, None]) & (axis < (start[1] + length[1])[:, None])
        colours = uniform(2, batch, 3, 1, 1) * 2 - 1
        saturated = (uniform(batch, 1, 1, 1) < 0.5)[None]
        colours = torch.where(saturated, colours.sign(), colours)
        cell = torch.randint(1, 3, (batch, 1), generator=generator, device=device)
        stripes = torch.div(axis, cell, rounding_mode="floor")
        board = ((stripes[:, :, None] + stripes[:, None, :]) % 2 == 1)[:, None]
        kind = uniform(batch, 1, 1, 1)  # half of them of one colour, a quarter a checkerboard, a quarter noise
        content = torch.where((kind < 0.75) & (kind > 0.5) & board, colours[1], colours[0])
        content = torch.where(kind > 0.75, uniform(*views.shape) * 2 - 1, content)
        pasted = (rows[:, :, None] & columns[:, None, :])[:, None] & (uniform(batch, 1, 1, 1) < 0.2)
        views = torch.where(pasted, content, views)
    return views


def random_masks(batch: int, size: int, generator: Generator, device: torch.device) -> Tensor:
    """What hides: one to three rectangles, for one in four a checkerboard; 0 where hidden, [b, 1, s, s]."""

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, device=device)

    axis = torch.arange(size, device=device)
    start = integers(0, size, 2, batch, 3)
    length = integers(2, max(size * 3 // 8, 3), 2, batch, 3)
    length = length * (torch.arange(3, device=device) < integers(1, 4, batch)[:, None])
    inside = (axis >= start[..., None]) & (axis < (start + length)[..., None])
    hidden = (inside[0][..., :, None] & inside[1][..., None, :]).any(1)
    cell = integers(1, 6, batch)[:, None]
    parity = integers(0, 2, batch)[:, None]
    stripes = torch.div(axis, cell, rounding_mode="floor")
    board = (stripes[:, :, None] + stripes[:, None, :] + parity[..., None]) % 2 == 1
    is_board = (integers(0, 4, batch) == 0)[:, None, None]
    return (~torch.where(is_board, board, hidden)).float()[:, None]
