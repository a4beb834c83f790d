"""The controls, each against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch

from zipstage.errors import SettingsError
from zipstage.noise import normal
from zipstage.priors.base import from_x0
from zipstage.priors.builtin import Restorer, load_restorer
from zipstage.priors.damage import block_damage
from zipstage.priors.network import RestorationUNet
from zipstage.purifiers import build
from zipstage.purifiers.block_restore import BlockRestorePurifier
from zipstage.purifiers.sdedit import SdeditPurifier
from zipstage.purifiers.settings import BlockRestoreSettings, SdeditSettings, settings_for
from zipstage.schedule import schedule
from zipstage.tiles import CELL_SIZES, pack

KEYS = np.arange(10, dtype=np.uint64).reshape(5, 2)
WITHOUT_NETWORK = ("none", "naive", "bicubic", "motion_blur", "median", "jpeg", "shrinkpad")


@pytest.fixture
def tiles():
    rng = np.random.default_rng(0)
    return pack([rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(5)], KEYS).groups[0]


def purified(tiles, method, **settings):
    return build(settings_for(method, "default", settings)).purify(tiles).cells()


def as_tensor(cells):
    return torch.from_numpy(np.ascontiguousarray(cells)).permute(0, 3, 1, 2).double()


def resized(cells, side, mode):
    """By torch, as float64 [n, s, s, 3]; with antialiasing it follows the same definition as Pillow."""
    images = torch.nn.functional.interpolate(as_tensor(cells), (side, side), mode=mode, antialias=True)
    return images.permute(0, 2, 3, 1).numpy()


def test_none_changes_no_byte(tiles):
    assert np.array_equal(build(settings_for("none")).purify(tiles).pixels, tiles.pixels)


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_naive_leaves_block_means(tiles, scale):
    blocks = tiles.cells().astype(float).reshape(5, 40 // scale, scale, 40 // scale, scale, 3).mean((2, 4))
    expected = np.rint(blocks).repeat(scale, 1).repeat(scale, 2)
    assert np.array_equal(purified(tiles, "naive", scale=scale), expected)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_bicubic_is_what_torch_says(tiles, scale):
    small = resized(tiles.cells(), 40 // scale, "bicubic").round().clip(0, 255)
    expected = resized(small, 40, "bicubic").clip(0, 255)
    off_by = np.abs(purified(tiles, "bicubic", scale=scale) - expected)
    assert off_by.max() < 2.5  # the 8 bits between the two may fall to the next level
    assert np.median(off_by) <= 0.5


@pytest.mark.parametrize("length", [1, 3, 7, 31])
def test_motion_blur_is_what_scipy_says(tiles, length):
    expected = scipy.ndimage.uniform_filter1d(tiles.cells().astype(float), length, axis=2, mode="mirror")
    assert np.array_equal(purified(tiles, "motion_blur", length=length), np.rint(expected))


def test_median_is_what_scipy_says(tiles):
    expected = scipy.ndimage.median_filter(tiles.cells(), size=(1, 3, 3, 1), mode="mirror")
    assert np.array_equal(purified(tiles, "median"), expected)


LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)  # ITU-T T.81, table K.1


def test_jpeg_on_gray_is_the_standards_arithmetic():
    gray = np.random.default_rng(0).integers(60, 196, (1, 40, 40, 1), dtype=np.uint8).repeat(3, 3)
    (tiles,) = pack(list(gray), KEYS[:1]).groups
    table = np.array([int(step) for step in LUMINANCE.split()]).reshape(8, 8)
    table = (table * (5000 // 30) + 50) // 100  # libjpeg's scaling to quality 30
    blocks = gray[0, ..., 0].astype(float).reshape(5, 8, 5, 8).transpose(0, 2, 1, 3) - 128
    coefficients = np.rint(scipy.fft.dctn(blocks, axes=(2, 3), norm="ortho") / table) * table
    expected = scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho").transpose(0, 2, 1, 3).reshape(40, 40) + 128
    found = purified(tiles, "jpeg")[0]
    off_by = np.abs(found - expected.clip(0, 255)[..., None])
    assert (off_by <= 1).mean() > 0.9  # integer arithmetic may take a coefficient to its other neighbour
    assert np.abs(found - gray[0].astype(float)).mean() > 10


def test_jpeg_of_a_higher_quality_changes_less(tiles):
    def change(quality):
        return np.abs(purified(tiles, "jpeg", quality=quality) - tiles.cells().astype(float)).mean()

    assert change(100) < change(60) < change(10)


def test_shrinkpad_makes_an_image_smaller_and_puts_it_on_black(tiles):
    expected = resized(tiles.cells(), 35, "bilinear")
    for image, wanted in zip(purified(tiles, "shrinkpad"), expected, strict=True):
        rows, columns = np.flatnonzero(image.any((1, 2))), np.flatnonzero(image.any((0, 2)))
        assert (len(rows), len(columns)) == (35, 35)
        inside = image[rows[0] : rows[0] + 35, columns[0] : columns[0] + 35]
        assert np.abs(inside - wanted).max() < 1.01  # Pillow rounds after each axis


def test_shrinkpad_reaches_every_place_and_each_key_keeps_its_own():
    keys = np.arange(800, dtype=np.uint64).reshape(400, 2)
    (tiles,) = pack([np.full((32, 32, 3), 255, np.uint8)] * 400, keys).groups
    found = purified(tiles, "shrinkpad")
    places = {(int(image.any((1, 2)).argmax()), int(image.any((0, 2)).argmax())) for image in found}
    assert places == {(top, left) for top in range(5) for left in range(5)}
    assert np.array_equal(purified(tiles, "shrinkpad"), found)


@pytest.mark.parametrize("method", WITHOUT_NETWORK)
def test_a_control_without_network_takes_every_cell_size_and_sees_one_image_alone(method):
    rng = np.random.default_rng(1)
    purifier = build(settings_for(method))
    assert (purifier.calls, purifier.isolates, purifier.digest) == (0, True, "")
    for side in CELL_SIZES:
        images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(3)]
        (together,) = pack(images, KEYS[:3]).groups
        (alone,) = pack(images[2:], KEYS[2:3]).groups
        found = purifier.purify(together)
        assert (found.cell_px, found.count, found.residual) == (side, 3, None)
        assert np.array_equal(found.cells()[2], purifier.purify(alone).cells()[0])


class Halving:
    """A prior that takes half of what it sees for the image; it keeps what it saw."""

    digest, canvas = "halving", False

    def __init__(self):
        self.saw = []

    def predict(self, x_t, t):
        self.saw.append((t, x_t))
        return from_x0(x_t, x_t / 2, schedule().alpha_bar(t))


def test_sdedit_in_one_call_is_the_prior_on_the_noised_image(tiles):
    prior = Halving()
    found = SdeditPurifier(SdeditSettings(t=100), prior, "cpu", batch=5).purify(tiles).cells()
    a = schedule().alpha_bar(100)
    y = (as_tensor(tiles.cells()) / 127.5 - 1).float()
    ((t, saw),) = prior.saw
    assert t == 100
    assert torch.allclose(saw, a**0.5 * y + (1 - a) ** 0.5 * normal(KEYS, (3, 40, 40)), atol=1e-6)
    expected = ((saw / 2 + 1) * 127.5).permute(0, 2, 3, 1).numpy().clip(0, 255)
    assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("preset", "timesteps"), [("t100x5", [100, 80, 60, 40, 20]), ("t300", [300]), ("default", [200])]
)
def test_sdedit_spreads_its_calls_over_the_timesteps(tiles, preset, timesteps):
    prior = Halving()
    purifier = SdeditPurifier(settings_for("sdedit", preset), prior, "cpu", batch=5)
    purifier.purify(tiles)
    assert [t for t, _ in prior.saw] == timesteps
    assert purifier.calls == len(timesteps)


def test_block_restore_gives_the_network_what_a_network_of_blocks_is_trained_on_and_undoes_the_contrast(tiles):
    told = []

    class Echo(RestorationUNet):
        def forward(self, damaged, sigma_white, sigma_smooth, mask):
            told.append((damaged, sigma_white, sigma_smooth, mask))
            return damaged

    network = Echo(width=4, depths=(1, 1, 1))
    found = BlockRestorePurifier(BlockRestoreSettings(scale=4), Restorer(network, "echo"), "cpu", batch=5).purify(tiles)
    assert np.abs(found.cells() - purified(tiles, "naive", scale=4).astype(int)).max() <= 1
    ((damaged, white, smooth, mask),) = told
    views = torch.from_numpy(tiles.cells()).permute(0, 3, 1, 2).float() / 127.5 - 1
    trained_on = block_damage(views, 4)
    assert torch.allclose(damaged[: len(views)], trained_on.damaged, atol=1e-5)
    assert torch.equal(white[: len(views)], trained_on.sigma_white)
    assert torch.equal(smooth[: len(views)], trained_on.sigma_smooth)
    assert torch.equal(mask[: len(views)], trained_on.mask)
    assert not smooth.any()
    assert bool(mask.all())
    assert torch.allclose(damaged.mean((1, 2, 3)), torch.zeros(5), atol=1e-5)
    assert torch.allclose(damaged.flatten(1).std(1, correction=0), torch.full((5,), 0.5), atol=1e-4)
    # The clean view lies in the same contrast: where the blocks are the image, both are one.
    flat = torch.rand((2, 3, 2, 2)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(block_damage(flat, 4).clean, block_damage(flat, 4).damaged, atol=1e-5)


def test_block_restore_gives_the_same_bytes_whatever_the_neighbours():
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    purifier = BlockRestorePurifier(BlockRestoreSettings(), load_restorer(), "cpu", batch=2)
    (together,), (alone,) = pack(images, KEYS[:3]).groups, pack(images[2:], KEYS[2:3]).groups
    assert np.array_equal(purifier.purify(together).cells()[2], purifier.purify(alone).cells()[0])


@pytest.mark.parametrize(
    ("method", "setting", "words"),
    [
        ("naive", {"scale": 3}, r"purifier.scale: expected one of 1, 2, 4, 8, which divide every cell, found 3"),
        ("bicubic", {"scale": 0}, "purifier.scale"),
        ("block_restore", {"scale": 16}, "purifier.scale"),
        ("motion_blur", {"length": 4}, "purifier.length: expected an odd number from 1 to 31, found 4"),
        ("jpeg", {"quality": 0}, "purifier.quality: expected a number from 1 to 100, found 0"),
        ("jpeg", {"quality": 30.0}, "purifier.quality: expected int, found 30.0"),
        ("shrinkpad", {"share": 0.6}, "purifier.share: expected a number from 0 to 0.5, found 0.6"),
        ("shrinkpad", {"share": float("nan")}, "purifier.share"),
        ("sdedit", {"t": 1000}, "purifier.t: expected a number from 1 to 999, found 1000"),
        ("sdedit", {"t": 4, "calls": 5}, "purifier.calls: expected a number from 1 to 4, found 5"),
        ("median", {"size": 3}, "purifier.size: median has no such setting"),
    ],
)
def test_a_setting_that_can_not_be_is_refused_by_name(method, setting, words):
    with pytest.raises(SettingsError, match=words):
        settings_for(method, "default", setting)
