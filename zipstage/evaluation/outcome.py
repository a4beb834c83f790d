"""What a defence came to against one attack: CA, ASR, PA and excess ASR, each with its 95 % interval.

Paired throughout: the same test images clean and triggered, received and purified, and with each
seed of the purifier. An image counts once: its values under several seeds are averaged first, so that
more seeds make a figure steadier and never look like more images.

Axes: s seeds of the purifier, n test images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zipstage.evaluation.metrics import wilson_interval

RESAMPLES = 2_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over images, as a share (or a difference of shares), with its 95 % interval."""

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, slots=True)
class Answers:
    """A victim's answers to the same test images under one defence.

    Args:
        clean: Classes answered for the clean images, int64 [s, n].
        triggered: The same for the images with the trigger; none for a victim without a backdoor.
    """

    clean: np.ndarray
    triggered: np.ndarray | None = None

    def first(self, images: int) -> Answers:
        """Those for the first images alone: what pairs a defence that was run on fewer."""
        return Answers(self.clean[:, :images], None if self.triggered is None else self.triggered[:, :images])


@dataclass(frozen=True, slots=True)
class Outcome:
    """One defence against one victim.

    Args:
        ca: Accuracy on clean images.
        ca_lost: What it lost against the same images as received.
        asr: Share of triggered images of other classes that are answered with the target; none without a backdoor.
        excess: ASR less the share of the same images, clean and purified, that are answered with the target.
        pa: Accuracy on triggered images of other classes.
        pa_of_all: The same with the target's own images in it, as the papers count.
        pa_kept: PA over the accuracy on the same clean images as received.
    """

    ca: Mean
    ca_lost: Mean
    asr: Mean | None = None
    excess: Mean | None = None
    pa: Mean | None = None
    pa_of_all: Mean | None = None
    pa_kept: float | None = None


def outcome_of(labels: np.ndarray, target: int, purified: Answers, received: Answers) -> Outcome:
    """The figures of one defence.

    Args:
        labels: True classes, int64 [n].
        target: The attacker's class.
        purified: Answers under the defence.
        received: Answers to the same images as they came, one seed.
    """
    right = purified.clean == labels
    ca = mean_of(right)
    lost = mean_of((received.clean == labels).astype(float) - right.mean(0))
    if purified.triggered is None:
        return Outcome(ca, lost)
    others = labels != target
    hit, missed = purified.triggered[:, others] == target, purified.clean[:, others] == target
    pa = mean_of(purified.triggered[:, others] == labels[others])
    undefended = float((received.clean == labels).mean())
    return Outcome(
        ca,
        lost,
        asr=mean_of(hit),
        excess=mean_of(hit.astype(float) - missed),
        pa=pa,
        pa_of_all=mean_of(purified.triggered == labels),
        pa_kept=pa.value / undefended if undefended else None,
    )


def mean_of(values: np.ndarray) -> Mean:
    """The mean over images of what was found with each seed, [s, n].

    Wilson's interval where one seed gave yes or no, else a bootstrap over images (percentiles,
    always the same resamples).
    """
    by_image = values.astype(float).mean(0)
    count = len(by_image)
    if not count:
        return Mean(float("nan"), 0.0, 1.0, 0)
    if len(values) == 1 and values.dtype == bool:
        return Mean(float(by_image.mean()), *wilson_interval(int(by_image.sum()), count), count)
    low, high = _bootstrap(by_image)
    return Mean(float(by_image.mean()), low, high, count)


def difference_of(one: np.ndarray, other: np.ndarray) -> Mean:
    """The paired difference of two defences, image by image; each [s, n], with seeds of its own."""
    return mean_of((one.astype(float).mean(0) - other.astype(float).mean(0))[None])


def _bootstrap(by_image: np.ndarray) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    count = len(by_image)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 100):  # in portions: all indices at once would be 16 bytes an image and resample
        index = generator.integers(0, count, (100, count))
        means[start : start + 100] = by_image[index].mean(1)
    edge = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [edge, 100 - edge])
    return float(low), float(high)
