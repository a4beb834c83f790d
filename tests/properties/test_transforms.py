"""The laws of the projections, and that a weighted sum has them not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zipstage.transforms import BlockMean, Composition, DctLowPass, Gray, Transform, WeightedSum, transform_for

torch.set_num_threads(1)

PROJECTIONS = ["block_mean", "gray", "dct", "gray_block_mean", "gray_dct"]
scales = st.sampled_from([1, 2, 4, 8])
shares = st.floats(0.01, 1.0)
sides = st.sampled_from([8, 16, 24, 32, 40])
dtypes = st.sampled_from([torch.float32, torch.float64])


def draw(seed, height, width, dtype, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, 3, height, width), generator=generator, dtype=torch.float64).to(dtype)


def tolerance(dtype):
    return 1e-5 if dtype == torch.float32 else 1e-12


@pytest.mark.parametrize("name", PROJECTIONS)
@given(scales, shares, sides, sides, dtypes, st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_a_projection_is_idempotent_and_self_adjoint(name, scale, share, height, width, dtype, seed):
    projection = transform_for(name, scale=scale, share=share)
    x, y = draw(seed, height, width, dtype), draw(seed + 1, height, width, dtype)
    px, py = projection.apply(x), projection.apply(y)
    assert projection.is_projection
    assert px.dtype == dtype
    assert px.shape == x.shape
    assert torch.allclose(projection.apply(px), px, rtol=0, atol=tolerance(dtype))
    scale_of_products = float(x.norm() * y.norm())
    assert abs(float((px * y).sum() - (x * py).sum())) < tolerance(dtype) * scale_of_products


@pytest.mark.parametrize("name", PROJECTIONS)
@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=10)
def test_a_projection_splits_an_image_at_a_right_angle(name, seed):
    projection = transform_for(name, scale=4)
    x = draw(seed, 16, 24, torch.float64)
    px = projection.apply(x)
    assert abs(float((px * (x - px)).sum())) < 1e-9
    assert 0 < float(px.norm()) < float(x.norm())


@given(st.sampled_from([2, 4, 8]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_a_weighted_sum_is_self_adjoint_and_not_idempotent(scale, seed):
    total = transform_for("two", scale=scale)
    x, y = draw(seed, 16, 16, torch.float64), draw(seed + 1, 16, 16, torch.float64)
    wx = total.apply(x)
    assert not total.is_projection
    assert abs(float((wx * y).sum() - (x * total.apply(y)).sum())) < 1e-9
    assert float((total.apply(wx) - wx).norm()) > 1e-2 * float(x.norm())


@given(st.integers(0, 2**31), scales, sides, sides)
@settings(deadline=None, max_examples=20)
def test_block_mean_is_what_numpy_says(seed, scale, height, width):
    x = draw(seed, height, width, torch.float64)
    blocks = x.numpy().reshape(2, 3, height // scale, scale, width // scale, scale)
    expected = np.broadcast_to(blocks.mean((3, 5), keepdims=True), blocks.shape).reshape(x.shape)
    np.testing.assert_allclose(BlockMean(scale).apply(x).numpy(), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]), sides, sides)
@settings(deadline=None, max_examples=20)
def test_the_dct_low_pass_is_what_scipy_says(seed, share, height, width):
    x = draw(seed, height, width, torch.float64)
    coefficients = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    coefficients[:, :, max(1, round(share * height)) :] = 0
    coefficients[:, :, :, max(1, round(share * width)) :] = 0
    expected = scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(DctLowPass(share).apply(x).numpy(), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 2**31), scales)
@settings(deadline=None, max_examples=10)
def test_the_order_of_a_composition_changes_nothing(seed, scale):
    x = draw(seed, 16, 16, torch.float64)
    one, other = Composition((Gray(), BlockMean(scale))), Composition((BlockMean(scale), Gray()))
    assert torch.allclose(one.apply(x), other.apply(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (transform_for("two", scale=4), "0.5 Gray() + 0.5 BlockMean(scale=4)"),
        (transform_for("dct", share=0.25), "DctLowPass(share=0.25)"),
    ],
)
def test_a_transform_names_its_bands_and_weights(transform, words):
    assert repr(transform) == words
    assert isinstance(transform, Transform)


def test_block_mean_refuses_sides_it_does_not_divide():
    with pytest.raises(ValueError, match="multiples of it, found 32x33"):
        BlockMean(2).apply(torch.zeros(1, 3, 32, 33))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BlockMean(0), "scale of 1 or more, found 0"),
        (lambda: DctLowPass(0.0), "found 0.0"),
        (lambda: DctLowPass(1.5), "found 1.5"),
        (lambda: Composition((BlockMean(2), DctLowPass(0.5))), "need not commute"),
        (lambda: WeightedSum(((0.5, Gray()),)), "add up to 1, found"),
        (lambda: WeightedSum(((0.7, Gray()), (0.7, BlockMean(2)))), "add up to 1, found"),
        (lambda: transform_for("blurr"), "expected block_mean"),
    ],
)
def test_what_can_not_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_block_mean_and_dct_do_not_commute_so_their_product_is_no_projection():
    x = draw(0, 16, 16, torch.float64)
    block, low = BlockMean(4), DctLowPass(0.3)
    product = low.apply(block.apply(x))
    assert float((low.apply(block.apply(product)) - product).norm()) > 1e-3
