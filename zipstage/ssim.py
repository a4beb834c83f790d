"""Structural similarity of two images at each pixel (Wang et al. 2004): where one was changed, and how much.

Computed in float64: variances are differences of numbers that are nearly equal. Cost: a few products
with a matrix of the image's side, nothing beside a network call.

Axes: b images, h and w pixels.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SIGMA, RADIUS = 1.5, 5  # of the Gaussian window: 11x11, as in the paper
K1, K2 = 0.01, 0.03


def ssim_map(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], data_range: float = 1.0
) -> Float[Tensor, "b c h w"]:
    """SSIM at each pixel of each channel, 1 where they are alike, down to -1; float64.

    The window is Gaussian, variances are those of samples (121/120), edges are mirrored.

    Args:
        x: Images.
        y: Others, of the same shape.
        data_range: The largest value less the smallest that the images could have: 1 for [0, 1].
    """
    x, y = x.double(), y.double()
    rows, columns = (_window(side).to(x.device) for side in x.shape[-2:])

    def local(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    samples = (2 * RADIUS + 1) ** 2
    unbiased = samples / (samples - 1)
    mean_x, mean_y = local(x), local(y)
    var_x = unbiased * (local(x * x) - mean_x**2)
    var_y = unbiased * (local(y * y) - mean_y**2)
    covariance = unbiased * (local(x * y) - mean_x * mean_y)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure: Tensor = (2 * covariance + c2) / (var_x + var_y + c2)
    return luminance * structure


@lru_cache(maxsize=32)
def _window(side: int) -> Tensor:
    """The Gaussian mean along an axis as a matrix [side, side]; edges are mirrored, the edge pixel too."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    places = (np.arange(side)[:, None] + offsets) % (2 * side)
    places = np.where(places < side, places, 2 * side - 1 - places)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights)
    return torch.from_numpy(matrix)
