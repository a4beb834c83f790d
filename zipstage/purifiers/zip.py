"""`zip`: what a trigger needs is projected away, and a diffusion prior restores the rest (Shi et al. 2023).

Costs `calls` network calls a cell: 2 by default, 20 for the paper's Algorithm 2, 1000 for its
Algorithm 1. Trap: with a prior that takes the whole canvas, images on a tile see each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from zipstage.guidance import Guidance, HardSwitch, SoftSwitch
from zipstage.priors.base import Prior
from zipstage.purifiers.diffusion import DiffusionPurifier
from zipstage.purifiers.settings import ZipSettings
from zipstage.samplers import Step, ddim, ddpm, few, last, leading_timesteps, paper_timesteps
from zipstage.schedule import TRAIN_STEPS, schedule
from zipstage.transforms import transform_for


class ZipPurifier(DiffusionPurifier):
    """ZIP on cells, or on whole tiles where the prior needs them.

    Args:
        settings: Transform, sampler and switch.
        prior: On `device` already.
        device: `cpu` or `cuda`.
        batch: Cells (or tiles) in a network call; 0 takes the device's default.
    """

    def __init__(self, settings: ZipSettings, prior: Prior, device: str, batch: int = 0) -> None:
        super().__init__(prior, device, batch)
        self.settings = settings
        self.guidance = guidance_of(settings)
        self.timesteps = timesteps_of(settings)
        self.calls = len(self.timesteps)

    def sample(self, y: Tensor, noise: Iterator[Tensor]) -> Tensor:
        return last(self.steps(y, noise))

    def steps(self, y: Tensor, noise: Iterator[Tensor]) -> Iterator[Step]:
        """The steps of a micro-batch, for those who want to look; arguments as `sample` takes them."""
        settings, table = self.settings, schedule()
        match settings.sampler:
            case "ddpm":
                return ddpm(self.prior, y, self.guidance, noise, schedule=table)
            case "ddim":
                return ddim(
                    self.prior, y, self.guidance, noise, schedule=table, timesteps=self.timesteps, eta=settings.eta
                )
        start = self.guidance.range_part(y) if settings.start == "projected" else y
        return few(
            self.prior, y, self.guidance, noise,
            schedule=table, timesteps=self.timesteps, start=start, eta=settings.eta,
        )  # fmt: skip


def guidance_of(settings: ZipSettings) -> Guidance:
    """Transform and switch that the settings name."""
    transform = transform_for(settings.transform, scale=settings.scale, share=settings.share)
    hard = settings.switch == "hard"
    return Guidance(transform, HardSwitch(settings.lambda_) if hard else SoftSwitch(settings.power))


def timesteps_of(settings: ZipSettings) -> tuple[int, ...]:
    """The timesteps at which the network is called, falling."""
    match settings.sampler:
        case "few":
            return settings.timesteps
        case "ddpm":
            return paper_timesteps(1)
    leading = settings.spacing == "leading"
    return leading_timesteps(settings.steps) if leading else paper_timesteps(TRAIN_STEPS // settings.steps)
