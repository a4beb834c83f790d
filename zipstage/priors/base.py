"""The door of every diffusion prior: noisy images in, what is under the noise out.

A prior predicts eps, v or x0, whichever it was trained for, and answers with x0 and eps. Both are
needed: eps is x_t less x0 over sqrt(1 - a), and taking the one from the other in float32 costs up
to a factor of 100 in precision, near either end of the schedule.

Axes: b images, h and w pixels. t is the 0-based index into `schedule(1000)`; a is its `alpha_bar`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a prior says about x_t = sqrt(a) x0 + sqrt(1 - a) eps.

    Args:
        x0: The image, about [-1, 1], never clipped, [b, 3, h, w].
        eps: The noise, [b, 3, h, w].
    """

    x0: Tensor
    eps: Tensor


@runtime_checkable  # so that shape checks can run in tests
class Prior(Protocol):
    """What samplers call; one file and one class for each format.

    Attributes:
        digest: SHA-256 in hex of the weights and what decides how they are read; part of the fingerprint.
        canvas: Whether it takes whole 256x256 tiles, so that images on a tile see each other;
            one that takes a cell of any size says False.
    """

    digest: str
    canvas: bool

    def predict(self, x_t: Float[Tensor, "b 3 h w"], t: int) -> Prediction:
        """What is under the noise, in the dtype and on the device of `x_t`.

        Args:
            x_t: Images noised to timestep t, about unit variance.
            t: 0-based index, 0 to 999.
        """
        ...


def from_eps(x_t: Float[Tensor, "b 3 h w"], eps: Float[Tensor, "b 3 h w"], alpha_bar: float) -> Prediction:
    """The prediction of a network that gives eps: x0 = (x_t - sqrt(1-a) eps) / sqrt(a) (ZIP, eq. 9)."""
    return Prediction(x0=(x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5, eps=eps)


def from_x0(x_t: Float[Tensor, "b 3 h w"], x0: Float[Tensor, "b 3 h w"], alpha_bar: float) -> Prediction:
    """The prediction of a network that gives x0: eps = (x_t - sqrt(a) x0) / sqrt(1-a)."""
    return Prediction(x0=x0, eps=(x_t - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5)


def from_v(x_t: Float[Tensor, "b 3 h w"], v: Float[Tensor, "b 3 h w"], alpha_bar: float) -> Prediction:
    """The prediction of a network that gives v = sqrt(a) eps - sqrt(1-a) x0 (Salimans & Ho 2022, appendix D)."""
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    return Prediction(x0=signal * x_t - noise * v, eps=signal * v + noise * x_t)
