"""The key of an image's noise. Apart from `zipstage.noise`, so that who only packs tiles needs no torch."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np


def image_key(seed: bytes, image_digest: bytes) -> np.ndarray:
    """The key of an image's noise: uint64 [2], HMAC-SHA256 cut to the 128 bits of a Philox key."""
    digest = hmac.new(seed, image_digest, hashlib.sha256).digest()
    return np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
