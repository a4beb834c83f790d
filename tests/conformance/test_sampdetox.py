"""The SampDetox authors' program, in numbers: under its settings ours must end where theirs did."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from zipstage.priors.base import from_eps
from zipstage.purifiers.sampdetox import SampDetoxPurifier, change, levels_of, there_and_back
from zipstage.purifiers.settings import SampDetoxSettings, settings_for
from zipstage.schedule import schedule
from zipstage.ssim import ssim_map

FOLDER = Path(__file__).parent / "golden" / "sampdetox_reference"
CASES = json.loads((FOLDER / "cases.json").read_text())
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
TOLERANCE = {"rtol": 0, "atol": 1e-5}


class ReferencePrior:
    """A stand-in network behind the door of a prior; it counts its calls."""

    digest, canvas = "stand-in", False

    def __init__(self, stand_in, kind):
        self.stand_in, self.kind, self.calls = stand_in, kind, 0

    def predict(self, x_t, t):
        self.calls += 1
        alpha_bar = schedule().alpha_bar(t)
        return from_eps(x_t, self.stand_in.eps(self.kind, x_t, alpha_bar, t / 1000), alpha_bar)


@pytest.fixture(params=CASES)
def case(request, stand_in):
    """A purifier with the program's settings, what it gets, and what the program made of it."""
    facts = CASES[request.param]
    with np.load(FOLDER / f"{request.param}.npz", allow_pickle=False) as file:
        expected = {name: torch.from_numpy(file[name]) for name in file.files}
    settings = dataclasses.replace(settings_for("sampdetox", "program"), t1=facts["T1"], t2=facts["T2"])
    return SampDetoxPurifier(settings, ReferencePrior(stand_in, facts["net"]), "cpu"), facts, expected


def states(purifier, passed, x0, levels, start, noise):
    """Timestep by timestep, the state before it."""
    return dict(passed.back(purifier.prior, passed.noised(x0, levels, start), levels, noise))


def draws(stand_in, dtype, first):
    return itertools.islice(stand_in.draws(32, dtype), first, None)


def close(found, expected, **tolerance):
    np.testing.assert_allclose(found.numpy(), expected.reshape(found.shape).numpy(), **(tolerance or TOLERANCE))


@DTYPES
def test_the_first_pass_is_the_programs_at_each_stored_timestep(case, stand_in, dtype):
    purifier, facts, expected = case
    y, start = stand_in.image(facts["image_seed"], dtype), next(draws(stand_in, dtype, 0))
    levels = torch.full_like(y[:, :1], purifier.first.n, dtype=torch.int64)
    noise = draws(stand_in, dtype, facts["first_draw_stage1"])
    found = states(purifier, purifier.first, y, levels, start, noise)
    assert list(found) == [*range(facts["T1"] - 1, -1, -1), -1]
    close(found[facts["T1"] - 1], expected["x_t1"])
    for name in [name for name in expected if name.startswith("stage1_x_t")]:
        close(found[int(name.removeprefix("stage1_x_t"))], expected[name])
    close((found[-1].clamp(-1, 1) + 1) / 2, expected["x_bar01"])


@DTYPES
def test_the_second_pass_is_the_programs_from_its_own_levels(case, stand_in, dtype):
    purifier, facts, expected = case
    x_bar, levels = expected["x_bar01"][None].to(dtype) * 2 - 1, expected["t2"].long()[None, None]
    start, noise = next(draws(stand_in, dtype, 0)), draws(stand_in, dtype, facts["first_draw_stage2"])
    found = states(purifier, purifier.second, x_bar, levels, start, noise)
    assert list(found) == [*range(facts["T2"] - 1, -1, -1), -1]
    close(found[facts["T2"] - 1], expected["x_tbar"])
    for name in [name for name in expected if name.startswith("stage2_x_t")]:
        close(found[int(name.removeprefix("stage2_x_t"))], expected[name])
    out = (found[-1].clamp(-1, 1) + 1) / 2
    close(out, expected["out01"])
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.247, 0.243, 0.261])
    close((out - mean[:, None, None]) / std[:, None, None], expected["clf_in"], rtol=0, atol=1e-4)


def test_ssim_is_the_programs(case, stand_in):
    _, facts, expected = case
    y = stand_in.image(facts["image_seed"], torch.float64)
    found = ssim_map((y + 1) / 2, expected["x_bar01"][None].double(), facts["ssim_kwargs"]["data_range"])
    close(found, expected["ssim_map"], rtol=0, atol=1e-6)
    inner = found[..., 5:-5, 5:-5]  # scikit-image leaves the mirrored edges out of its mean
    assert float(inner.mean()) == pytest.approx(float(expected["ssim_mean"]), abs=1e-6)


def test_what_changed_and_the_levels_of_it_are_the_programs(case, stand_in):
    purifier, facts, expected = case
    y, x_bar = stand_in.image(facts["image_seed"], torch.float64), expected["x_bar01"][None].double() * 2 - 1
    changed = change(y, x_bar, is_program=True)
    close(1 - changed, expected["grey"], rtol=0, atol=2e-3 if facts["T1"] == 20 else 1e-4)
    off_by = (levels_of(changed, purifier.second.n, is_program=True)[0, 0] - expected["t2"].long()).abs()
    assert int(off_by.max()) <= 1
    assert int(off_by.sum()) <= 40  # of 1,024: where rounding falls on the other side of a level
    exactly = levels_of((1 - expected["grey"])[None, None], purifier.second.n, is_program=True)
    assert torch.equal(exactly[0, 0], expected["t2"].long())


@DTYPES
def test_the_whole_ends_where_the_program_ended_but_for_levels_that_rounding_moves(case, stand_in, dtype):
    purifier, facts, expected = case
    found = purifier.detox(stand_in.image(facts["image_seed"], dtype), stand_in.draws(32, dtype))
    close((found.x_bar + 1) / 2, expected["x_bar01"])
    assert int((found.levels[0, 0] - expected["t2"].long()).abs().max()) <= 1
    levels, start = expected["t2"].long()[None, None], next(draws(stand_in, dtype, 0))
    noise = draws(stand_in, dtype, facts["first_draw_stage2"])
    from_theirs = there_and_back(purifier.prior, purifier.second, found.x_bar, levels, start, noise)
    close((from_theirs + 1) / 2, expected["out01"])
    assert float((found.x0 - from_theirs).abs().median()) < 1e-3
    assert purifier.calls == facts["T1"] + facts["T2"]


def test_the_default_timesteps_have_the_papers_noise_on_our_schedule():
    def cosine(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    def log_snr(alpha_bar):
        return math.log(alpha_bar / (1 - alpha_bar))

    settings = SampDetoxSettings()
    for papers, ours in ((20, settings.t1), (120, settings.t2)):
        wanted = log_snr(cosine(papers) / cosine(0))
        distances = [abs(log_snr(a) - wanted) for a in schedule().alphas_cumprod]
        assert distances.index(min(distances)) == ours
