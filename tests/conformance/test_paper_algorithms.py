"""Algorithms 1 and 2 as the ZIP paper's text has them, in float64."""

from __future__ import annotations

import numpy as np
import torch

from zipstage.guidance import Guidance, HardSwitch
from zipstage.priors.base import from_eps
from zipstage.samplers import ddim, ddpm, paper_timesteps
from zipstage.schedule import schedule
from zipstage.transforms import BlockMean


class PaperPrior:
    """A stand-in network that counts its timesteps from 1 and has the schedule of T steps."""

    digest, canvas = "stand-in", False

    def __init__(self, stand_in, kind, T):
        self.stand_in, self.kind, self.T = stand_in, kind, T

    def predict(self, x_t, t):
        alpha_bar = schedule(self.T).alpha_bar(t)
        return from_eps(x_t, self.stand_in.eps(self.kind, x_t, alpha_bar, (t + 1) / self.T), alpha_bar)


def run(stand_in, facts):
    T = facts["T"]
    prior = PaperPrior(stand_in, facts["net"], T)
    y = stand_in.image(facts["image_seed"], torch.float64)
    guidance = Guidance(BlockMean(facts["scale"]), HardSwitch(facts["lam"], T))
    noise = stand_in.draws(32, torch.float64)
    if facts["algorithm"] == 1:
        return ddpm(prior, y, guidance, noise, schedule=schedule(T))
    timesteps = [t - 1 for t in facts["sequence"]]
    return ddim(prior, y, guidance, noise, schedule=schedule(T), timesteps=timesteps, eta=facts["eta"])


def test_the_sampler_is_the_papers_algorithm(stand_in, golden, paper_case):
    name, facts = paper_case
    with np.load(golden / "paper_algorithms" / f"{name}.npz", allow_pickle=False) as file:
        expected = {key: file[key] for key in file.files}
    kept = {key for key in expected if key.startswith("x_after_t")}
    states = {}
    for step in run(stand_in, facts):
        states[f"x_after_t{step.t + 1:04d}"] = step.x_prev if f"x_after_t{step.t + 1:04d}" in kept else None
        result = step.x_prev[0].numpy()
    far = np.abs(result - expected["x0"]).max()
    if facts.get("literal"):
        # The printed form lacks bars that its own equations have; it ends elsewhere, and we don't follow it.
        assert far > 1e-2
        return
    assert far < 1e-10
    assert kept <= states.keys()
    for key in kept:
        np.testing.assert_allclose(states[key][0].numpy(), expected[key], rtol=0, atol=2e-6, err_msg=key)


def test_the_papers_sequence_falls_by_its_stride():
    assert paper_timesteps(50)[:2] == (999, 949)
    assert paper_timesteps(50)[-1] == 49
    assert len(paper_timesteps(50)) == 20
