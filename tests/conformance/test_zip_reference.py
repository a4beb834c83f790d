"""The ZIP authors' program, in numbers: our sampler must end where theirs did."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from zipstage.guidance import Guidance, SoftSwitch
from zipstage.priors.base import from_eps
from zipstage.samplers import ddim, leading_timesteps
from zipstage.schedule import schedule
from zipstage.tiles import TILE_PX, pack
from zipstage.transforms import BlockMean, Gray, transform_for

TRANSFORMS = {"two": "two", "blur": "block_mean", "gray": "gray"}


class ReferencePrior:
    """A stand-in network behind the door of a prior."""

    digest, canvas = "stand-in", False

    def __init__(self, stand_in, kind):
        self.stand_in, self.kind = stand_in, kind

    def predict(self, x_t, t):
        alpha_bar = schedule().alpha_bar(t)
        return from_eps(x_t, self.stand_in.eps(self.kind, x_t, alpha_bar, t / 1000), alpha_bar)


def sample(stand_in, facts, y, dtype):
    transform = transform_for(TRANSFORMS[facts["transform"]], scale=facts["scale"])
    guidance = Guidance(transform, SoftSwitch(float(facts["at_threshold"])))
    noise = stand_in.draws(facts["size"], dtype, len(y))
    prior = ReferencePrior(stand_in, facts["net"])
    timesteps = leading_timesteps(facts["steps"])
    return list(ddim(prior, y, guidance, noise, schedule=schedule(), timesteps=timesteps))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_sampler_follows_the_authors_program(stand_in, golden, zip_case, dtype):
    name, facts = zip_case
    with np.load(golden / "zip_reference" / f"{name}.npz", allow_pickle=False) as file:
        expected = {key: file[key] for key in file.files}
    y = torch.cat([stand_in.image(seed, dtype) for seed in facts["image_seeds"]])
    steps = sample(stand_in, facts, y, dtype)

    assert [step.t for step in steps] == facts["timesteps"][:-1]
    for key in expected:
        if not key.startswith("step"):
            continue
        number, _, what = key.removeprefix("step").partition("_")
        step = steps[int(number)]
        a = schedule().alpha_bar(step.t)
        found = {
            "x_hat": a**0.5 * step.x0_hat + (1 - a) ** 0.5 * step.eps,
            "x0_hat": step.x0_hat,
            "eps": step.eps,
            "x_next": step.x_prev,
        }[what]
        np.testing.assert_allclose(found.numpy(), expected[key], rtol=0, atol=1e-4, err_msg=key)
    np.testing.assert_allclose(steps[-1].x_prev.numpy(), expected["x_last_unclipped"], rtol=0, atol=2e-5)
    final = ((steps[-1].x_prev + 1) / 2).clamp(0, 1)
    np.testing.assert_allclose(final.numpy(), expected["final"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["z1_two32_s2_p10_gauss", "z2_two32_s4_p1_conv"])
def test_the_transforms_are_the_authors(stand_in, golden, name):
    facts = json.loads((golden / "zip_reference" / "cases.json").read_text())[name]
    with np.load(golden / "zip_reference" / f"{name}.npz", allow_pickle=False) as file:
        gray, blur = file["apy_gray"], file["apy_blur"]
    y = stand_in.image(facts["image_seeds"][0], torch.float32)
    np.testing.assert_allclose(Gray().apply(y).numpy(), gray, rtol=0, atol=1e-6)
    np.testing.assert_allclose(BlockMean(facts["scale"]).apply(y).numpy(), blur, rtol=0, atol=1e-6)


def test_the_schedule_is_the_authors(stand_in, golden, zip_case):
    name, _ = zip_case
    with np.load(golden / "zip_reference" / f"{name}.npz", allow_pickle=False) as file:
        timesteps, alphas = file["t"], file["abar_f32"]
    found = [schedule().alpha_bar(int(t)) for t in timesteps]
    np.testing.assert_allclose(found, alphas.reshape(-1), rtol=1e-6)


def test_the_schedule_is_exact_in_float64(stand_in):
    np.testing.assert_allclose(schedule().betas, stand_in.arrays.betas_f64, rtol=0, atol=1e-16)
    np.testing.assert_allclose(schedule().alphas_cumprod, stand_in.arrays.abar_f64, rtol=0, atol=1e-14)


@pytest.fixture(scope="module")
def small_images():
    """Image k has the value (3k + 50c + 2y + x) mod 256 at channel c, row y, column x."""
    y, x, c = np.mgrid[0:32, 0:32, 0:3]
    return [((3 * k + 50 * c + 2 * y + x) % 256).astype(np.uint8) for k in range(80)]


@pytest.fixture(scope="module")
def tile_facts(golden):
    return json.loads((golden / "zip_reference" / "cases.json").read_text())["tile256"]


def test_tiles_lie_as_the_authors_program_lays_them(golden, small_images, tile_facts):
    with np.load(golden / "zip_reference" / "tile256.npz", allow_pickle=False) as file:
        layout = file["layout"]
    for places, digest in zip(layout, tile_facts["tile_sha256_hwc_u8"], strict=True):
        chosen = [small_images[k] for k in places if k >= 0]
        (tiles,) = pack(chosen, np.zeros((len(chosen), 2), np.uint64)).groups
        assert tiles.pixels.shape == (1, TILE_PX, TILE_PX, 3)
        assert hashlib.sha256(tiles.pixels[0].tobytes()).hexdigest() == digest


def test_a_whole_tile_ends_where_the_authors_program_did(stand_in, golden, small_images, tile_facts):
    with np.load(golden / "zip_reference" / "tile256.npz", allow_pickle=False) as file:
        expected = {key: file[key] for key in file.files}
    chosen = [small_images[k] for k in expected["layout"][1] if k >= 0]
    (tiles,) = pack(chosen, np.zeros((len(chosen), 2), np.uint64)).groups
    y = torch.from_numpy(tiles.pixels.copy()).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    found = sample(stand_in, tile_facts, y, torch.float32)[-1].x_prev[0].numpy()
    np.testing.assert_allclose(found[:, ::8, ::8], expected["x_last_unclipped_stride8"].squeeze(), rtol=0, atol=2e-5)
    final = np.clip((found + 1) / 2, 0, 1)
    np.testing.assert_allclose(final[:, ::8, ::8], expected["final_stride8"].squeeze(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(final.mean((1, 2)), expected["final_mean"].reshape(-1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(final.std((1, 2)), expected["final_std"].reshape(-1), rtol=0, atol=1e-5)
