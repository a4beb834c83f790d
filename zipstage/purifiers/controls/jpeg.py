"""`jpeg`: compressed hard and opened again. What destroys fine patterns and keeps what eyes look at."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zipstage.purifiers.checks import check, number
from zipstage.purifiers.controls.cellwise import Cellwise


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegSettings:
    """`jpeg`: JPEG with colours at half of the resolution, and back. A control.

    Args:
        quality: libjpeg's; less is smaller and worse.
    """

    quality: int = number(30, 1, 100)

    def __post_init__(self) -> None:
        check(self)


class JpegPurifier(Cellwise[JpegSettings]):
    """There and back through Pillow's codec."""

    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return np.stack([self._there_and_back(cell) for cell in cells])

    def _there_and_back(self, cell: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(cell).save(file, "JPEG", quality=self.settings.quality, subsampling="4:2:0")
        with Image.open(file) as image:
            return np.asarray(image)
