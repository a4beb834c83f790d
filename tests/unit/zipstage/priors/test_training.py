from __future__ import annotations

import numpy as np
import pytest
import torch

from zipstage.errors import PriorError, SettingsError
from zipstage.priors.damage import block_damage, random_damage, random_masks, random_views, set_contrast
from zipstage.priors.recipe import Recipe
from zipstage.priors.spotter import PatchSpotter
from zipstage.priors.training import losses_by_noise, read_checkpoint, train_restorer, train_spotter


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _images(count, side=32, seed=0):
    """Smooth colour fields: what little a tiny network can learn."""
    coarse = np.random.default_rng(seed).random((count, 3, 4, 4), dtype=np.float32)
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(coarse), (side, side), mode="bicubic")
    return (enlarged * 255).clamp(0, 255).to(torch.uint8)


def test_training_lowers_the_loss(tmp_path):
    images = _images(64)
    shape = {
        "width": 8,
        "depths": (1, 1, 1),
        "batch": 16,
        "learning_rate": 0.05,
        "large_views": 0.0,
        "feature_weight": 0.0,
    }
    untrained = train_restorer([images], None, Recipe(images=16, **shape), tmp_path / "a.pt", lambda _: None)
    before = losses_by_noise(untrained, images[:16])
    trained = train_restorer([images], None, Recipe(images=1200, **shape), tmp_path / "b.pt", lambda _: None)
    after = losses_by_noise(trained, images[:16])
    assert after["0.4"] < 0.9 * before["0.4"]
    assert after["0.7"] < 0.9 * before["0.7"]


def test_a_network_that_is_trained_on_blocks_undoes_them(tmp_path):
    images = _images(64)
    shape = {"width": 8, "depths": (1, 1, 1), "batch": 16, "large_views": 0.0, "feature_weight": 0.0, "blocks": 4}
    recipe = Recipe(images=2400, learning_rate=0.05, **shape)
    network = train_restorer([images], None, recipe, tmp_path / "b.pt", lambda _: None)
    sample = block_damage(images[:16].float() / 127.5 - 1, 4)
    with torch.inference_mode():
        restored = network(sample.damaged, sample.sigma_white, sample.sigma_smooth, sample.mask)
    before, after = ((found - sample.clean).abs().mean() for found in (sample.damaged, restored))
    assert float(after) < 0.7 * float(before)


def test_a_checkpoint_tells_what_was_seen(tmp_path):
    recipe = Recipe(width=8, depths=(1, 1, 1), images=32, batch=16, feature_weight=0.0)
    seen = []
    network = train_restorer([_images(8)], None, recipe, tmp_path / "r.pt", seen.append)
    checkpoint = read_checkpoint(tmp_path / "r.pt")
    assert checkpoint.seen == seen[-1].images == 32
    assert all(torch.equal(checkpoint.averaged[name], value) for name, value in network.state_dict().items())


def test_a_spotter_goes_on_from_the_one_it_is_given(tmp_path):
    recipe = Recipe(batch=16, spotter_images=16, spotter_graphics=0.5)  # one step, of a rate that still warms up
    torch.manual_seed(9)
    given = PatchSpotter()
    went_on = train_spotter(_images(8), recipe, tmp_path / "a.pt", lambda _: None, start=given)
    anew = train_spotter(_images(8), recipe, tmp_path / "b.pt", lambda _: None)
    start = given.stem.weight
    assert not torch.equal(went_on.stem.weight, start)
    assert torch.allclose(went_on.stem.weight, start, atol=1e-4)
    assert not torch.allclose(anew.stem.weight, start, atol=1e-2)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PriorError, match=r"r.pt: no such file"):
        read_checkpoint(tmp_path / "r.pt")


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 1), ("large_views", 1.5), ("width", 0), ("images", 0), ("depths", (1, 0, 1)), ("blocks", 3)],
)
def test_a_recipe_out_of_range_is_refused_by_field(field, value):
    with pytest.raises(SettingsError, match=rf"recipe.{field}: expected"):
        Recipe(**{field: value})


def test_contrast_is_set_and_can_be_undone():
    x = _images(4).float() / 127.5 - 1
    normal, mean, scale = set_contrast(x)
    assert torch.allclose(normal.mean((1, 2, 3)), torch.zeros(4), atol=1e-5)
    assert torch.allclose(normal.std((1, 2, 3), correction=0), torch.full((4,), 0.5), atol=1e-5)
    assert torch.allclose(normal * scale + mean, x, atol=1e-5)


def test_a_flat_image_is_not_blown_up():
    normal, _, _ = set_contrast(torch.full((1, 3, 8, 8), 0.3) + 1e-4 * torch.randn(1, 3, 8, 8))
    assert normal.abs().max() < 0.01


def test_views_are_crops_of_the_images_they_name():
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 32, 32) * 60
    views, index = random_views(images, 32, 32, torch.Generator().manual_seed(0))
    assert torch.allclose(views, (index[:, None, None, None] * 60 / 127.5 - 1).expand_as(views).float(), atol=1e-5)


def test_what_is_hidden_is_zero_and_diffusion_samples_carry_white_noise_alone():
    views = _images(256).float() / 127.5 - 1
    sample = random_damage(views, torch.Generator().manual_seed(0))
    assert not (sample.damaged * (1 - sample.mask)).any()
    strong = sample.sigma_white > 0.7
    assert 0 < int(strong.sum()) < 64
    assert not sample.sigma_smooth[strong].any()
    assert sample.mask[strong].all()
    assert torch.equal(sample.clean[strong], views[strong])


def test_masks_hide_something_but_never_all():
    hidden = 1 - random_masks(200, 32, torch.Generator().manual_seed(0), torch.device("cpu")).mean((1, 2, 3))
    assert (hidden > 0).all()
    assert (hidden < 0.9).all()
