"""How well a defence does: CA, ASR and PA, each a share with its 95 % interval.

Pure numpy on class indices. A prediction of -1 says that the classifier gave no answer: it counts
as asked, never as right and never as the attacker's. Shares of nothing are nan, not 0: an attack
success rate over no image would otherwise read like a perfect defence.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """A share that was counted: `hits` out of `total` images."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; nan when nothing was counted."""
        return self.hits / self.total if self.total else nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson_interval(self.hits, self.total)


def clean_accuracy(predictions: np.ndarray, labels: np.ndarray) -> Rate:
    """CA: the share of clean images that are answered with their class.

    Args:
        predictions: Answered class of each clean image, integers [n], -1 without an answer.
        labels: True class of each, integers [n].
    """
    _same_length(predictions, labels)
    return _rate(predictions == labels)


def attack_success_rate(predictions: np.ndarray, labels: np.ndarray, target: int) -> Rate:
    """ASR: the share of triggered images that are answered with the target.

    Images whose true class is the target are left out: there the target is the right answer.

    Args:
        predictions: Answered class of each triggered image, integers [n], -1 without an answer.
        labels: True class of each, integers [n].
        target: The class that the attacker wants.
    """
    _same_length(predictions, labels)
    return _rate(predictions[labels != target] == target)


def purified_accuracy(predictions: np.ndarray, labels: np.ndarray, target: int) -> Rate:
    """PA: the share of triggered images that are answered with their true class.

    Images whose true class is the target are left out: they would be right with the trigger at work.

    Args:
        predictions: Answered class of each purified triggered image, integers [n], -1 without an answer.
        labels: True class of each, integers [n].
        target: The class that the attacker wants.
    """
    _same_length(predictions, labels)
    others = labels != target
    return _rate(predictions[others] == labels[others])


def wilson_interval(hits: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), which holds near 0 and 1, where shares of defences lie.

    Returns:
        Its lower and upper end, 0 to 1; all of it when nothing was counted.

    Raises:
        ValueError: More hits than counted, or negative counts.
    """
    if not 0 <= hits <= total:
        raise ValueError(f"expected 0 <= hits <= total, found {hits} hits of {total}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # At the ends the formula gives exactly 0 and 1; floating point misses them by 1e-17.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == total else middle + half)


def _rate(is_hit: np.ndarray) -> Rate:
    return Rate(int(is_hit.sum()), len(is_hit))


def _same_length(predictions: np.ndarray, labels: np.ndarray) -> None:
    if predictions.shape != labels.shape:
        raise ValueError(f"expected one prediction a label, found {predictions.shape} and {labels.shape}")
