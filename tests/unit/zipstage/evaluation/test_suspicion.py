from __future__ import annotations

import numpy as np
import pytest

from zipstage.evaluation.suspicion import Shown, auroc, detections, threshold_at


def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_counted_half() -> None:
    generator = np.random.default_rng(0)
    clean, triggered = generator.integers(0, 9, 70), generator.integers(3, 12, 50)
    pairs = [(t > c) + 0.5 * (t == c) for t in triggered for c in clean]
    assert auroc(clean, triggered) == pytest.approx(np.mean(pairs))


def test_scores_that_say_nothing_and_all_are_one_half_and_one() -> None:
    assert auroc(np.zeros(5), np.zeros(7)) == 0.5
    assert auroc(np.zeros(5), np.ones(7)) == 1.0


def test_at_most_the_wanted_share_of_clean_images_is_above_the_threshold() -> None:
    scores = np.random.default_rng(1).random(999)
    assert (scores > threshold_at(scores, 0.05)).mean() <= 0.05
    ties = np.array([0.0] * 90 + [1.0] * 10)  # a flip is such a score: it can't be had at 5 %
    assert (ties > threshold_at(ties, 0.05)).mean() == 0.0


def test_a_threshold_never_sees_the_attack_or_the_victim_that_it_judges() -> None:
    low, high = np.linspace(0, 1, 100), np.linspace(10, 11, 100)
    shown = [
        Shown("patch", "a", low, low + 0.5),
        Shown("patch", "b", high, high),  # the same attack: its high scores set no threshold for the first
        Shown("warp", "c", low, low),
    ]
    first, second, third = detections(shown)
    assert first.false_positives == pytest.approx(0.04, abs=0.011)
    assert first.true_positives > 0.5
    assert second.false_positives == 1.0
    assert third.true_positives == pytest.approx(0.0)


def test_one_attack_alone_has_nothing_to_set_a_threshold_on() -> None:
    with pytest.raises(ValueError, match="another attack"):
        detections([Shown("patch", "a", np.zeros(3), np.zeros(3))])
