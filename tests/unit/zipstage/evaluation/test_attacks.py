"""Triggers: where they are, how strong, and that a seed decides what differs between images."""

from __future__ import annotations

import numpy as np
import pytest

from zipstage.errors import SettingsError
from zipstage.evaluation.attacks import ATTACKS, LowFrequency, PhysicalBA, Sig, Square, WaNet, attack_of


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    axis = np.linspace(0, 3, 32)
    waves = 127 + 60 * np.sin(axis[:, None] * np.arange(1, 9)[:, None, None]) * np.cos(axis)
    return np.repeat(waves[..., None], 3, axis=3).astype(np.uint8)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_each_image_and_leaves_the_given_ones(name: str, images: np.ndarray) -> None:
    given = images.copy()
    stamped = attack_of(name).stamp(images, 5)
    assert stamped.shape == images.shape
    assert stamped.dtype == np.uint8
    assert (stamped != images).reshape(len(images), -1).any(1).all()
    np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_stamps_the_same_bytes(name: str, images: np.ndarray) -> None:
    attack = attack_of(name)
    np.testing.assert_array_equal(attack.stamp(images, 5), attack.stamp(images, 5))
    np.testing.assert_array_equal(attack.prepare(images, 5), attack.prepare(images, 5))


def test_only_the_physical_attack_differs_with_the_seed(images: np.ndarray) -> None:
    differing = [
        name
        for name in ATTACKS
        if not np.array_equal(attack_of(name).stamp(images, 1), attack_of(name).stamp(images, 2))
    ]
    assert differing == ["physicalba"]


def test_the_physical_attack_without_geometry_and_light_is_the_patch(images: np.ndarray) -> None:
    still = PhysicalBA(degrees=0, shift=0, scale=(1, 1), light=0)
    np.testing.assert_array_equal(still.stamp(images, 3), attack_of("badnet").stamp(images, 3))


def test_the_physical_attack_lets_no_black_rim_in() -> None:
    bright = np.full((16, 32, 32, 3), 200, np.uint8)
    stamped = PhysicalBA().stamp(bright, 1)
    assert stamped[:, :16, :16].min() >= 200 * 0.8 - 1


def test_the_warp_moves_by_its_strength_and_a_cover_moves_otherwise() -> None:
    ramp = np.broadcast_to((np.arange(32) * 8).astype(np.uint8)[None, None, :, None], (1, 32, 32, 3))
    moved = (WaNet(strength=0.5).stamp(ramp, 0).astype(float) - ramp)[:, 4:-4, 4:-4] / 8
    assert 0.1 < np.abs(moved).mean() < 0.6  # in pixels: half a pixel at the control points, less between them
    cover = WaNet(strength=0.5).cover(ramp, 0)
    assert not np.array_equal(cover, WaNet(strength=0.5).stamp(ramp, 0))


def test_the_sine_has_its_amplitude_and_trains_with_a_weaker_one() -> None:
    gray = np.full((1, 32, 32, 3), 128, np.uint8)
    tested, trained = Sig(amplitude=30).stamp(gray, 0), Sig(amplitude=30).prepare(gray, 0)
    assert np.abs(tested.astype(int) - 128).max() == pytest.approx(30, abs=1)
    assert np.abs(trained.astype(int) - 128).max() == pytest.approx(20, abs=1)


def test_the_low_frequency_field_survives_a_low_pass() -> None:
    gray = np.full((1, 32, 32, 3), 128, np.uint8)
    field = LowFrequency(amplitude=30).stamp(gray, 0)[0].astype(float) - 128
    halved = field.reshape(16, 2, 16, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    assert np.abs(field).max() == pytest.approx(30, abs=1)
    assert np.abs(field - halved).mean() < 0.1 * np.abs(field).mean()


def test_a_square_grows_with_the_image() -> None:
    stamped = Square(colour=(255, 0, 255)).stamp(np.zeros((1, 64, 64, 3), np.uint8), 0)
    assert (stamped[0, 52:58, 52:58] == (255, 0, 255)).all()
    assert np.count_nonzero(stamped[..., 0]) == 36


def test_a_name_or_parameter_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="badnet"):
        attack_of("badnets")
    with pytest.raises(SettingsError, match="strength"):
        attack_of("wanet", {"strenght": 1.0})
