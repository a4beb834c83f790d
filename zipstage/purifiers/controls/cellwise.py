"""What the controls without a network share: each cell is changed alone, as 8-bit pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np

from zipstage.tiles import Tiles

S = TypeVar("S")


class Cellwise(ABC, Generic[S]):
    """A purifier that needs no network.

    Args:
        settings: Of its method.
    """

    isolates, calls, digest, number_type = True, 0, "", "uint8"

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def change(self, cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Cells uint8 [n, c, c, 3] with the keys of their noise, uint64 [n, 2], as they shall come out."""

    def purify(self, tiles: Tiles) -> Tiles:
        return tiles.with_cells(self.change(tiles.cells(), tiles.keys))
