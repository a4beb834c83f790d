"""What guidance fixes is exactly the range part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zipstage.guidance import Guidance, HardSwitch, SoftSwitch
from zipstage.noise import normal_streams
from zipstage.priors.base import from_eps, from_v, from_x0
from zipstage.samplers import ddim, ddpm, few, last, leading_timesteps
from zipstage.schedule import schedule
from zipstage.transforms import transform_for

torch.set_num_threads(1)

PROJECTIONS = ["block_mean", "gray", "dct", "gray_block_mean", "gray_dct"]
seeds = st.integers(0, 2**31)


class WrongPrior:
    """A prior that knows nothing of the image: the constraint has to hold whatever it says."""

    digest, canvas = "wrong", False

    def __init__(self, T=1000):
        self.T = T

    def predict(self, x_t, t):
        return from_x0(x_t, torch.tanh(3 * x_t.roll(1, -1)), schedule(self.T).alpha_bar(t))


def draw(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((2, 3, 16, 16), generator=generator, dtype=dtype) * 2 - 1


def noise(seed, dtype=torch.float32):
    keys = torch.tensor([[seed, 1], [seed, 2]]).numpy().astype("uint64")
    return (draw.to(dtype) for draw in normal_streams(keys, (3, 16, 16)))


def sampled(sampler, y, guidance, seed):
    draws = noise(seed, y.dtype)
    if sampler == "ddpm":
        return last(ddpm(WrongPrior(50), y, guidance, draws, schedule=schedule(50)))
    if sampler == "ddim":
        steps = ddim(WrongPrior(), y, guidance, draws, schedule=schedule(), timesteps=leading_timesteps(10))
        return last(steps)
    return last(few(WrongPrior(), y, guidance, draws, schedule=schedule(), timesteps=(350, 200), start=y))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "few"])
@pytest.mark.parametrize("name", PROJECTIONS)
@given(seeds)
@settings(deadline=None, max_examples=4)
def test_with_a_hard_constraint_to_the_end_the_range_part_is_the_received_one(sampler, name, seed):
    projection = transform_for(name)
    y = draw(seed)
    T = 50 if sampler == "ddpm" else 1000
    x = sampled(sampler, y, Guidance(projection, HardSwitch(0.0, T)), seed)
    assert float((projection.apply(x) - projection.apply(y)).abs().max()) < 1e-5
    assert float((x - y).abs().max()) > 0.1  # the null-space part is the prior's


@pytest.mark.parametrize("name", PROJECTIONS)
@given(seeds)
@settings(deadline=None, max_examples=10)
def test_guidance_leaves_the_null_space_part_to_the_prior(name, seed):
    projection = transform_for(name)
    y, x0 = draw(seed, torch.float64), draw(seed + 1, torch.float64)
    guidance = Guidance(projection, HardSwitch(0.0))
    x0_hat = guidance.correct(x0, guidance.range_part(y), 500, 0.1)
    assert torch.allclose(projection.apply(x0_hat), projection.apply(y), rtol=0, atol=1e-12)
    assert torch.allclose(x0_hat - projection.apply(x0_hat), x0 - projection.apply(x0), rtol=0, atol=1e-12)


@given(st.integers(0, 999), st.integers(1, 1000))
@settings(deadline=None, max_examples=100)
def test_the_hard_switch_counts_from_one_and_is_strict(t, stop):
    # Fractions that floats can't hold (.29 * 100) must not shift the last guided step.
    assert HardSwitch(stop / 1000, 1000).strength(t, 0.5) == (1.0 if t + 1 > stop else 0.0)


def test_the_hard_switch_of_29_hundredths_stops_at_step_29():
    assert [HardSwitch(0.29, 100).strength(t, 0.5) for t in (28, 29)] == [0.0, 1.0]


@given(st.floats(0, 20), st.floats(1e-5, 1.0))
@settings(deadline=None, max_examples=50)
def test_the_soft_switch_lies_between_none_and_all(power, alpha_bar):
    assert 0 <= SoftSwitch(power).strength(3, alpha_bar) <= 1
    assert SoftSwitch(0.0).strength(3, alpha_bar) == 0


@pytest.mark.parametrize("make", [lambda: HardSwitch(1.5), lambda: HardSwitch(-0.1), lambda: SoftSwitch(-1.0)])
def test_a_switch_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


@given(seeds, st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_eps_x0_and_v_say_the_same(seed, t):
    a = schedule().alpha_bar(t)
    x0, eps = draw(seed, torch.float64), draw(seed + 1, torch.float64)
    x_t = a**0.5 * x0 + (1 - a) ** 0.5 * eps
    v = a**0.5 * eps - (1 - a) ** 0.5 * x0
    for prediction in (from_eps(x_t, eps, a), from_x0(x_t, x0, a), from_v(x_t, v, a)):
        assert torch.allclose(prediction.x0, x0, rtol=0, atol=1e-10)
        assert torch.allclose(prediction.eps, eps, rtol=0, atol=1e-10)
