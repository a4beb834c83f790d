"""`sdedit`: noised to a timestep and denoised, with nothing that holds it to the received image (Meng et al. 2022).

A control: what ZIP's constraint has to beat. Costs `calls` network calls a cell.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from zipstage.guidance import Guidance, HardSwitch
from zipstage.priors.base import Prior
from zipstage.purifiers.diffusion import DiffusionPurifier
from zipstage.purifiers.settings import SdeditSettings
from zipstage.samplers import few, last
from zipstage.schedule import schedule
from zipstage.transforms import BlockMean

NO_GUIDANCE = Guidance(BlockMean(1), HardSwitch(1.0))


class SdeditPurifier(DiffusionPurifier):
    """Unguided noising and denoising.

    Args:
        settings: How far, in how many calls.
        prior: On `device` already.
        device: `cpu` or `cuda`.
        batch: Cells (or tiles) in a network call; 0 takes the device's default.
    """

    def __init__(self, settings: SdeditSettings, prior: Prior, device: str, batch: int = 0) -> None:
        super().__init__(prior, device, batch)
        self.calls = settings.calls
        self.timesteps = tuple(settings.t * k // settings.calls for k in range(settings.calls, 0, -1))

    def sample(self, y: Tensor, noise: Iterator[Tensor]) -> Tensor:
        return last(few(self.prior, y, NO_GUIDANCE, noise, schedule=schedule(), timesteps=self.timesteps, start=y))
