"""Means over the attacks: the two figures by which defences are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jobs.evaluate.run import Cell


def mean_pa(cells: Iterable[Cell]) -> float:
    """PA, averaged over attacks; cells without a backdoor don't count."""
    return mean(cell.outcome.pa.value for cell in cells if cell.outcome.pa)


def mean_excess(cells: Iterable[Cell]) -> float:
    """Excess ASR, averaged over attacks; cells without a backdoor don't count."""
    return mean(cell.outcome.excess.value for cell in cells if cell.outcome.excess)


def mean(values: Iterable[float]) -> float:
    """The mean; nan of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
