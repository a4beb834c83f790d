"""The noise schedule: what betas, `alphas_cumprod` and a timestep are. For samplers and priors.

    T      steps of the schedule; timesteps t = 0 .. T-1 (the ZIP paper counts 1 .. T)
    beta   linear from 1e-4 to .02 at T = 1000, scaled by 1000 / T; from diffusers' scheduler
    a_t    alphas_cumprod[t], the product of 1 - beta up to t; a_-1 = 1: no noise left

Trap: diffusers holds betas and their product in float32. The product is 4e-6 off; cumulated in
float64, the same betas still leave Algorithm 1's states 5e-6 off half way. So the betas are the
scheduler's numbers, spaced anew in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

TRAIN_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A linear schedule in float64; numbers meet tensors as Python floats, so each keeps its dtype.

    Args:
        betas: Variance added in each step, [T].
        alphas_cumprod: Share of the image's variance left after each step, [T].
    """

    betas: tuple[float, ...]
    alphas_cumprod: tuple[float, ...]

    @property
    def T(self) -> int:  # noqa: N802 - the paper's name
        return len(self.betas)

    def alpha_bar(self, t: int) -> float:
        """a_t, with a_-1 = 1.

        Raises:
            ValueError: `t` is no timestep of this schedule.
        """
        if t == -1:
            return 1.0
        if not 0 <= t < self.T:
            raise ValueError(f"timestep {t}: expected one from 0 to {self.T - 1} (the paper's t less one), or -1.")
        return self.alphas_cumprod[t]

    def beta(self, t: int) -> float:
        return self.betas[t]


@lru_cache(maxsize=8)
def schedule(T: int = TRAIN_STEPS) -> Schedule:
    """The linear schedule of T steps (ZIP, section 4.1; Ho et al. 2020).

    Raises:
        ValueError: Too few steps: the last beta would pass 1.
    """
    from diffusers import DDPMScheduler  # here, because it takes seconds to import

    if T < 21:
        raise ValueError(f"schedule of {T} steps: expected 21 or more, since the last beta is 20 / steps and below 1.")
    scale = TRAIN_STEPS / T
    scheduler: Any = DDPMScheduler(
        num_train_timesteps=T, beta_start=1e-4 * scale, beta_end=0.02 * scale, beta_schedule="linear"
    )
    numbers = scheduler.config
    betas = torch.linspace(numbers.beta_start, numbers.beta_end, numbers.num_train_timesteps, dtype=torch.float64)
    return Schedule(tuple(betas.tolist()), tuple((1 - betas).cumprod(0).tolist()))
