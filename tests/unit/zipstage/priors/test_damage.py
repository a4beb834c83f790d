from __future__ import annotations

import torch

from zipstage.priors.damage import FOCUSED, WIDE, Strengths, random_damage, random_patches, set_contrast


def views(count: int = 400) -> torch.Tensor:
    return torch.rand((count, 3, 1, 1), generator=torch.Generator().manual_seed(1)).expand(count, 3, 32, 32) - 0.5


def test_about_a_third_of_the_views_get_a_patch_and_the_rest_of_each_stays() -> None:
    patched = random_patches(views(), torch.Generator().manual_seed(0))
    changed = (patched != views()).any(1).flatten(1).sum(1)
    assert 0.28 < float((changed > 0).float().mean()) < 0.44
    assert int(changed.max()) <= 2 * 25  # two patches of at most 5x5 at 32 px


def test_the_network_is_asked_for_the_view_without_its_patch() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = random_damage(views(), generator)
    # Views of one colour: whatever was pasted, each clean target is of one colour as well.
    spread = sample.clean.flatten(2).amax(2) - sample.clean.flatten(2).amin(2)
    assert float(spread.max()) < 1e-5


def test_contrast_is_set_to_mean_nought_and_deviation_a_half_and_undone() -> None:
    images = torch.rand((8, 3, 16, 16), generator=torch.Generator().manual_seed(2)) * 2 - 1
    set_, mean, scale = set_contrast(images)
    assert torch.allclose(set_.mean((1, 2, 3)), torch.zeros(8), atol=1e-6)
    assert torch.allclose(set_.square().mean((1, 2, 3)).sqrt(), torch.full((8,), 0.5), atol=1e-5)
    assert torch.allclose(set_ * scale + mean, images, atol=1e-6)


def test_a_flat_image_is_not_blown_up() -> None:
    set_, _, _ = set_contrast(torch.full((1, 3, 8, 8), 0.3))
    assert float(set_.abs().max()) < 1e-5


def test_focused_damage_has_mostly_the_noise_levels_that_the_settings_have() -> None:
    def share_within(strengths: Strengths) -> float:
        sigma = random_damage(views(2000), torch.Generator().manual_seed(0), strengths=strengths).sigma_white
        return float(((sigma > 0.06) & (sigma < 0.25)).float().mean())

    assert share_within(WIDE) < 0.5
    assert share_within(FOCUSED) > 0.65
