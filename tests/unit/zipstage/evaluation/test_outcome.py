"""Outcomes: what is counted, what is left out, and intervals that pair and don't count an image twice."""

from __future__ import annotations

import numpy as np
import pytest

from zipstage.evaluation.metrics import wilson_interval
from zipstage.evaluation.outcome import Answers, difference_of, mean_of, outcome_of

LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
TARGET = 1


def answers(clean: list[int], triggered: list[int] | None = None) -> Answers:
    return Answers(np.array([clean]), None if triggered is None else np.array([triggered]))


def test_the_figures_of_a_small_case_counted_by_hand() -> None:
    received = answers([0, 0, 1, 1, 2, 2, 3, 0], [1, 1, 1, 1, 1, 1, 1, 1])
    purified = answers([0, 1, 1, 1, 2, 2, 0, 0], [0, 1, 1, 0, 2, 1, 3, 1])
    outcome = outcome_of(LABELS, TARGET, purified, received)
    assert outcome.ca.value == 5 / 8
    assert outcome.ca_lost.value == pytest.approx(7 / 8 - 5 / 8)
    assert outcome.asr is not None
    assert outcome.asr.value == 3 / 6  # of the six images whose class isn't the target
    assert outcome.asr.images == 6
    assert outcome.excess is not None
    assert outcome.excess.value == pytest.approx(3 / 6 - 1 / 6)
    assert outcome.pa is not None
    assert outcome.pa.value == 3 / 6
    assert outcome.pa_of_all is not None
    assert outcome.pa_of_all.value == 4 / 8  # with the target's own images, as the papers count
    assert outcome.pa_kept == pytest.approx((3 / 6) / (7 / 8))


def test_a_victim_without_a_backdoor_has_accuracies_alone() -> None:
    outcome = outcome_of(LABELS, TARGET, answers([0] * 8), answers([0] * 8))
    assert outcome.ca.value == 2 / 8
    assert outcome.ca_lost.value == 0
    assert outcome.asr is outcome.excess is outcome.pa is None


def test_one_seed_of_yes_and_no_gets_wilsons_interval() -> None:
    hits = np.arange(200)[None] < 30
    mean = mean_of(hits)
    assert (mean.low, mean.high) == wilson_interval(30, 200)


def test_a_seed_that_repeats_another_makes_no_interval_narrower() -> None:
    generator = np.random.default_rng(1)
    once = generator.random((1, 400)) < 0.3
    thrice = np.repeat(once, 3, axis=0)
    one, three = mean_of(once), mean_of(thrice)
    assert three.value == one.value
    assert three.images == one.images == 400
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_bootstrap_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        values = generator.normal(0.2, 1, (1, 150))
        mean = mean_of(values)
        covered += mean.low <= 0.2 <= mean.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_paired_difference_is_narrower_than_two_means_apart() -> None:
    generator = np.random.default_rng(3)
    hard = generator.random(1000)
    one, other = (hard < 0.7)[None], (hard < 0.68)[None]
    difference = difference_of(one, other)
    assert difference.value == pytest.approx(one.mean() - other.mean())
    assert difference.low > 0
    assert mean_of(one).low < mean_of(other).high  # apart, the two could not be told from each other


def test_no_images_give_a_figure_that_is_none() -> None:
    assert np.isnan(mean_of(np.zeros((1, 0), bool)).value)


def test_the_first_images_pair_what_was_run_on_fewer() -> None:
    some = answers([0, 1, 2], [1, 1, 1]).first(2)
    assert some.clean.shape == (1, 2)
    assert some.triggered is not None
    assert some.triggered.shape == (1, 2)
