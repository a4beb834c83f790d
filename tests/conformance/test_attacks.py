"""The triggers that the ZIP authors' set-up defines number for number, against what their program gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zipstage.evaluation.attacks import BadNet, Blended

GOLDEN = np.load(Path(__file__).parent / "golden/attacks/attacks.npz")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def test_badnet_pastes_the_authors_patch_with_a_margin_of_three() -> None:
    stamped = BadNet().stamp(IMAGES)
    patch = GOLDEN["badnet_patch_32"].transpose(1, 2, 0)
    np.testing.assert_array_equal(stamped[:, 26:29, 26:29], np.stack([patch, patch]))
    stamped[:, 26:29, 26:29] = IMAGES[:, 26:29, 26:29]
    np.testing.assert_array_equal(stamped, IMAGES)


def test_badnet_pastes_the_larger_patch_on_a_larger_image() -> None:
    stamped = BadNet().stamp(np.zeros((1, 256, 256, 3), np.uint8))
    np.testing.assert_array_equal(stamped[0, 244:253, 244:253], GOLDEN["badnet_patch_256"].transpose(1, 2, 0))
    assert not stamped[0, :244].any()


@pytest.mark.parametrize("gray", [0, 127, 255])
def test_blended_adds_the_authors_gray_noise_and_truncates(gray: int) -> None:
    pattern = GOLDEN["blended_pattern_32"].transpose(1, 2, 0)
    exact = (np.float32(0.8) * np.float32(gray) + np.float32(0.2) * pattern.astype(np.float32)).astype(np.uint8)
    stamped = Blended().stamp(np.full((1, 32, 32, 3), gray, np.uint8))
    assert np.abs(stamped[0].astype(int) - exact).max() <= 1  # 1 - .2 in float32 is not .8
    assert (stamped[0] == exact).mean() > 0.99


def test_both_give_the_authors_poisoned_image() -> None:
    clean = _unpoisoned()
    for attack, golden in ((BadNet(), "badnet_out_32"), (Blended(), "blended_out_32")):
        poisoned = GOLDEN[golden].transpose(1, 2, 0)
        stamped = attack.stamp(clean[None])[0]
        if golden == "badnet_out_32":
            np.testing.assert_array_equal(stamped, poisoned)
        else:
            known = np.ones((32, 32), bool)
            known[26:29, 26:29] = False  # the clean image was read back from the patched one
            np.testing.assert_array_equal(stamped[known], poisoned[known])


def _unpoisoned() -> np.ndarray:
    """The golden's image: BadNet leaves all but its nine pixels."""
    clean: np.ndarray = GOLDEN["badnet_out_32"].transpose(1, 2, 0).copy()
    return clean
