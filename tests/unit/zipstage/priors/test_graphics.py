from __future__ import annotations

import torch

from zipstage.priors.graphics import with_graphics


def views(count: int = 300, size: int = 32) -> torch.Tensor:
    """Gray ones, so that any colour was drawn."""
    gray = torch.rand((count, 1, 1, 1), generator=torch.Generator().manual_seed(1)) - 0.5
    return gray.expand(count, 3, size, size)


def drawn(share: float, size: int = 32, seed: int = 0) -> torch.Tensor:
    return with_graphics(views(size=size), share, torch.Generator().manual_seed(seed))


def test_only_the_share_that_was_asked_for_is_drawn_on() -> None:
    changed = (drawn(0.4) != views()).flatten(1).any(1)
    assert 0.33 < float(changed.float().mean()) < 0.47
    assert torch.equal(drawn(0.0), views())


def test_what_is_drawn_stays_within_the_range_of_images_at_any_size() -> None:
    for size in (32, 64):
        images = drawn(1.0, size)
        assert images.shape == (300, 3, size, size)
        assert -1 <= float(images.min()) <= float(images.max()) <= 1


def test_the_same_generator_draws_the_same() -> None:
    assert torch.equal(drawn(1.0), drawn(1.0))
    assert not torch.equal(drawn(1.0), drawn(1.0, seed=1))


def test_objects_have_areas_of_one_strong_colour() -> None:
    images = drawn(1.0)
    colourful = images.amax(1) - images.amin(1) > 0.2
    flat = torch.zeros_like(colourful)
    flat[:, :, 1:] = (images.diff(dim=3).abs().amax(1) < 0.05) & colourful[:, :, 1:]
    assert float((flat.float().mean((1, 2)) > 0.05).float().mean()) > 0.25  # one image in four, at least
