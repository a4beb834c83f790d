"""What `restore` made of an image before it restored it: for pictures, computed again from the image's own key."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image

from zipstage.noise import image_key
from zipstage.purifiers.restore import RestorePurifier
from zipstage.tiles import pack


def damaged(purifier: RestorePurifier, received: bytes, seed: bytes) -> np.ndarray:
    """The image as the network got it, uint8 [h, w, 3].

    Args:
        purifier: As in the job.
        received: The encoded image, whose digest its noise is made of.
        seed: The job's.
    """
    key = image_key(seed, hashlib.sha256(received).digest())
    images: np.ndarray = purifier.damaged(pack([pixels_of(received)], key[None]).groups[0])
    return np.asarray(images[0])


def pixels_of(encoded: bytes) -> np.ndarray:
    """An image as RGB, uint8 [h, w, 3]."""
    return np.asarray(Image.open(BytesIO(encoded)).convert("RGB"))
