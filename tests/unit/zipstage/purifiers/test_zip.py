"""ZIP behind the purifiers' door: batches, keys, canvases; the mathematics is tested elsewhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zipstage.errors import SettingsError
from zipstage.noise import normal
from zipstage.priors.base import from_x0
from zipstage.purifiers.checks import SCALES
from zipstage.purifiers.diffusion import canvas_noise
from zipstage.purifiers.settings import METHODS, ZipSettings, settings_for
from zipstage.purifiers.zip import ZipPurifier, timesteps_of
from zipstage.schedule import schedule
from zipstage.tiles import CELL_SIZES, TILE_PX, pack, unpack
from zipstage.transforms import BlockMean

torch.set_num_threads(1)


class ConvPrior:
    """A fixed random convolution as the prior; it counts its calls and their sizes."""

    digest = "conv"

    def __init__(self, canvas=False):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn((3, 3, 3, 3), generator=generator) / 5
        self.canvas, self.shapes = canvas, []

    def predict(self, x_t, t):
        self.shapes.append(tuple(x_t.shape))
        x0 = torch.tanh(torch.nn.functional.conv2d(x_t, self.weight, padding=1))
        return from_x0(x_t, x0, schedule().alpha_bar(t))


def images_and_keys(count, side=32, seed=0):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]
    return images, rng.integers(0, 2**63, (count, 2), dtype=np.uint64)


def purify(purifier, images, keys):
    packed = pack(images, keys)
    return unpack([purifier.purify(tiles) for tiles in packed.groups], packed.placements)[0]


@given(st.permutations(range(7)), st.integers(1, 7), st.sampled_from([1, 3, 4, 16]))
@settings(deadline=None, max_examples=12)
def test_neighbours_and_order_change_no_byte(order, kept, batch):
    images, keys = images_and_keys(7)
    purifier = ZipPurifier(ZipSettings(), ConvPrior(), "cpu", batch)
    alone = purify(purifier, images, keys)
    chosen = order[:kept]
    beside_others = purify(purifier, [images[i] for i in chosen], keys[chosen])
    for i, image in zip(chosen, beside_others, strict=True):
        assert np.array_equal(image, alone[i])


def test_every_network_call_has_the_same_size():
    prior = ConvPrior()
    purifier = ZipPurifier(ZipSettings(), prior, "cpu", batch=4)
    purify(purifier, *images_and_keys(6))
    assert set(prior.shapes) == {(4, 3, 32, 32)}
    assert len(prior.shapes) == 2 * purifier.calls


def test_the_layout_and_what_no_cell_uses_stay_as_they_are():
    (tiles,) = pack(*images_and_keys(3, 96)).groups
    for canvas in (False, True):
        purified = ZipPurifier(ZipSettings(), ConvPrior(canvas), "cpu").purify(tiles)
        assert (purified.cell_px, purified.count, purified.residual) == (96, 3, None)
        assert np.array_equal(purified.keys, tiles.keys)
        assert purified.pixels.shape == tiles.pixels.shape
        assert not np.array_equal(purified.cells(), tiles.cells())
        unused = np.ones((TILE_PX, TILE_PX), bool)
        unused[:96, :192] = unused[96:192, :96] = False
        assert (purified.pixels[0][unused] == 0).all()


def test_another_key_is_another_noise():
    images, keys = images_and_keys(1)
    purifier = ZipPurifier(ZipSettings(lambda_=1.0), ConvPrior(), "cpu")
    assert not np.array_equal(purify(purifier, images, keys)[0], purify(purifier, images, keys + np.uint64(1))[0])


@pytest.mark.parametrize("canvas", [False, True])
def test_a_constraint_to_the_end_keeps_the_received_block_means(canvas):
    images, keys = images_and_keys(2)
    flat = [image // 2 + 64 for image in images]  # far from black and white, so that little is clipped
    purifier = ZipPurifier(ZipSettings(lambda_=0.0, scale=8), ConvPrior(canvas), "cpu")
    for before, after in zip(flat, purify(purifier, flat, keys), strict=True):
        as_tensor = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() for image in (before, after)]
        difference = BlockMean(8).apply(as_tensor[0]) - BlockMean(8).apply(as_tensor[1])
        assert float(difference.abs().median()) < 0.5  # rounding to 8 bits


def test_a_canvas_prior_gets_whole_tiles_and_does_not_isolate():
    prior = ConvPrior(canvas=True)
    purifier = ZipPurifier(ZipSettings(), prior, "cpu", batch=2)
    purify(purifier, *images_and_keys(65))
    assert not purifier.isolates
    assert set(prior.shapes) == {(2, 3, TILE_PX, TILE_PX)}


def test_a_cells_noise_on_a_canvas_is_its_keys_wherever_it_lies():
    images, keys = images_and_keys(70)
    (tiles,) = pack(images, keys).groups
    draws = list(itertools.islice(canvas_noise(tiles, np.array([0, 1, 1])), 2))
    for number, draw in enumerate(draws):
        expected = normal(keys, (3, 32, 32), number)
        assert torch.equal(draw[0, :, 64:96, 32:64], expected[2 * 8 + 1])
        assert torch.equal(draw[1, :, :32, 32:64], expected[64 + 1])
        assert torch.equal(draw[1], draw[2])
        assert torch.equal(
            draw[1, :, 128:, 128:], normal(np.zeros((1, 2), np.uint64), (3, 256, 256), number)[0, :, 128:, 128:]
        )
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("preset", METHODS["zip"].presets)
def test_a_preset_takes_the_calls_that_it_says(preset):
    prior = ConvPrior()
    purifier = ZipPurifier(settings_for("zip", preset), prior, "cpu")
    purify(purifier, *images_and_keys(1))
    assert len(prior.shapes) == purifier.calls == {"default": 2, "paper": 20, "program": 20}[preset]


def test_algorithm_1_takes_a_call_for_each_timestep():
    prior = ConvPrior()
    purifier = ZipPurifier(ZipSettings(sampler="ddpm"), prior, "cpu", batch=1)
    purify(purifier, *images_and_keys(1))
    assert len(prior.shapes) == purifier.calls == 1000


def test_the_presets_are_the_papers_and_the_programs():
    assert timesteps_of(settings_for("zip", "paper"))[:2] == (999, 949)
    assert timesteps_of(settings_for("zip", "program"))[-2:] == (50, 0)


def test_each_scale_divides_every_cell():
    assert all(cell % scale == 0 for cell in CELL_SIZES for scale in SCALES)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"transform": "blockmean"}, "purifier.transform: expected one of .*Did you mean 'block_mean'"),
        ({"sampler": "euler"}, "purifier.sampler: expected one of few, ddim, ddpm, found 'euler'"),
        ({"scale": 3}, "purifier.scale"),
        ({"scale": True}, "purifier.scale: expected int, found True"),
        ({"steps": 0}, "purifier.steps: expected a number from 1 to 1000, found 0"),
        ({"eta": 1.5}, "purifier.eta"),
        ({"lambda_": -0.1}, "purifier.lambda_"),
        ({"power": -1}, "purifier.power"),
        ({"power": float("nan")}, "purifier.power"),
        ({"share": 0.0}, "purifier.share"),
        ({"timesteps": []}, "purifier.timesteps"),
        ({"timesteps": [200, 350]}, "purifier.timesteps: expected one or more integers, falling"),
        ({"timesteps": [350, "a"]}, "purifier.timesteps"),
        ({"timesteps": [1000]}, "purifier.timesteps: expected integers from 999 down to 0"),
    ],
)
def test_a_setting_that_can_not_be_is_refused_by_name(setting, words):
    with pytest.raises(SettingsError, match=words):
        settings_for("zip", "default", setting)
