"""Guidance: the range part of what the prior predicts is replaced by that of the received image.

    x0_hat = x0 + g_t (W y - W x0)          equal to ZIP's eq. 11 for g = 1 and W = A^+A

A switch says how much, at each timestep. With a projection and g = 1 the range part is exactly
the received one's; with a weighted sum it is drawn towards it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from zipstage.transforms import Images, Transform


@runtime_checkable  # so that shape checks can run in tests
class Switch(Protocol):
    """When the constraint holds."""

    def strength(self, t: int, alpha_bar: float) -> float:
        """g_t in [0, 1], for the 0-based timestep t with alphas_cumprod `alpha_bar`."""
        ...


@dataclass(frozen=True, slots=True)
class HardSwitch:
    """The paper's: guided while t > lambda T, counted from 1 and strictly (ZIP, Algorithms 1 and 2).

    Args:
        lambda_: Stop fraction in [0, 1]; 0 guides to the end, 1 never.
        T: Steps of the schedule.
    """

    lambda_: float
    T: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.lambda_ <= 1:
            raise ValueError(f"hard switch: expected lambda from 0 to 1, found {self.lambda_}.")

    def strength(self, t: int, alpha_bar: float) -> float:
        # Rounded, because .29 * 100 is 28.999999999999996 and would let step 29 through.
        return 1.0 if t + 1 > round(self.lambda_ * self.T, 9) else 0.0


@dataclass(frozen=True, slots=True)
class SoftSwitch:
    """The authors' program's: g = 1 - a_t^p, near 1 while there is noise and falling to 0 at the end.

    Args:
        power: p, 0 or more; 0 never guides, a large one guides until late.
    """

    power: float

    def __post_init__(self) -> None:
        if self.power < 0:
            raise ValueError(f"soft switch: expected a power of 0 or more, found {self.power}.")

    def strength(self, t: int, alpha_bar: float) -> float:
        return float(1 - alpha_bar**self.power)


@dataclass(frozen=True, slots=True)
class Guidance:
    """What the result shall agree with the received image about, and when that is asked for."""

    transform: Transform
    switch: Switch

    def range_part(self, y: Images) -> Images:
        """W y, which is taken once for all steps."""
        return self.transform.apply(y)

    def correct(self, x0: Images, range_part: Images, t: int, alpha_bar: float) -> Images:
        """x0_hat: the predicted x0 with its range part drawn towards that of the received image.

        Args:
            x0: What the prior predicts at timestep t.
            range_part: W y.
            t: 0-based timestep.
            alpha_bar: Its alphas_cumprod.
        """
        g = self.switch.strength(t, alpha_bar)
        if g == 0:
            return x0  # spares the transform, and the rounding of adding nothing
        return x0 + g * (range_part - self.transform.apply(x0))
