"""The samplers against diffusers' schedulers, and what they refuse."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from zipstage.guidance import Guidance, HardSwitch
from zipstage.priors.base import from_eps
from zipstage.samplers import ddim, ddpm, few, last, leading_timesteps, paper_timesteps
from zipstage.schedule import schedule
from zipstage.transforms import BlockMean

torch.set_num_threads(1)

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
NEVER, ALWAYS = HardSwitch(1.0), HardSwitch(0.0)


def network(x, t):
    return torch.tanh(x.roll(1, -1) + t / 1000)


class TanhPrior:
    digest, canvas = "tanh", False

    def __init__(self, T=1000):
        self.T, self.called_at = T, []

    def predict(self, x_t, t):
        self.called_at.append(t)
        return from_eps(x_t, network(x_t, t), schedule(self.T).alpha_bar(t))


class Bank:
    """Draws that can be looked up again."""

    def __init__(self, seed, count=60):
        generator = torch.Generator().manual_seed(seed)
        self.draws = [torch.randn((1, 3, 8, 8), generator=generator, dtype=torch.float64) for _ in range(count)]


Y = torch.linspace(-1, 1, 3 * 64, dtype=torch.float64).reshape(1, 3, 8, 8)


@pytest.mark.parametrize("num_steps", [1, 7, 20])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_unguided_ddim_is_that_of_diffusers(num_steps, eta):
    scheduler = DDIMScheduler(**LINEAR, timestep_spacing="leading", clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(num_steps)
    assert tuple(scheduler.timesteps.tolist()) == leading_timesteps(num_steps)
    bank = Bank(num_steps)
    x = bank.draws[0]
    for t, noise in zip(scheduler.timesteps.tolist(), bank.draws[1:], strict=False):
        x = scheduler.step(network(x, t), t, x, eta=eta, variance_noise=noise if eta else None).prev_sample
    found = last(
        ddim(TanhPrior(), Y, Guidance(BlockMean(2), NEVER), iter(bank.draws),
             schedule=schedule(), timesteps=leading_timesteps(num_steps), eta=eta)
    )  # fmt: skip
    # Diffusers computes in float32; far from the end an error of 1e-6 in sqrt(a) is divided by .008.
    assert torch.allclose(found, x, rtol=2e-4, atol=2e-4)


def test_unguided_ddpm_is_that_of_diffusers():
    T = 50
    scheduler = DDPMScheduler(T, 1e-4 * 1000 / T, 0.02 * 1000 / T, "linear", clip_sample=False)
    scheduler.set_timesteps(T)
    bank = Bank(3)
    x = bank.draws[0]
    for t, noise in zip(scheduler.timesteps.tolist(), bank.draws[1:], strict=False):
        # Diffusers draws its own noise, so the mean is taken from Ho et al. 2020 (eq. 7), the variance from diffusers.
        a, a_prev = (scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[t - 1]) if t else (1.0, 1.0)
        predicted = (x - (1 - scheduler.alphas_cumprod[t]) ** 0.5 * network(x, t)) / scheduler.alphas_cumprod[t] ** 0.5
        beta, alpha = scheduler.betas[t], scheduler.alphas[t]
        if t == 0:
            x = scheduler.step(network(x, t), t, x).prev_sample
            continue
        mean = (a_prev**0.5 * beta * predicted + alpha**0.5 * (1 - a_prev) * x) / (1 - a)
        x = mean + scheduler._get_variance(t) ** 0.5 * noise
    found = last(ddpm(TanhPrior(T), Y, Guidance(BlockMean(2), NEVER), iter(bank.draws), schedule=schedule(T)))
    assert torch.allclose(found, x, rtol=1e-4, atol=1e-4)


def test_one_call_of_few_is_the_corrected_posterior_mean():
    bank, projection = Bank(4), BlockMean(2)
    a = schedule().alpha_bar(350)
    x_t = a**0.5 * Y + (1 - a) ** 0.5 * bank.draws[0]
    x0 = (x_t - (1 - a) ** 0.5 * network(x_t, 350)) / a**0.5
    expected = x0 + projection.apply(Y) - projection.apply(x0)
    steps = few(
        TanhPrior(), Y, Guidance(projection, ALWAYS), iter(bank.draws), schedule=schedule(), timesteps=(350,), start=Y
    )
    assert torch.allclose(last(steps), expected, rtol=0, atol=1e-12)


def test_few_guides_where_its_switch_says_and_ends_on_x0_hat():
    guidance = Guidance(BlockMean(2), HardSwitch(0.3))
    steps = list(few(TanhPrior(), Y, guidance, iter(Bank(5).draws), schedule=schedule(), timesteps=(350, 200), start=Y))
    assert [step.t for step in steps] == [350, 200]
    assert not torch.equal(steps[0].x0_hat, steps[0].x0)
    assert torch.equal(steps[1].x0_hat, steps[1].x0)
    assert torch.equal(steps[1].x_prev, steps[1].x0_hat)


def test_each_step_is_seen_and_begins_where_the_one_before_ended():
    prior = TanhPrior()
    timesteps = paper_timesteps(100)
    guidance = Guidance(BlockMean(2), ALWAYS)
    steps = list(ddim(prior, Y, guidance, iter(Bank(6).draws), schedule=schedule(), timesteps=timesteps))
    assert tuple(prior.called_at) == timesteps == (999, 899, 799, 699, 599, 499, 399, 299, 199, 99)
    assert all(torch.equal(before.x_prev, after.x_t) for before, after in itertools.pairwise(steps))


def test_as_many_draws_are_taken_as_steps_add_noise():
    draws = iter(Bank(7).draws)
    last(ddim(TanhPrior(), Y, Guidance(BlockMean(2), ALWAYS), draws, schedule=schedule(), timesteps=(900, 500, 100)))
    assert len(list(draws)) == 60 - 3  # the start, and two steps; the last adds none


@pytest.mark.parametrize("timesteps", [(), (100, 200), (200, 200), (1000, 5), (5, -1)])
def test_timesteps_that_can_not_be_are_refused_before_any_call(timesteps):
    prior = TanhPrior()
    with pytest.raises(ValueError, match="timesteps: expected one or more"):
        ddim(prior, Y, Guidance(BlockMean(2), ALWAYS), iter([]), schedule=schedule(), timesteps=timesteps)
    assert prior.called_at == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: leading_timesteps(0),
        lambda: leading_timesteps(1001),
        lambda: paper_timesteps(0),
        lambda: schedule(20),
        lambda: schedule().alpha_bar(1000),
        lambda: last(iter([])),
        lambda: few(
            TanhPrior(),
            Y,
            Guidance(BlockMean(2), ALWAYS),
            iter([]),
            schedule=schedule(),
            timesteps=(1,),
            start=Y,
            eta=2.0,
        ),
    ],
)
def test_numbers_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()
