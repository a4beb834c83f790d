"""What destroys a trigger: A^+A as orthogonal projections, and weighted sums of them (ZIP, stage 1).

A projection P splits an image into its range part P x, which guidance fixes, and its null-space
part x - P x, which the prior restores: P P x = P x and <P x, y> = <x, P y>. A weighted sum of
projections has neither law: it only shrinks what its parts disagree about, and a network can
undo that. Cost: nothing beside a network call.

Axes: b images, h and w pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]


@runtime_checkable  # so that shape checks can run in tests
class Transform(Protocol):
    """A linear map of images to images of the same size; its `repr` names bands and weights."""

    @property
    def is_projection(self) -> bool:
        """Whether it is an orthogonal projection."""
        ...

    def apply(self, x: Images) -> Images:
        """W x, in the dtype and on the device of x."""
        ...


class Projection(ABC):
    """Base of the orthogonal projections; `acts_on` says what they mix."""

    acts_on: Literal["pixels", "channels"]

    @property
    def is_projection(self) -> bool:
        return True

    @abstractmethod
    def apply(self, x: Images) -> Images: ...


@dataclass(frozen=True)
class BlockMean(Projection):
    """Each block replaced by its mean: A is average pooling, A^+ copies it back (ZIP, section 5.1).

    Args:
        scale: Edge of a block in pixels; 1 is the identity.
    """

    scale: int
    acts_on = "pixels"

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"block mean: expected a scale of 1 or more, found {self.scale}.")

    def apply(self, x: Images) -> Images:
        """P x.

        Raises:
            ValueError: `scale` does not divide both sides.
        """
        height, width = x.shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"block mean of scale {self.scale}: expected sides that are multiples of it, "
                f"found {height}x{width}; pad the images or take another scale."
            )
        means = F.avg_pool2d(x, self.scale)
        return means.repeat_interleave(self.scale, -2).repeat_interleave(self.scale, -1)


@dataclass(frozen=True)
class Gray(Projection):
    """Each channel replaced by the mean of the three."""

    acts_on = "channels"

    def apply(self, x: Images) -> Images:
        return x.mean(-3, keepdim=True).expand_as(x)


@dataclass(frozen=True)
class DctLowPass(Projection):
    """Only the low frequencies of the orthonormal DCT-II of the whole image.

    Args:
        share: Share of the frequencies that is kept along each axis, above 0 to 1; at least the
            mean always is. A share of .5 keeps a quarter of all coefficients, as block mean 2 does.
    """

    share: float
    acts_on = "pixels"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"DCT low-pass: expected a share above 0 and up to 1, found {self.share}.")

    def apply(self, x: Images) -> Images:
        rows, columns = (_low_pass(side, self.share).to(x) for side in x.shape[-2:])
        return rows @ x @ columns


@dataclass(frozen=True)
class Composition(Projection):
    """One projection of the channels and one of the pixels after each other.

    Such two commute, so that their product is an orthogonal projection again; two of the same
    kind (say block mean and DCT) don't, and are refused.

    Args:
        parts: The two projections, in any order.
    """

    parts: tuple[BlockMean | Gray | DctLowPass, ...]

    def __post_init__(self) -> None:
        if sorted(part.acts_on for part in self.parts) != ["channels", "pixels"]:
            raise ValueError(
                f"composition: expected one projection of pixels and one of channels, found {list(self.parts)}; "
                "others need not commute, and what doesn't is no projection."
            )

    def apply(self, x: Images) -> Images:
        for part in self.parts:
            x = part.apply(x)
        return x


@dataclass(frozen=True)
class WeightedSum:
    """W = sum of w_k P_k: self-adjoint, and no projection.

    Args:
        terms: Weights and projections; the weights are above 0 and add up to 1.
    """

    terms: tuple[tuple[float, Projection], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.terms]
        if len(weights) < 2 or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"weighted sum: expected two or more weights above 0 that add up to 1, found {weights}.")

    @property
    def is_projection(self) -> bool:
        return False

    def apply(self, x: Images) -> Images:
        total = torch.zeros_like(x)
        for weight, projection in self.terms:
            total = total + weight * projection.apply(x)
        return total

    def __repr__(self) -> str:
        return " + ".join(f"{weight:g} {projection!r}" for weight, projection in self.terms)


def transform_for(name: str, *, scale: int = 2, share: float = 0.5) -> Transform:
    """The transform of a name: block_mean, gray, dct, gray_block_mean, gray_dct or two.

    `two` is what the ZIP authors' program runs: half gray, half block mean.

    Args:
        name: One of the names above.
        scale: Edge of a block in pixels, for those with a block mean.
        share: Share of frequencies kept along each axis, for those with a DCT.

    Raises:
        ValueError: No such name, or a scale or share that can't be.
    """
    match name:
        case "block_mean":
            return BlockMean(scale)
        case "gray":
            return Gray()
        case "dct":
            return DctLowPass(share)
        case "gray_block_mean":
            return Composition((Gray(), BlockMean(scale)))
        case "gray_dct":
            return Composition((Gray(), DctLowPass(share)))
        case "two":
            return WeightedSum(((0.5, Gray()), (0.5, BlockMean(scale))))
    raise ValueError(f"transform {name!r}: expected block_mean, gray, dct, gray_block_mean, gray_dct or two.")


@lru_cache(maxsize=32)
def _low_pass(side: int, share: float) -> Tensor:
    """C^T C for the first rows of the DCT-II matrix C, float64 [side, side]."""
    kept = max(1, round(share * side))
    frequency = torch.arange(kept, dtype=torch.float64)[:, None]
    place = torch.arange(side, dtype=torch.float64)[None, :] + 0.5
    cosines = torch.cos(torch.pi * frequency * place / side) * (2 / side) ** 0.5
    cosines[0] /= 2**0.5
    projection: Tensor = cosines.T @ cosines
    return projection
