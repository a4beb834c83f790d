from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from zipstage.evaluation.metrics import (
    Rate,
    attack_success_rate,
    clean_accuracy,
    purified_accuracy,
    wilson_interval,
)

# Six images, target class 1: the third is of the target itself, the fifth was not answered.
LABELS = np.array([0, 0, 1, 2, 2, 3])
PREDICTIONS = np.array([0, 1, 1, 1, -1, 2])


def test_clean_accuracy_counts_each_right_answer():
    assert clean_accuracy(PREDICTIONS, LABELS) == Rate(2, 6)


def test_attack_success_leaves_out_images_of_the_target_class():
    assert attack_success_rate(PREDICTIONS, LABELS, target=1) == Rate(2, 5)


def test_purified_accuracy_leaves_out_images_of_the_target_class():
    assert purified_accuracy(PREDICTIONS, LABELS, target=1) == Rate(1, 5)


def test_no_answer_is_neither_right_nor_the_attackers():
    silent = np.full(6, -1)
    assert clean_accuracy(silent, LABELS).hits == 0
    assert attack_success_rate(silent, LABELS, target=1) == Rate(0, 5)


def test_a_share_of_nothing_is_no_number_and_could_be_anything():
    rate = attack_success_rate(np.array([1, 1]), np.array([1, 1]), target=1)
    assert math.isnan(rate.value)
    assert rate.interval == (0.0, 1.0)


def test_a_prediction_too_few_is_refused():
    with pytest.raises(ValueError, match="one prediction a label"):
        clean_accuracy(PREDICTIONS[:5], LABELS)


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (1, 1), (0, 300), (3, 300), (150, 300), (299, 300), (450, 450)])
def test_wilson_agrees_with_scipy(hits, total):
    expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_widens_with_the_confidence():
    expected = binomtest(7, 40).proportion_ci(0.99, method="wilson")
    assert wilson_interval(7, 40, confidence=0.99) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="5 hits of 4"):
        wilson_interval(5, 4)
