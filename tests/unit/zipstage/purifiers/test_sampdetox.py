"""SampDetox in the paper's form, and behind the door; the authors' program is met in tests/conformance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zipstage.errors import SettingsError
from zipstage.guidance import Guidance, HardSwitch
from zipstage.priors.base import from_x0
from zipstage.purifiers.sampdetox import SampDetoxPurifier, change, levels_of, pass_to
from zipstage.purifiers.settings import SampDetoxSettings, settings_for
from zipstage.samplers import ddim
from zipstage.schedule import schedule
from zipstage.tiles import pack, unpack
from zipstage.transforms import BlockMean

torch.set_num_threads(1)

SMALL = SampDetoxSettings(t1=3, t2=10)


class Knowing:
    """A prior that sees through all noise: it always answers with the same images; it keeps the timesteps."""

    digest = "knowing"

    def __init__(self, x0, canvas=False):
        self.x0, self.canvas, self.timesteps = x0, canvas, []

    def predict(self, x_t, t):
        self.timesteps.append(t)
        return from_x0(x_t, self.x0.to(x_t).expand_as(x_t), schedule().alpha_bar(t))


class Convolving(Knowing):
    """A prior that answers with a fixed random convolution."""

    def __init__(self, canvas=False):
        weight = torch.randn((3, 3, 3, 3), generator=torch.Generator().manual_seed(0)) / 5
        super().__init__(weight, canvas)

    def predict(self, x_t, t):
        self.timesteps.append(t)
        x0 = torch.tanh(torch.nn.functional.conv2d(x_t, self.x0.to(x_t), padding=1))
        return from_x0(x_t, x0, schedule().alpha_bar(t))


def images_and_keys(count, side=32):
    """Smooth images beside noisy ones, so that their second passes begin at different timesteps."""
    rng = np.random.default_rng(0)
    images = [(128 + rng.normal(0, 12 * i, (side, side, 3))).clip(0, 255).astype(np.uint8) for i in range(1, count + 1)]
    return images, rng.integers(0, 2**63, (count, 2), dtype=np.uint64)


def purify(purifier, images, keys):
    packed = pack(images, keys)
    return unpack([purifier.purify(tiles) for tiles in packed.groups], packed.placements)[0]


def noise(*shape):
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(shape, generator=generator)


@given(st.permutations(range(6)), st.integers(1, 6), st.sampled_from([1, 3, 16]), st.sampled_from(["paper", "program"]))
@settings(deadline=None, max_examples=12)
def test_neighbours_and_order_change_no_byte(order, kept, batch, form):
    images, keys = images_and_keys(6)
    purifier = SampDetoxPurifier(SampDetoxSettings(t1=3, t2=10, form=form), Convolving(), "cpu", batch)
    alone = purify(purifier, images, keys)
    chosen = order[:kept]
    beside_others = purify(purifier, [images[i] for i in chosen], keys[chosen])
    for i, image in zip(chosen, beside_others, strict=True):
        assert np.array_equal(image, alone[i])


def test_another_key_is_another_noise():
    images, keys = images_and_keys(1)
    purifier = SampDetoxPurifier(SMALL, Convolving(), "cpu")
    assert not np.array_equal(purify(purifier, images, keys)[0], purify(purifier, images, keys + np.uint64(1))[0])


@pytest.mark.parametrize("side", [33, 48, 100, 256, 300])
def test_an_image_of_any_size_comes_back_in_its_size(side):
    purifier = SampDetoxPurifier(settings_for("sampdetox", "few"), Convolving(), "cpu")
    images, keys = images_and_keys(1, side)
    (purified,) = purify(purifier, images, keys)
    assert purified.shape == (side, side, 3)
    assert not np.array_equal(purified, images[0])


def test_a_prior_that_needs_the_canvas_gets_whole_tiles():
    purifier = SampDetoxPurifier(settings_for("sampdetox", "few"), Convolving(canvas=True), "cpu")
    assert not purifier.isolates
    images, keys = images_and_keys(2)
    assert [image.shape for image in purify(purifier, images, keys)] == [(32, 32, 3)] * 2


def test_what_comes_back_unchanged_is_left_alone_and_costs_no_second_pass():
    y = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    purifier = SampDetoxPurifier(SampDetoxSettings(), Knowing(y), "cpu")
    detoxed = purifier.detox(y, noise(2, 3, 32, 32))
    assert torch.allclose(detoxed.x0, y, atol=1e-5)
    assert int(detoxed.levels.max()) == 0
    assert purifier.prior.timesteps == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_only_what_changed_is_noised_again():
    axis = torch.linspace(-0.8, 0.8, 32)
    clean = (axis[:, None] * axis).expand(1, 3, 32, 32)
    y = clean.clone()
    y[..., 20:24, 20:24] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    purifier = SampDetoxPurifier(SampDetoxSettings(), Knowing(clean), "cpu")
    detoxed = purifier.detox(y, noise(1, 3, 32, 32))
    assert int(detoxed.levels[..., 20:24, 20:24].min()) > 40
    far = torch.ones(32, 32, dtype=torch.bool)
    far[20 - 5 : 24 + 5, 20 - 5 : 24 + 5] = False  # the window of SSIM reaches 5 px
    assert int(detoxed.levels[0, 0][far].max()) == 0
    assert torch.allclose(detoxed.x0, clean, atol=1e-5)
    assert detoxed.levels.max() + 8 == max(purifier.prior.timesteps) + 9  # level k is called at timestep k - 1


def test_a_pixel_keeps_its_noise_until_its_own_timestep():
    passed = pass_to(6, 0, is_program=False)
    x0 = torch.zeros((1, 3, 4, 4), dtype=torch.float64)
    levels = torch.arange(8)[:, None].expand(8, 2).reshape(1, 1, 4, 4)
    start = next(noise(1, 3, 4, 4)).double()
    x = passed.noised(x0, levels, start)
    for level in range(8):
        bar = 1.0 if level == 0 else schedule().alphas_cumprod[level - 1]
        where = (levels == level).expand_as(x)
        assert torch.allclose(x[where], start[where] * (1 - bar) ** 0.5, atol=1e-12)
    prior = Knowing(x0 + 0.5)
    for t, state in passed.back(prior, x, levels, noise(1, 3, 4, 4)):
        waiting = (levels <= t + 1).expand_as(x)
        assert torch.equal(state[waiting], x[waiting])
    assert torch.allclose(state[(levels > 0).expand_as(x)], torch.tensor(0.5, dtype=torch.float64), atol=1e-9)
    assert torch.equal(state[(levels == 0).expand_as(x)], x[(levels == 0).expand_as(x)])


@pytest.mark.parametrize(("t", "calls", "timesteps"), [(8, 0, range(8, -1, -1)), (58, 2, (58, 28)), (58, 1, (58,))])
def test_a_pass_over_all_pixels_is_zips_algorithm_2_with_all_of_its_noise(t, calls, timesteps):
    passed, prior = pass_to(t, calls, is_program=False), Convolving()
    draws = [draw.double() for draw in itertools.islice(noise(1, 3, 32, 32), 12)]
    levels = torch.full((1, 1, 32, 32), passed.n)
    *_, (end, found) = passed.back(prior, draws[0], levels, iter(draws[1:]))
    guidance = Guidance(BlockMean(1), HardSwitch(1.0))
    *_, expected = ddim(prior, draws[0], guidance, iter(draws), schedule=schedule(), timesteps=tuple(timesteps))
    assert end == -1
    assert torch.allclose(found, expected.x_prev, rtol=0, atol=1e-10)


def test_change_is_one_less_luma_weighted_ssim():
    y = torch.full((1, 3, 32, 32), -0.2, dtype=torch.float64)
    for channel, weight in enumerate((0.30, 0.59, 0.11)):  # ITU-R BT.601
        noisy = y.clone()
        noisy[:, channel] += next(noise(1, 32, 32)).double()
        assert float(change(y, noisy).max()) == pytest.approx(weight, rel=0.05)
    assert float(change(y, -noisy).max()) <= 1


def test_a_flat_map_of_the_program_stretches_to_nothing():
    y = torch.zeros((1, 3, 32, 32))
    assert int(levels_of(change(y, y, is_program=True), 120, is_program=True).max()) == 0


@pytest.mark.parametrize(("preset", "first", "second"), [("default", 9, 59), ("few", 1, 8), ("program", 120, 120)])
def test_a_preset_costs_the_calls_that_it_says(preset, first, second):
    prior = Knowing(torch.ones(1, 3, 1, 1))  # far from all images, so that a second pass is due
    purifier = SampDetoxPurifier(settings_for("sampdetox", preset), prior, "cpu", batch=1)
    (image,), keys = images_and_keys(1)
    purify(purifier, [image], keys)
    assert purifier.calls == first + second
    assert prior.timesteps[:first] == list(purifier.first.timesteps[:0:-1])
    assert first < len(prior.timesteps) <= purifier.calls


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"form": "papr"}, "purifier.form: expected one of paper, program, found 'papr'. Did you mean 'paper'"),
        ({"t1": 1000}, "purifier.t1: expected a number from 0 to 999, found 1000"),
        ({"t2": -1}, "purifier.t2"),
        ({"calls1": 10}, "purifier.calls1: expected a number from 0 to 9, found 10"),
        ({"form": "program", "t1": 0}, "purifier.t1: expected a number from 1 to 999, found 0"),
        ({"form": "program", "calls2": 59}, "purifier.calls2: expected a number from 0 to 58"),
    ],
)
def test_a_setting_that_can_not_be_is_refused_by_name(setting, words):
    with pytest.raises(SettingsError, match=words):
        settings_for("sampdetox", "default", setting)


def test_settings_that_fit_only_together_may_be_set_together():
    assert settings_for("sampdetox", "default", {"calls1": 20, "t1": 30}).calls1 == 20
