"""An attacker who knows the purifier: poisons through it, and shapes the trigger so that it survives.

Two steps, each of which can be had alone. `optimised_patch` finds the content of a patch that a clean
classifier takes for the target after purification, over images and over draws of the noise
(expectation over transformation, Athalye et al. 2018). `Through` poisons a victim with images that
were purified, so that it learns what the defence leaves of a trigger.

Axes: n images, b images of a step, s pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Tensor

from zipstage.evaluation.attacks import Attack, Patch
from zipstage.evaluation.victims import Victim
from zipstage.noise import stream

Restore = Callable[[Tensor, np.ndarray], Tensor]
"""Images in [-1, 1], [b, 3, s, s], and their noise keys, uint64 [b, 2], to restored images; differentiable."""

Purify = Callable[[np.ndarray, int], np.ndarray]
"""Images, uint8 [n, s, s, 3], and a seed of their noise to purified images."""


@dataclass(frozen=True, slots=True)
class Through:
    """An attack whose poisoned training images went through the defence: every other one, the rest as they are.

    Args:
        attack: Puts the trigger in.
        purify: The defence.
    """

    attack: Attack
    purify: Purify

    @property
    def clean_label(self) -> bool:
        """As the attack's."""
        return self.attack.clean_label

    @property
    def covers(self) -> float:
        """As the attack's."""
        return self.attack.covers

    def stamp(self, images: np.ndarray, seed: int) -> np.ndarray:
        """The attack's trigger: whoever sends an image can't purify it in the defender's place."""
        return self.attack.stamp(images, seed)

    def prepare(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Triggered images, every other one purified."""
        prepared = self.attack.prepare(images, seed)
        prepared[::2] = self.purify(prepared[::2], seed)
        return prepared

    def cover(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Images with the trigger not quite right, purified."""
        covering = self.attack.cover(images, seed)
        return self.purify(covering, seed) if self.covers else covering


def optimised_patch(
    images: np.ndarray,
    labels: np.ndarray,
    target: int,
    victim: Victim,
    restore: Restore,
    *,
    edge: int = 4,
    steps: int = 100,
    batch: int = 32,
    seed: int = 0,
) -> Patch:
    """A patch that a classifier takes for the target after purification.

    Args:
        images: uint8 [n, s, s, 3], to learn it on.
        labels: Their classes, int64 [n]; the target's own are left out.
        target: The class that the attacker wants.
        victim: A classifier that stands in for the one to be poisoned.
        restore: The defence.
        edge: Of the patch, in pixels; it stands three pixels from the lower right corner.
        steps: Of Adam at .1, on the logits of the pixels.
        batch: Images in a step.
        seed: Of images and noise.
    """
    generator = np.random.default_rng(seed)
    others = np.flatnonzero(labels != target)
    row = column = images.shape[1] - 3 - edge
    content = torch.zeros((3, edge, edge), requires_grad=True)
    optimiser = torch.optim.Adam([content], lr=0.1)
    wanted = torch.full((batch,), target)
    for step in range(steps):
        chosen = generator.choice(others, batch)
        planes = torch.tensor(images[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
        keys = stream(np.array([seed, step], np.uint64)).integers(0, 2**63, (batch, 2)).astype(np.uint64)
        pasted = F.pad(content.tanh(), (column, 3, row, 3)).expand(batch, -1, -1, -1)
        inside = F.pad(torch.ones((edge, edge)), (column, 3, row, 3))
        restored = restore(torch.where(inside > 0, pasted, planes), keys)
        loss = F.cross_entropy(victim.network(victim.inputs((restored + 1) * 127.5)), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pixels = ((content.detach().tanh() + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Patch(pixels, row, column)
