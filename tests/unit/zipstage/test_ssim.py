from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from zipstage.ssim import ssim_map


@pytest.mark.parametrize(("height", "width", "data_range"), [(32, 32, 1.0), (40, 96, 1.0), (32, 48, 255.0)])
def test_the_map_is_scikit_images(height, width, data_range):
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, height, width)) * data_range
    y = np.clip(x + rng.normal(0, 0.2 * data_range, x.shape), 0, data_range)
    y[:, :, 5:9, :3] = 0
    found = ssim_map(torch.from_numpy(x), torch.from_numpy(y), data_range).numpy()
    for ours, one, other in zip(found, x, y, strict=True):
        _, expected = structural_similarity(
            one, other, data_range=data_range, channel_axis=0, gaussian_weights=True, sigma=1.5, full=True
        )
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def test_an_image_is_like_itself_and_float32_is_enough_to_say_so():
    x = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ssim_map(x, x), torch.ones_like(x, dtype=torch.float64))
    assert float(ssim_map(x, 1 - x).min()) < -0.5
