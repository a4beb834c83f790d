"""How well triggered images are told from clean ones by what purification shows, without a second look at the data.

An image's suspicion is a number; what it is worth is its AUROC, and how many triggered images it
catches at a threshold that was set on other attacks and other victims. A threshold that was set on
the same victim would be one that nobody has who doesn't know the attack.

Axes: n images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FALSE_POSITIVES = 0.05


@dataclass(frozen=True, slots=True)
class Shown:
    """What was seen of one victim's images.

    Args:
        attack: The victim's.
        victim: Which one; two victims of an attack have two names.
        clean: A score for each clean image, [n]; higher is more suspect.
        triggered: A score for each triggered one, [n].
    """

    attack: str
    victim: str
    clean: np.ndarray
    triggered: np.ndarray


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a score tells one victim's triggered images from its clean ones.

    Args:
        attack, victim: Whose.
        auroc: 1 tells all, .5 none.
        true_positives: Share of triggered images above the threshold.
        false_positives: Share of clean images above it: what the threshold came to here.
    """

    attack: str
    victim: str
    auroc: float
    true_positives: float
    false_positives: float


def auroc(clean: np.ndarray, triggered: np.ndarray) -> float:
    """The chance that a triggered image's score is above a clean one's; ties count half.

    Args:
        clean: Scores of clean images, [n].
        triggered: Scores of triggered ones, of any number.
    """
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, triggered, "left")
    not_above = np.searchsorted(ordered, triggered, "right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def detections(shown: Sequence[Shown], false_positives: float = FALSE_POSITIVES) -> list[Detection]:
    """What a score is worth against each victim, the threshold set on all others with other attacks.

    Args:
        shown: Scores of each victim's images, of at least two attacks.
        false_positives: Share of the others' clean images that may be above the threshold.

    Raises:
        ValueError: A victim for which no other attack was shown.
    """
    found = []
    for one in shown:
        others = [other.clean for other in shown if other.attack != one.attack and other.victim != one.victim]
        if not others:
            raise ValueError(f"{one.victim}: expected a victim of another attack to set a threshold on, found none")
        threshold = threshold_at(np.concatenate(others), false_positives)
        caught, blamed = (one.triggered > threshold).mean(), (one.clean > threshold).mean()
        score = auroc(one.clean, one.triggered)
        found.append(Detection(one.attack, one.victim, score, float(caught), float(blamed)))
    return found


def threshold_at(clean: np.ndarray, false_positives: float) -> float:
    """The lowest of the clean images' scores that at most so large a share of them is above."""
    return float(np.quantile(clean, 1 - false_positives, method="higher"))
