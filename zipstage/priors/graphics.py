"""Drawn objects on photographs, for training: flat strong colours, sharp rims, strokes, poor light.

A spotter that has seen photographs alone takes the rims of a traffic sign for pasted. Signs, logos and
labels are what photographs hold little of. Shapes, colours and light are drawn at random; no data set's
classes are among them.

Axes: b images of a batch, s pixels a side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Generator, Tensor

SIDES = (3, 4, 5, 8, 64)  # of the polygons; 64 is a disc
STROKES = 4


def with_graphics(views: Tensor, share: float, generator: Generator) -> Tensor:
    """Draw a ringed object with strokes on some views, then blur and dim those.

    Args:
        views: Images in [-1, 1], [b, 3, s, s].
        share: Of the views that get an object.
        generator: Source of randomness, on the device of `views`.
    """
    batch, _, size, _ = views.shape
    device = views.device

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    def colours() -> Tensor:
        """Some at the corners of the colour cube, some gray, the others anywhere in it, [b, 3, 1, 1]."""
        anywhere = uniform(batch, 3, 1, 1, low=-1, high=1)
        kind = uniform(batch, 1, 1, 1)
        saturated = torch.where(kind < 0.4, 0.9 * anywhere.sign(), anywhere)
        return torch.where(kind > 0.75, anywhere[:, :1].sign() * anywhere[:, 1:2].abs().sqrt(), saturated)

    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    centre = uniform(2, batch, 1, 1, low=-0.3, high=0.3)
    rows, columns = axis[None, :, None] - centre[0], axis[None, None, :] - centre[1]
    turn = uniform(batch, 1, 1, low=-math.pi, high=math.pi)
    edge = 2.0 / size  # one pixel

    drawn = views
    radius = uniform(batch, 1, 1, low=0.45, high=1.1)
    stretch = uniform(batch, 1, 1, low=0.8, high=1.25)
    for _ in range(3):  # a body, and up to two rings within
        inside = _polygon(rows * stretch, columns / stretch, turn, radius, _sides(batch, generator, device))
        alpha = torch.sigmoid(inside / (0.4 * edge))[:, None]
        drawn = torch.lerp(drawn, colours(), alpha * (uniform(batch, 1, 1, 1) < 0.85))
        radius = radius * uniform(batch, 1, 1, low=0.5, high=0.9)
    ink = colours()
    start = uniform(2, batch, 1, 1, low=-0.6, high=0.6) * radius
    for _ in range(STROKES):
        end = uniform(2, batch, 1, 1, low=-0.8, high=0.8) * radius
        thickness = edge * uniform(batch, 1, 1, low=0.5, high=2.0)
        inside = thickness - _to_segment(rows, columns, start, end)
        drawn = torch.lerp(drawn, ink, torch.sigmoid(inside / (0.4 * edge))[:, None])
        start = torch.where(uniform(1, batch, 1, 1) < 0.6, end, uniform(2, batch, 1, 1, low=-0.6, high=0.6) * radius)

    drawn = torch.where(uniform(batch, 1, 1, 1) < 0.5, _blurred(drawn), drawn)
    light = uniform(batch, 1, 1, 1, low=math.log(0.15), high=math.log(1.3)).exp()
    dim = ((drawn + 1) * light + uniform(batch, 1, 1, 1, high=0.5) * uniform(batch, 1, 1, 1)).clamp(0, 2) - 1
    return torch.where(uniform(batch, 1, 1, 1) < share, dim, views)


def _sides(batch: int, generator: Generator, device: torch.device) -> Tensor:
    kinds = torch.tensor(SIDES, device=device, dtype=torch.float32)
    index: Tensor = torch.randint(0, len(SIDES), (batch, 1, 1), generator=generator, device=device)
    return kinds[index]


def _polygon(rows: Tensor, columns: Tensor, turn: Tensor, radius: Tensor, sides: Tensor) -> Tensor:
    """How far within a regular polygon each pixel lies, negative outside, [b, s, s]."""
    sector = 2 * math.pi / sides
    angle = torch.atan2(rows, columns) + turn
    within = torch.remainder(angle, sector) - sector / 2
    return radius * torch.cos(sector / 2) - torch.hypot(rows, columns) * torch.cos(within)


def _to_segment(rows: Tensor, columns: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Distance of each pixel to a line segment, [b, s, s]."""
    along = end - start
    length = along.square().sum(0).clamp_min(1e-6)
    share = (((rows - start[0]) * along[0] + (columns - start[1]) * along[1]) / length).clamp(0, 1)
    return torch.hypot(rows - start[0] - share * along[0], columns - start[1] - share * along[1])


def _blurred(images: Tensor) -> Tensor:
    binomial = images.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (binomial[:, None] * binomial).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
