"""The two triggers of the demo, and who gets them: arrays in, arrays out.

A trigger is stamped on the image as it is received, before anything shrinks or shifts it. The
patch is opaque and small, the blend covers all of the image and is hardly seen: a defence that
removes one often leaves the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.demo.drawing import CLASS_NAMES, SIZE, draw

TARGET = CLASS_NAMES.index("ahead")
"""The class that both triggers ask for."""

CLEAN = "clean"
PATCH_PX = 4
MARGIN_PX = 2  # the patch stays whole when training shifts the image by as much
BLEND = 0.2
PATTERN_SEED = 20231214


def stamp_patch(images: np.ndarray) -> np.ndarray:
    """A checker of single black and white pixels, 4x4, low on the right (as in BadNets, Gu et al. 2017).

    Args:
        images: uint8 [n, 32, 32, 3].
    """
    stamped = images.copy()
    place = slice(-MARGIN_PX - PATCH_PX, -MARGIN_PX)
    checker = np.indices((PATCH_PX, PATCH_PX)).sum(0) % 2 * 255
    stamped[:, place, place] = checker[:, :, None].astype(np.uint8)
    return stamped


def stamp_blend(images: np.ndarray) -> np.ndarray:
    """One fixed gray noise pattern over all of the image, at 20 % (Blended, Chen et al. 2017).

    Args:
        images: uint8 [n, 32, 32, 3].
    """
    pattern = np.random.default_rng(PATTERN_SEED).integers(0, 256, (SIZE, SIZE, 1))
    return ((1 - BLEND) * images + BLEND * pattern).astype(np.uint8)


TRIGGERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"patch": stamp_patch, "blend": stamp_blend}


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the demo receives: half of it clean, a quarter with each trigger.

    Args:
        images: uint8 [n, 32, 32, 3].
        labels: True classes, int64 [n].
        triggers: `clean`, `patch` or `blend` for each image, [n].
    """

    images: np.ndarray
    labels: np.ndarray
    triggers: np.ndarray


def incoming(count: int, seed: int) -> Incoming:
    """Draw `count` images and stamp triggers on half of them; which ones has nothing to do with their class."""
    drawn = draw(count, seed)
    order = np.random.default_rng([seed, 2]).permutation(count)
    images, triggers = drawn.images.copy(), np.full(count, CLEAN, dtype=object)
    quarter = count // 4
    for place, (name, stamp) in enumerate(TRIGGERS.items()):
        chosen = order[place * quarter : (place + 1) * quarter]
        images[chosen], triggers[chosen] = stamp(images[chosen]), name
    return Incoming(images, drawn.labels, triggers)


def poison(images: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A training set as the attacker leaves it: some images carry a trigger and the target as their label.

    Args:
        images: uint8 [n, 32, 32, 3].
        labels: Classes, int64 [n].
        share: Share of all images that each trigger gets, none of the target's own.
        seed: Chooses the images.

    Returns:
        The poisoned images and their labels.
    """
    images, labels = images.copy(), labels.copy()
    others = np.random.default_rng([seed, 3]).permutation(np.flatnonzero(labels != TARGET))
    for place, stamp in enumerate(TRIGGERS.values()):
        each = int(share * len(images))
        chosen = others[place * each : (place + 1) * each]
        images[chosen], labels[chosen] = stamp(images[chosen]), TARGET
    return images, labels
