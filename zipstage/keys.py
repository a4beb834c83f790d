"""The key of an image's noise, and the numbers that it keys.

Apart from `zipstage.noise`, so that who only packs tiles, or draws a few numbers, needs no torch.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np


def image_key(seed: bytes, image_digest: bytes) -> np.ndarray:
    """The key of an image's noise: uint64 [2], HMAC-SHA256 cut to the 128 bits of a Philox key."""
    digest = hmac.new(seed, image_digest, hashlib.sha256).digest()
    return np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)


def stream(key: np.ndarray, draw: int = 0) -> np.random.Generator:
    """The generator of an image's `draw`-th noise; draws of one key are independent streams."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, draw]))
