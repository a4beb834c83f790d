"""Whatever an image is turned into, it is decoded within the limits or refused in one line."""

from __future__ import annotations

from fuzzing import check_image, image_seeds, mutated_images
from hypothesis import given, settings


@given(mutated_images())
@settings(deadline=None, max_examples=400)
def test_a_mutated_image_is_decoded_within_the_limits_or_refused(pair: tuple[bytes, bytes]):
    check_image(pair[1])


def test_each_seed_does_as_well_as_it_is():
    assert sum(check_image(seed) for seed in image_seeds()) > 30
