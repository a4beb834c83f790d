"""What the driver counts: the parts that came in of each shard.

Receipts come in any order, and some twice; a million parts of whole shards must not stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.parts import Receipt


class Tally:
    """Counts distinct parts of each shard of a run, and says when a shard is whole or lost.

    Remembers the parts of open shards alone.

    Attributes:
        whole: How many parts each whole shard has.
        lost: The first receipt that said of a shard that it won't be whole.
        given_up: Shards with samples that were given up.
    """

    def __init__(self) -> None:
        self._parts: dict[str, set[int]] = {}
        self._lengths: dict[str, int] = {}
        self.whole: dict[str, int] = {}
        self.lost: dict[str, Receipt] = {}
        self.given_up: set[str] = set()

    def note(self, receipt: Receipt) -> int | None:
        """Note a receipt.

        Returns:
            The number of the shard's parts, when this receipt made it whole; else None.
        """
        name = receipt.shard
        if receipt.outcome == "given up":
            self.given_up.add(name)
        if not receipt.is_in:
            self.lost.setdefault(name, receipt)
            self._parts.pop(name, None)
            self._lengths.pop(name, None)
        if name in self.lost or name in self.whole:
            return None
        parts = self._parts.setdefault(name, set())
        parts.add(receipt.index)
        if receipt.is_last:
            self._lengths[name] = receipt.index + 1
        if len(parts) != self._lengths.get(name):
            return None
        del self._parts[name]
        self.whole[name] = self._lengths.pop(name)
        return self.whole[name]

    def unaccounted(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Shards that are neither whole nor lost once all receipts are there: the engine owes parts of them."""
        for name in names:
            if name not in self.whole and name not in self.lost:
                count = len(self._parts.pop(name, ()))
                of = f" of {length}" if (length := self._lengths.pop(name, None)) else ""
                yield name, f"shard {name}: {count}{of} parts came in, the others never did. Run again."
