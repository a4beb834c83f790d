"""`sampdetox`: noise everywhere, a little; where that changed much, a lot (Yang et al., NeurIPS 2024).

    1  y is noised to t1 and denoised: x_bar                 low-visibility triggers go
    2  S = SSIM(y, x_bar) at each pixel                      a robust trigger comes back changed
    3  x_bar is noised to (1 - S) t2, each pixel to its own
    4  and denoised; a pixel takes part from its own timestep on, until then it keeps its noise

The starting noise is one image, used twice, as in the authors' program. Costs up to t1 + t2 + 2
network calls a cell: 68 by default, 9 with the preset `few`. Timesteps that no pixel of a micro-batch
is noised to are passed over: on 32 photographs of 32 px that left 30 and 3.

Axes: b images of a micro-batch, c pixels a side of a cell, n steps of a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zipstage.priors.base import Prior
from zipstage.purifiers.diffusion import DiffusionPurifier
from zipstage.purifiers.settings import SampDetoxSettings
from zipstage.schedule import schedule
from zipstage.ssim import ssim_map

LUMA = (0.30, 0.59, 0.11)  # of red, green and blue
PROGRAM_LUMA = (0.11, 0.59, 0.30)  # the authors' program has red and blue exchanged
PROGRAM_RANGE = 255.0  # for images in [0, 1]


@dataclass(frozen=True, slots=True)
class Pass:
    """The way to a timestep and back.

    A pixel's level says how far it is noised: 0 not at all (in the program: to timestep 0), n to
    the pass's own timestep. From level k the network is called at `timesteps[k]`.

    Args:
        timesteps: One for each level, rising; that of level 0 is -1.
        ahead: Timesteps by which the noise is ahead of the network's: 1 in the program, else 0.
        posterior: Whether a step adds the posterior's noise, which hits the next noise level; else the
            noise of the forward step, as the program does.
    """

    timesteps: tuple[int, ...]
    ahead: int = 0
    posterior: bool = True

    @property
    def n(self) -> int:
        return len(self.timesteps) - 1

    def noised(self, x0: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """x0 with each pixel noised to its level: q(x_t | x_0).

        Args:
            x0: Images in [-1, 1], [b, 3, c, c].
            levels: 0 to n, int64 [b, 1, c, c].
            noise: Standard normal, [b, 3, c, c].
        """
        bars = [schedule().alpha_bar(t + self.ahead) for t in self.timesteps]
        a = torch.tensor(bars, dtype=torch.float64, device=x0.device)[levels]
        return a.sqrt().to(x0.dtype) * x0 + (1 - a).sqrt().to(x0.dtype) * noise

    def back(self, prior: Prior, x: Tensor, levels: Tensor, noise: Iterator[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Denoise, each pixel from its level on.

        Args:
            prior: What predicts.
            x: The noised images.
            levels: Of its pixels.
            noise: Standard normal tensors of the shape of x; one a timestep but the last is taken.

        Yields:
            Each timestep with the state before it; at the end -1 and the result, not clipped.
        """
        for level in range(self.n, 0, -1):
            t, t_next = self.timesteps[level], self.timesteps[level - 1]
            yield t, x
            draw = next(noise) if t_next >= 0 else torch.zeros_like(x)  # taken in any case: its number names it
            due = levels >= level
            if due.any():  # or the call would change nothing; what others in the batch are due to changes no pixel here
                x = torch.where(due, self._step(prior, x, t, t_next, draw), x)
        yield -1, x

    def _step(self, prior: Prior, x: Tensor, t: int, t_next: int, draw: Tensor) -> Tensor:
        """Ancestral sampling from t to t_next (Ho et al. 2020, algorithm 2), which may be several timesteps away."""
        a, a_next = schedule().alpha_bar(t), schedule().alpha_bar(t_next)
        beta = 1 - a / a_next  # of all the timesteps between
        eps = prior.predict(x, t).eps
        mean = (x - beta / (1 - a) ** 0.5 * eps) / (1 - beta) ** 0.5
        variance = (1 - a_next) / (1 - a) * beta if self.posterior else beta
        x_next: Tensor = mean + variance**0.5 * draw
        return x_next


@dataclass(frozen=True, slots=True)
class Detoxed:
    """What became of a micro-batch, and what decided it.

    Args:
        x_bar: After the first pass, in [-1, 1], [b, 3, c, c].
        changed: How much that changed each pixel, 0 to 1, [b, 1, c, c].
        levels: How far each was noised again, int64 [b, 1, c, c].
        x0: After the second pass, in [-1, 1], [b, 3, c, c].
    """

    x_bar: Tensor
    changed: Tensor
    levels: Tensor
    x0: Tensor


class SampDetoxPurifier(DiffusionPurifier):
    """SampDetox on cells, or on whole tiles where the prior needs them.

    Args:
        settings: Noise levels, calls, and whose form.
        prior: On `device` already.
        device: `cpu` or `cuda`.
        batch: Cells (or tiles) in a network call; 0 takes the device's default.
    """

    def __init__(self, settings: SampDetoxSettings, prior: Prior, device: str, batch: int = 0) -> None:
        super().__init__(prior, device, batch)
        self.is_program = settings.form == "program"
        self.first = pass_to(settings.t1, settings.calls1, is_program=self.is_program)
        self.second = pass_to(settings.t2, settings.calls2, is_program=self.is_program)
        self.calls = self.first.n + self.second.n  # at most

    def sample(self, y: Tensor, noise: Iterator[Tensor]) -> Tensor:
        return self.detox(y, noise).x0

    def detox(self, y: Tensor, noise: Iterator[Tensor]) -> Detoxed:
        """The four steps, for images in [-1, 1] of any dtype; noise as `sample` takes it."""
        start = next(noise)
        everywhere = torch.full_like(y[:, :1], self.first.n, dtype=torch.int64)
        x_bar = there_and_back(self.prior, self.first, y, everywhere, start, noise)
        changed = change(y, x_bar, is_program=self.is_program)
        levels = levels_of(changed, self.second.n, is_program=self.is_program)
        return Detoxed(x_bar, changed, levels, there_and_back(self.prior, self.second, x_bar, levels, start, noise))


def pass_to(t: int, calls: int, *, is_program: bool) -> Pass:
    """The pass to a timestep, in so many calls, evenly over its timesteps; 0 is one each."""
    num = t if is_program else t + 1  # the program noises to t and denoises from t - 1
    calls = calls or num
    return Pass(
        tuple(num * level // calls - 1 for level in range(calls + 1)), ahead=int(is_program), posterior=not is_program
    )


def there_and_back(
    prior: Prior, passed: Pass, x0: Tensor, levels: Tensor, start: Tensor, noise: Iterator[Tensor]
) -> Tensor:
    """x0 noised and denoised by a pass, in [-1, 1]."""
    x = passed.noised(x0, levels, start)
    for _, state in passed.back(prior, x, levels, noise):
        x = state
    return x.clamp(-1, 1)


def change(y: Tensor, x_bar: Tensor, *, is_program: bool = False) -> Tensor:
    """How much a pass changed each pixel: 1 - SSIM, as gray, 0 to 1, [b, 1, c, c].

    The program takes the images' range for 255, which leaves the map nearly flat, and stretches it over
    each image. Stretched, some place always changed most: an image without a trigger is noised as well.
    """
    similar = ssim_map((y + 1) / 2, (x_bar + 1) / 2, PROGRAM_RANGE if is_program else 1.0)
    weights = torch.tensor(PROGRAM_LUMA if is_program else LUMA, dtype=similar.dtype, device=similar.device)
    gray = (similar * weights[:, None, None]).sum(1, keepdim=True)
    if is_program:
        low, high = gray.amin((1, 2, 3), keepdim=True), gray.amax((1, 2, 3), keepdim=True)
        gray = torch.where(high > low, (gray - low) / (high - low), 1.0)
    return (1 - gray).clamp(0, 1)


def levels_of(changed: Tensor, n: int, *, is_program: bool = False) -> Tensor:
    """The level of each pixel, 0 to n, by how much it changed; the program cuts where we round."""
    levels = changed * n
    return (levels.trunc() if is_program else levels.round()).long()
