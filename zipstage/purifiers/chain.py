"""`chain`: purifiers one after the other, each on what the one before made of the images.

The first step's noise is that of the image's key, so that a chain of one is that method alone; the
others' keys are derived from it by the number of the step, so that no step meets its own noise again.
Costs the network calls of all of its steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zipstage.keys import image_key
from zipstage.purifiers.base import Purifier
from zipstage.tiles import Tiles


class ChainPurifier:
    """Purifiers in a row. It sees one image alone only if all of its steps do.

    Args:
        steps: The purifiers, in their order.
        batch: What they were built with, for the profile.
    """

    def __init__(self, steps: Sequence[Purifier], batch: int = 0) -> None:
        self.steps, self.batch = tuple(steps), batch
        self.isolates = all(step.isolates for step in steps)
        self.calls = sum(step.calls for step in steps)
        digests = [step.digest for step in steps if step.digest]
        self.digest = hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""

    @property
    def number_type(self) -> str:
        return ", ".join(dict.fromkeys(step.number_type for step in self.steps))

    def purify(self, tiles: Tiles) -> Tiles:
        """The tiles after all steps; their residual is that of the last step that has one."""
        purified, residual = tiles, tiles.residual
        for number, step in enumerate(self.steps):
            purified = step.purify(replace(purified, keys=step_keys(tiles.keys, number), residual=None))
            residual = residual if purified.residual is None else purified.residual
        return replace(purified, keys=tiles.keys, residual=residual)


def step_keys(keys: np.ndarray, number: int) -> np.ndarray:
    """The keys of a step's noise, uint64 [n, 2], from those of the images; the first step keeps them.

    Args:
        keys: One key an image, uint64 [n, 2].
        number: The step's, from 0.
    """
    if number == 0:
        return keys
    message = b"step" + number.to_bytes(8, "little")  # unlike that of a large image's further windows
    return np.array([image_key(key.astype("<u8").tobytes(), message) for key in keys], np.uint64).reshape(-1, 2)
