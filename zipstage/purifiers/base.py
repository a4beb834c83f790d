"""The door of every purifier: tiles in, tiles out, and nothing else to see.

No label, no target, no statistic of other images can pass: a purifier gets pixels and one noise
key for each cell. It is a pure function of them, its settings and its prior's weights.
"""

from __future__ import annotations

from typing import Protocol

from zipstage.tiles import Tiles


class Purifier(Protocol):
    """What the pipeline calls; one file and one class for each method.

    Attributes:
        isolates: Whether a cell's result depends on that cell alone. One whose prior needs the
            whole canvas says False; then neighbours on a tile matter.
        calls: Network calls that one cell (or, without `isolates`, one tile) takes.
        digest: SHA-256 in hex of the prior's weights; empty where there is no prior.
        number_type: Type of the numbers that the network computes with, such as `float32`.
    """

    isolates: bool
    calls: int
    digest: str

    @property
    def number_type(self) -> str: ...

    def purify(self, tiles: Tiles) -> Tiles:
        """The purified tiles: same layout, count and keys."""
        ...
