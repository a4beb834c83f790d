"""The samplers: Algorithm 1, Algorithm 2 and one of a few calls. Each costs one network call a timestep.

A sampler is a generator of `Step`s, so that a caller can watch; `last` runs it to its end. Noise
is handed in, one tensor a draw: first the starting noise, then one for each step that adds some.

    code        paper         what
    y           x^A           the image as received, [-1, 1]
    x_t, x      x_t           the state at timestep t; here t counts from 0, in the paper from 1
    a           alpha_bar_t   schedule.alpha_bar(t); a_prev is that of the timestep that comes next
    eps, x0     eps, x_0|t    what the prior predicts
    x0_hat      x^_0|t        x0 after guidance (eq. 11)
    W y         A^+A x^A      the received image's range part
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from zipstage.guidance import Guidance
from zipstage.priors.base import Prior
from zipstage.schedule import Schedule
from zipstage.transforms import Images


@dataclass(frozen=True, slots=True)
class Step:
    """One step from x_t to x_prev, all tensors [b, 3, h, w]; the last one's x_prev is the result."""

    t: int
    x_t: Tensor
    eps: Tensor
    x0: Tensor
    x0_hat: Tensor
    x_prev: Tensor


def last(steps: Iterator[Step]) -> Images:
    """Run a sampler to its end: the image, about [-1, 1], not clipped."""
    x: Tensor | None = None
    for step in steps:
        x = step.x_prev
    if x is None:
        raise ValueError("sampler: expected one step or more, found none.")
    return x


def ddpm(prior: Prior, y: Images, guidance: Guidance, noise: Iterator[Tensor], *, schedule: Schedule) -> Iterator[Step]:
    """Algorithm 1 of ZIP: every timestep, ancestral noise.

    The text prints alpha_t in lines 6, 7 and 9 where its equations 5, 9 and 11 have alpha_bar_t;
    the equations are followed.

    Args:
        prior: What predicts.
        y: Images as received, in [-1, 1].
        guidance: A^+A, and when it holds.
        noise: Standard normal tensors of the shape of y; one a timestep is taken.
        schedule: The prior's.
    """
    range_part = guidance.range_part(y)
    x = next(noise)  # line 1: x_T ~ N(0, I)
    for t in reversed(range(schedule.T)):
        a, a_prev, beta = schedule.alpha_bar(t), schedule.alpha_bar(t - 1), schedule.beta(t)
        predicted = prior.predict(x, t)
        x0_hat = guidance.correct(predicted.x0, range_part, t, a)
        # Lines 6 and 7: h is x_t with x0 replaced by x0_hat, sqrt(a) x0_hat + sqrt(1-a) eps (eq. 5).
        h = x + a**0.5 * (x0_hat - predicted.x0)
        # Line 9: x_{t-1} = (h - beta / sqrt(1-a) eps) / sqrt(alpha) + sigma n.
        x_prev = (h - beta / (1 - a) ** 0.5 * predicted.eps) / (1 - beta) ** 0.5
        sigma = ((1 - a_prev) / (1 - a) * beta) ** 0.5
        if sigma > 0:
            x_prev = x_prev + sigma * next(noise)
        yield Step(t, x, predicted.eps, predicted.x0, x0_hat, x_prev)
        x = x_prev


def ddim(
    prior: Prior,
    y: Images,
    guidance: Guidance,
    noise: Iterator[Tensor],
    *,
    schedule: Schedule,
    timesteps: Sequence[int],
    eta: float = 1.0,
) -> Iterator[Step]:
    """Algorithm 2 of ZIP: any falling timesteps, from pure noise.

    Args:
        prior: What predicts.
        y: Images as received, in [-1, 1].
        guidance: A^+A or what the authors' program has in its place, and when it holds.
        noise: Standard normal tensors of the shape of y.
        schedule: The prior's.
        timesteps: Falling, 0-based; see `leading_timesteps` and `paper_timesteps`.
        eta: Share of the ancestral noise, 0 (none) to 1; the paper gives no sigma, the program has 1.

    Raises:
        ValueError: Timesteps that don't fall or that the schedule doesn't have.
    """
    _check(timesteps, schedule, eta)
    return _reverse(prior, next(noise), y, guidance, noise, schedule, timesteps, eta)


def few(
    prior: Prior,
    y: Images,
    guidance: Guidance,
    noise: Iterator[Tensor],
    *,
    schedule: Schedule,
    timesteps: Sequence[int],
    start: Images,
    eta: float = 1.0,
) -> Iterator[Step]:
    """A few calls: from an image noised to the first timestep, along a short list, to the last x0_hat.

    SDEdit (Meng et al. 2022) with ZIP's constraint. The end is the posterior mean: no last noise.

    Args:
        prior: What predicts.
        y: Images as received, in [-1, 1].
        guidance: A^+A, and which of the timesteps are guided.
        noise: Standard normal tensors of the shape of y.
        schedule: The prior's.
        timesteps: Falling, 0-based, such as (350, 200); one is enough.
        start: What is noised: y, or its range part.
        eta: As in `ddim`.

    Raises:
        ValueError: Timesteps that don't fall or that the schedule doesn't have.
    """
    _check(timesteps, schedule, eta)
    a = schedule.alpha_bar(timesteps[0])
    x = a**0.5 * start + (1 - a) ** 0.5 * next(noise)  # eq. 4: q(x_t | x_0)
    return _reverse(prior, x, y, guidance, noise, schedule, timesteps, eta)


def leading_timesteps(steps: int, T: int = 1000) -> tuple[int, ...]:
    """The authors' program's timesteps: evenly spaced from 0 up, falling; 950, ..., 50, 0 for 20."""
    if not 1 <= steps <= T:
        raise ValueError(f"leading timesteps: expected 1 to {T} steps, found {steps}.")
    stride = T // steps
    return tuple(range((steps - 1) * stride, -1, -stride))


def paper_timesteps(stride: int, T: int = 1000) -> tuple[int, ...]:
    """The paper's T, T-S, T-2S, ... above 0, less one since ours count from 0; 999, 949, ..., 49 for S = 50."""
    if not 1 <= stride <= T:
        raise ValueError(f"paper's timesteps: expected a stride of 1 to {T}, found {stride}.")
    return tuple(range(T - 1, -1, -stride))


def _reverse(
    prior: Prior,
    x: Tensor,
    y: Tensor,
    guidance: Guidance,
    noise: Iterator[Tensor],
    schedule: Schedule,
    timesteps: Sequence[int],
    eta: float,
) -> Iterator[Step]:
    range_part = guidance.range_part(y)
    for t, t_prev in zip(timesteps, (*timesteps[1:], -1), strict=True):
        a, a_prev = schedule.alpha_bar(t), schedule.alpha_bar(t_prev)
        predicted = prior.predict(x, t)
        x0_hat = guidance.correct(predicted.x0, range_part, t, a)
        # Algorithm 2, line 9; sigma as in DDIM's eq. 16 (Song et al. 2021). At the end a_prev is 1: x0_hat remains.
        sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)) ** 0.5
        x_prev = a_prev**0.5 * x0_hat + max(1 - a_prev - sigma**2, 0.0) ** 0.5 * predicted.eps
        if sigma > 0:
            x_prev = x_prev + sigma * next(noise)
        yield Step(t, x, predicted.eps, predicted.x0, x0_hat, x_prev)
        x = x_prev


def _check(timesteps: Sequence[int], schedule: Schedule, eta: float) -> None:
    falling = all(first > second for first, second in itertools.pairwise(timesteps))
    if not timesteps or not falling or timesteps[0] >= schedule.T or timesteps[-1] < 0:
        raise ValueError(
            f"timesteps: expected one or more from {schedule.T - 1} down to 0, falling, found {list(timesteps)}."
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 to 1, found {eta}.")
