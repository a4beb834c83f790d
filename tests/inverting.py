"""The stub purifier; light, since workers of a real Ray load it as well."""

from __future__ import annotations

import numpy as np

from zipstage.tiles import Tiles


class Inverting:
    """A purifier that gives the negative: isolates, and no pixel stays what it was."""

    isolates, calls, digest, number_type = True, 1, "", "uint8"

    def __init__(self) -> None:
        self.cells = 0

    def purify(self, tiles: Tiles) -> Tiles:
        self.cells += tiles.count
        return tiles.with_cells(255 - tiles.cells(), np.zeros(tiles.count, np.float32))
