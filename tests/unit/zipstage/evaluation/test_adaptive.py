from __future__ import annotations

import numpy as np
import pytest
import torch

from zipstage.evaluation.adaptive import Through, optimised_patch
from zipstage.evaluation.attacks import Patch, Square
from zipstage.evaluation.victims import Victim
from zipstage.priors.builtin import Restorer
from zipstage.priors.features import SmallResNet
from zipstage.priors.network import RestorationUNet
from zipstage.purifiers.restore import RestorePurifier
from zipstage.purifiers.settings import RestoreSettings


def images(count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def victim() -> Victim:
    torch.manual_seed(0)
    network = SmallResNet(4, 4).eval().requires_grad_(False)
    return Victim(network, torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25))


def restorer() -> RestorePurifier:
    torch.manual_seed(0)
    network = RestorationUNet(width=8, depths=(1, 1, 1)).eval().requires_grad_(False)
    settings = RestoreSettings(spot_above=1.0, first_look=False)
    return RestorePurifier(settings, Restorer(network, "digest"), "cpu", batch=4)


@pytest.mark.parametrize("defended", [False, True])
def test_an_optimised_patch_brings_answers_nearer_to_the_target_through_the_defence(defended: bool) -> None:
    purifier = restorer()

    def restore(planes: torch.Tensor, keys: np.ndarray) -> torch.Tensor:
        return purifier.restore(planes, keys).x0 if defended else planes

    labels = np.arange(24) % 4
    pictures, attacked = images(), victim()
    target = 3

    def score(patch: Patch) -> float:
        planes = torch.tensor(patch.stamp(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        keys = np.random.default_rng(5).integers(0, 2**63, (24, 2)).astype(np.uint64)
        with torch.no_grad():
            restored = restore(planes, keys)
        seen = ((restored + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)
        return float(attacked.scores(seen)[:, target].mean())

    gray = Patch(np.full((6, 6, 3), 128, np.uint8), 23, 23)
    shaped = optimised_patch(pictures, labels, target, attacked, restore, edge=6, steps=12, batch=8)
    assert (shaped.row, shaped.column, shaped.pixels.shape) == (23, 23, (6, 6, 3))
    assert score(shaped) > score(gray)


def test_half_of_the_poisoned_training_images_went_through_the_defence_and_none_of_those_that_are_sent() -> None:
    attack = Through(Square(), lambda pictures, seed: np.full_like(pictures, seed))
    prepared = attack.prepare(images(), 7)
    assert (prepared[::2] == 7).all()
    assert np.array_equal(prepared[1::2], Square().stamp(images())[1::2])
    assert np.array_equal(attack.stamp(images(), 7), Square().stamp(images()))
