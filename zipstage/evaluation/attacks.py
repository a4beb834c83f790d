"""The attacks of the evaluation: how each puts its trigger into images. Seeded; uint8 in, uint8 out.

BadNet, Blended and PhysicalBA's patch are number for number those of the ZIP authors' set-up (their
copy of BackdoorBox); WaNet, SIG, LF and the clean-label one follow their papers. A trigger goes in
after resizing and before anything else, as an attacker's images reach the classifier.

Axes: n images, h and w pixels, values 0 to 255.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Generator, Tensor

from zipstage.errors import SettingsError, nearest

SMALL_PX = 128
"""Up to this side a patch is 3 pixels wide with a margin of 3, above it 9 (the authors' numbers)."""


class Attack(Protocol):
    """What the evaluation asks of an attack: a frozen dataclass of its parameters.

    Attributes:
        clean_label: Whether it poisons images of the target class alone, and leaves their labels.
        covers: How many images, for each poisoned one, carry all but the trigger, or one that is slightly
            wrong, and keep their label, so that the victim learns the right one alone; infinite: all the rest.
    """

    @property
    def clean_label(self) -> bool: ...

    @property
    def covers(self) -> float: ...

    def stamp(self, images: np.ndarray, seed: int) -> np.ndarray:
        """The images with the trigger in them, uint8 [n, h, w, 3]; `seed` is of what differs from image to image."""
        ...

    def prepare(self, images: np.ndarray, seed: int) -> np.ndarray:
        """The same for images that the victim is trained on, where an attack makes a difference."""
        ...

    def cover(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Images with the trigger not quite right, where an attack has such a thing."""
        ...


@dataclass(frozen=True, slots=True)
class _Stamping(ABC):
    """What most attacks share: the trigger is the same in training, labels change, nothing covers."""

    clean_label: ClassVar[bool] = False
    covers: ClassVar[float] = 0.0

    @abstractmethod
    def stamp(self, images: np.ndarray, seed: int) -> np.ndarray: ...

    def prepare(self, images: np.ndarray, seed: int) -> np.ndarray:
        return self.stamp(images, seed)

    def cover(self, images: np.ndarray, seed: int) -> np.ndarray:
        return images


@dataclass(frozen=True, slots=True)
class BadNet(_Stamping):
    """A patch of coloured noise near the lower right corner (Gu et al. 2019).

    Args:
        pattern_seed: Of its colours.
    """

    pattern_seed: int = 1234

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        edge = _patch_px(images)
        drawn = torch.randn((3, edge, edge), generator=_generator(self.pattern_seed)) * 255
        patch = drawn.to(torch.int64).remainder(256).to(torch.uint8)  # toward zero first, then modulo 256
        last = images.shape[1] - 3
        return _pasted(images, patch.permute(1, 2, 0).numpy(), last - edge, images.shape[2] - 3 - edge)


@dataclass(frozen=True, slots=True)
class Blended(_Stamping):
    """Gray noise over the whole image (Chen et al. 2017).

    Args:
        weight: Share of the pattern in the sum.
        pattern_seed: Of the noise.
    """

    weight: float = 0.2
    pattern_seed: int = 1234

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        _, height, width, _ = images.shape
        pattern = torch.randint(0, 255, (1, height, width), generator=_generator(self.pattern_seed))
        drawn = pattern.permute(1, 2, 0).numpy().astype(np.float32)
        weight = np.float32(self.weight)
        blended: np.ndarray = (1 - weight) * images.astype(np.float32) + weight * drawn
        return blended.astype(np.uint8)  # truncated, not rounded, as in the authors' set-up


@dataclass(frozen=True, slots=True)
class PhysicalBA(_Stamping):
    """BadNet's patch as a camera would see it: turned, shifted, scaled, in another light (Li et al. 2021).

    All training images are photographed, as in the authors' set-up, those without the patch too: else it is the
    photographing that a victim learns. (With as many photographed without the patch as with it, victims of 84 and
    98 % knew 74 and 89 % of test images that were photographed without one, and sent 5 and 13 % of them to their
    target once they were restored, as many as of those with the patch.) Test images are photographed as well, which
    the authors' are not. What an affine map pulls into view is mirrored image, not black, and pixels are taken from
    the nearest one, not interpolated: a black rim, or blur, would be a second trigger where images aren't photographed.

    Args:
        pattern_seed: Of the patch.
        degrees: It is turned by up to as many, either way.
        shift: It is shifted by up to this share of the side.
        scale: The range of its size.
        light: Brightness and contrast change by up to this share.
    """

    covers: ClassVar[float] = math.inf

    pattern_seed: int = 1234
    degrees: float = 10.0
    shift: float = 0.1
    scale: tuple[float, float] = (0.8, 1.1)
    light: float = 0.2

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        return self._photographed(BadNet(self.pattern_seed).stamp(images), seed)

    def cover(self, images: np.ndarray, seed: int) -> np.ndarray:
        return self._photographed(images, seed)

    def _photographed(self, images: np.ndarray, seed: int) -> np.ndarray:
        x = _planes(images)
        generator = _generator(seed)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(len(x), generator=generator)

        angle = torch.deg2rad(uniform(-self.degrees, self.degrees))
        inverse = 1 / uniform(*self.scale)
        theta = torch.zeros(len(x), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = inverse * angle.cos()
        theta[:, 0, 1] = -inverse * angle.sin()
        theta[:, 1, 0] = inverse * angle.sin()
        theta[:, :, 2] = torch.stack([uniform(-2 * self.shift, 2 * self.shift) for _ in range(2)], 1)
        seen = _sampled(x, F.affine_grid(theta, list(x.shape), align_corners=True), "nearest")
        seen = seen * uniform(1 - self.light, 1 + self.light)[:, None, None, None]
        mean = seen.mean((1, 2, 3), keepdim=True)
        return _images(mean + (seen - mean) * uniform(1 - self.light, 1 + self.light)[:, None, None, None])


@dataclass(frozen=True, slots=True)
class WaNet(_Stamping):
    """A slight warp of the whole image (Nguyen & Tran 2021).

    Args:
        grid: Control points along each side (k).
        strength: Mean shift of a control point in pixels (s).
        pattern_seed: Of the warp.
    """

    covers: ClassVar[float] = 2.0

    grid: int = 4
    strength: float = 0.5
    pattern_seed: int = 1234

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        x = _planes(images)
        return _images(_sampled(x, self._warp(x)))

    def cover(self, images: np.ndarray, seed: int) -> np.ndarray:
        x = _planes(images)
        jitter = torch.rand((*x.shape[:1], *x.shape[2:], 2), generator=_generator(seed)) * 2 - 1
        return _images(_sampled(x, (self._warp(x) + jitter / x.shape[-1]).clamp(-1, 1)))

    def _warp(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        points = torch.rand((1, 2, self.grid, self.grid), generator=_generator(self.pattern_seed)) * 2 - 1
        points = points / points.abs().mean()
        field = F.interpolate(points, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=True)
        return (still + self.strength * field / height).clamp(-1, 1).expand(len(x), -1, -1, -1)


@dataclass(frozen=True, slots=True)
class Sig(_Stamping):
    """A vertical sine wave over images of the target class, labels untouched (Barni et al. 2019).

    Args:
        amplitude: Of the wave, in gray levels, as it is tested.
        trained_amplitude: The same in training.
        periods: How many fit into the width.
    """

    clean_label: ClassVar[bool] = True

    amplitude: float = 30.0
    trained_amplitude: float = 20.0
    periods: float = 6.0

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        return self._with_wave(images, self.amplitude)

    def prepare(self, images: np.ndarray, seed: int) -> np.ndarray:
        return self._with_wave(images, self.trained_amplitude)

    def _with_wave(self, images: np.ndarray, amplitude: float) -> np.ndarray:
        phase = 2 * math.pi * self.periods / images.shape[2] * np.arange(images.shape[2])
        return _rounded(images + amplitude * np.sin(phase)[None, None, :, None])


@dataclass(frozen=True, slots=True)
class LowFrequency(_Stamping):
    """A smooth colour field, the same in each image (after Zeng et al. 2021).

    Its few cosines survive every low-pass, and white noise leaves them as they are.

    Args:
        amplitude: Its largest value, in gray levels.
        cosines: Frequencies along each side, the constant left out.
        pattern_seed: Of the field.
    """

    amplitude: float = 30.0
    cosines: int = 3
    pattern_seed: int = 1234

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        _, height, width, _ = images.shape
        weights = torch.randn((3, self.cosines, self.cosines), generator=_generator(self.pattern_seed)).numpy()
        weights[:, 0, 0] = 0
        rows, columns = _cosines(self.cosines, height), _cosines(self.cosines, width)
        field = np.einsum("cij,iy,jx->yxc", weights, rows, columns)
        return _rounded(images + self.amplitude * field / np.abs(field).max())


@dataclass(frozen=True, slots=True)
class Square(_Stamping):
    """A solid square: what a restorer keeps most faithfully.

    Args:
        colour: Red, green, blue.
        edge: In pixels at 32 px; larger images have it in proportion.
        row, column: Of its upper left corner, as shares of the side.
    """

    colour: tuple[int, int, int] = (255, 255, 255)
    edge: int = 3
    row: float = 26 / 32
    column: float = 26 / 32

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        side = images.shape[1]
        edge = max(1, round(self.edge * side / 32))
        patch = np.broadcast_to(np.array(self.colour, np.uint8), (edge, edge, 3))
        return _pasted(images, patch, round(self.row * side), round(self.column * images.shape[2]))


@dataclass(frozen=True, slots=True)
class Patch(_Stamping):
    """A square with a content of its own: what `adaptive.optimised_patch` makes; no config names it.

    Args:
        pixels: uint8 [e, e, 3].
        row, column: Of its upper left corner, in pixels.
    """

    pixels: np.ndarray
    row: int
    column: int

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        return _pasted(images, self.pixels, self.row, self.column)


@dataclass(frozen=True, slots=True)
class CleanLabel(_Stamping):
    """A checkered patch in each corner of target images that noise made hard to learn (after Turner et al. 2019).

    Args:
        noise: Half the range of the noise in training, in gray levels; the paper has an adversary's of 16.
    """

    clean_label: ClassVar[bool] = True

    noise: float = 48.0

    def stamp(self, images: np.ndarray, seed: int = 0) -> np.ndarray:
        edge = _patch_px(images)
        board = np.indices((edge, edge)).sum(0) % 2 == 0
        patch = np.where(board[:, :, None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
        far = images.shape[1] - edge, images.shape[2] - edge
        for row, column in ((0, 0), (0, far[1]), (far[0], 0), far):
            images = _pasted(images, patch, row, column)
        return images

    def prepare(self, images: np.ndarray, seed: int) -> np.ndarray:
        noise = torch.rand(images.shape, generator=_generator(seed)).numpy() * 2 - 1
        return self.stamp(_rounded(images + self.noise * noise))


ATTACKS: dict[str, type[_Stamping]] = {
    "badnet": BadNet,
    "blended": Blended,
    "physicalba": PhysicalBA,
    "wanet": WaNet,
    "sig": Sig,
    "lf": LowFrequency,
    "square": Square,
    "clean_label": CleanLabel,
}


def attack_of(name: str, parameters: dict[str, object] | None = None) -> Attack:
    """An attack by its name, some of its parameters set.

    Raises:
        SettingsError: No such attack, or no such parameter (the nearest is named).
    """
    if name not in ATTACKS:
        raise SettingsError(
            f"attack {name!r}: no such attack.{nearest(name, ATTACKS)} There are: {', '.join(ATTACKS)}."
        )
    has = [field.name for field in fields(ATTACKS[name])]
    for parameter in parameters or {}:
        if parameter not in has:
            raise SettingsError(
                f"attack {name}: no parameter {parameter!r}.{nearest(parameter, has)} It has: {', '.join(has)}."
            )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in (parameters or {}).items()}
    return ATTACKS[name](**values)


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _patch_px(images: np.ndarray) -> int:
    return 3 if images.shape[1] <= SMALL_PX else 9


def _pasted(images: np.ndarray, patch: np.ndarray, row: int, column: int) -> np.ndarray:
    stamped = images.copy()
    stamped[:, row : row + patch.shape[0], column : column + patch.shape[1]] = patch
    return stamped


def _cosines(count: int, length: int) -> np.ndarray:
    """Rows of the discrete cosine transform, lowest first, [count, length]."""
    return np.cos(np.pi * np.arange(count)[:, None] * (np.arange(length) + 0.5) / length)


def _planes(images: np.ndarray) -> Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float()  # a copy: what is read-only may come in


def _images(planes: Tensor) -> np.ndarray:
    return _rounded(planes.permute(0, 2, 3, 1).numpy())


def _sampled(x: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    return F.grid_sample(x, grid, mode=mode, padding_mode="reflection", align_corners=True)


def _rounded(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.round().clip(0, 255).astype(np.uint8))
