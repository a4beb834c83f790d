"""Noise that belongs to an image: counter-based, keyed by a seed for each cell.

The same image gets the same noise wherever it stands, in any batch, on any worker. Philox
(Salmon et al. 2011) is a counter-based generator: the key alone names the stream. The key is
HMAC(seed, sha256 of the received image bytes), so who doesn't know the seed can't predict it.

`smooth_basis` spans the low-frequency noise of `restore`; white noise leaves low-frequency
triggers as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Tensor

from zipstage.keys import image_key, stream

__all__ = ["image_key", "normal", "normal_streams", "smooth_basis", "smooth_field", "stream"]

GRIDS = (8, 4, 2, 1)
"""Cells a side of the random grids that make up smooth noise, in equal parts of variance."""

NUM_SMOOTH = sum(g * g for g in GRIDS)
"""Random numbers that one channel of smooth noise takes: 85."""


def normal_streams(keys: np.ndarray, shape: tuple[int, ...], *, first_draw: int = 0) -> Iterator[Tensor]:
    """Standard normal noise, one tensor [n, *shape] after the other, without end.

    Args:
        keys: One key an image, uint64 [n, 2].
        shape: Shape of one image's noise.
        first_draw: Number of the first draw.
    """
    draw = first_draw
    while True:
        yield normal(keys, shape, draw)
        draw += 1


def normal(keys: np.ndarray, shape: tuple[int, ...], draw: int = 0) -> Tensor:
    """Standard normal noise, float32 [n, *shape]: the `draw`-th of each key, uint64 [n, 2]."""
    noise = np.empty((len(keys), *shape), dtype=np.float32)
    for key, out in zip(keys, noise, strict=True):
        stream(key, draw).standard_normal(dtype=np.float32, out=out)
    return torch.from_numpy(noise)


@lru_cache(maxsize=16)
def smooth_basis(size: int) -> Tensor:
    """The fields that smooth noise is a random sum of, [85, size, size].

    With independent standard normal coefficients the sum has unit variance at each pixel, in
    equal parts from grids of 8, 4, 2 and 1 cells a side, enlarged bicubically.
    """
    fields = []
    for cells in GRIDS:
        line = F.interpolate(torch.eye(cells)[:, None, None, :], (1, size), mode="bicubic", align_corners=False)
        line = line[:, 0, 0, :]
        line = line / line.square().sum(0, keepdim=True).sqrt()
        fields.append(torch.einsum("ih,jw->ijhw", line, line).reshape(cells * cells, size, size))
    return torch.cat(fields) / math.sqrt(len(GRIDS))


def smooth_field(coefficients: Tensor, size: int) -> Tensor:
    """Smooth noise [n, c, size, size] from standard normal coefficients [n, c, 85]."""
    basis = smooth_basis(size).to(coefficients)
    return torch.einsum("nck,khw->nchw", coefficients, basis)
