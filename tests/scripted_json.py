"""The scripted server for endpoints that take images in JSON, as base64 or as numbers: their own kinds, and SageMaker.

Reads what comes by means of its own: Pillow and the standard library.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image
from scripted_server import Request, ScriptedServer, means, reply

REQUEST = {"instances": [{"b64": "$image"}]}


def pixels(data: bytes) -> np.ndarray:
    """uint8 [h, w, 3] of an encoded image."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def predictions(rows: Any) -> bytes:
    """A reply in the form of `predictions`."""
    return reply(json.dumps({"predictions": np.asarray(rows).tolist()}), Content_Type="application/json")


class ScriptedJson(ScriptedServer):
    """Takes `{"instances": [{"b64": ...}]}`, answers `{"predictions": [[...], ...]}` with the mean of each channel."""

    def read_images(self, body: bytes, headers: dict[str, str]) -> np.ndarray:
        images = [pixels(base64.b64decode(one["b64"])) for one in json.loads(body)["instances"]]
        return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255

    def answer(self, request: Request) -> bytes:
        return predictions(means(request.images))
