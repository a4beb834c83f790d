"""Whether storage is gone for all shards, so that a run ends instead of finding out with each.

A shard that finds storage away has waited out its patience; a thousand of them would take a night.
A full disk or an expired login meets all that comes next, while purifiers go on for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.commit import Committed
from pipeline.errors import StoreAwayError, StoreRefusedError
from pipeline.facts import Fact, Failed
from pipeline.parts import Receipt
from pipeline.stopping import Stop

LIMIT = 3
"""Shards in a row that find storage away: one may have bad luck of its own."""


class Outage:
    """Passes facts on, and asks for a run's end once they say that storage is gone.

    Args:
        tell: Told each fact.
        stop: Asked for the end, with the error that says why: what is purified may still find its way.
    """

    def __init__(self, tell: Callable[[Fact], None], stop: Stop) -> None:
        self._tell, self._stop = tell, stop
        self._away: set[str] = set()

    def tell(self, fact: Fact) -> None:
        """Tell a fact."""
        self._tell(fact)
        match fact:
            case Receipt(outcome="refused"):
                self._stop.ask(StoreRefusedError(fact.error or ""))
            case Failed(exit_code=75):  # try again later: its parts, or its commit, found storage away
                self._away.add(fact.shard)
                if len(self._away) >= LIMIT:
                    self._stop.ask(StoreAwayError(fact.error))
            case Receipt(outcome="staged" | "adopted") | Committed():
                self._away.clear()
            case _:
                pass
