"""The stand-in networks and the noise bank that the golden numbers were made with (golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


class StandIn:
    """Networks, images and noise of `zip_reference/standin.npz`, in the dtype that is asked for."""

    def __init__(self) -> None:
        with np.load(GOLDEN / "zip_reference" / "standin.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        self.arrays = SimpleNamespace(**arrays)

    def image(self, seed: int, dtype: torch.dtype) -> Tensor:
        """The image of a seed in [-1, 1], [1, 3, s, s]: 1 and 2 are 32 px, 3 is 64 px."""
        pixels = self.arrays.images64[0] if seed == 3 else self.arrays.images32[seed - 1]
        return (torch.from_numpy(pixels).to(dtype) / 255 * 2 - 1)[None]

    def draws(self, size: int, dtype: torch.dtype, batch: int = 1) -> Iterator[Tensor]:
        """Draw after draw of the noise bank, [batch, 3, size, size]."""
        side = min(size, 64)
        k = 0
        while True:
            j, place = divmod(k, 16)
            bank = self.arrays.noise_bank[place][:, :side, :side].astype(np.float32)
            bank = np.roll(bank, (3 * j, 7 * j), (1, 2))
            noise = np.stack([np.roll(bank, 11 * b, 2) for b in range(batch)])
            yield torch.from_numpy(np.tile(noise, (1, 1, size // side, size // side))).to(dtype)
            k += 1

    def eps(self, kind: str, x: Tensor, alpha_bar: float, time: float) -> Tensor:
        """What the network `gauss` or `conv` says about x; `time` in [0, 1] is t / T."""
        mean = torch.from_numpy(self.arrays.gauss_mean).to(x)[:, None, None]
        eps = (1 - alpha_bar) ** 0.5 / (alpha_bar * 0.25 + 1 - alpha_bar) * (x - alpha_bar**0.5 * mean)
        if kind == "conv":
            weight, bias = torch.from_numpy(self.arrays.conv_W).to(x), torch.from_numpy(self.arrays.conv_b).to(x)
            eps = eps + 0.2 * torch.tanh(torch.nn.functional.conv2d(x, weight, bias, padding=1)[:, :3] + time)
        return eps


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def cases(folder: str) -> dict[str, dict]:
    return json.loads((GOLDEN / folder / "cases.json").read_text())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `zip_case` or `paper_case` runs once for each golden case, named like it."""
    for fixture, folder in (("zip_case", "zip_reference"), ("paper_case", "paper_algorithms")):
        if fixture in metafunc.fixturenames:
            found = {name: facts for name, facts in cases(folder).items() if "net" in facts and name != "tile256"}
            metafunc.parametrize(fixture, found.items(), ids=found)
