"""What the main path asks of whatever runs the graph.

`pipeline.graph` runs it on Ray. Anything that keeps these few promises will do: the tests run the
same main path in one process, which makes crashes cheap to produce.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Failed
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.store import Shard


class Engine(Protocol):
    """Runs Read, Purify and Stage over a window of shards, and commits and asks beside them."""

    device: str
    purifiers: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        """Purify a window: a receipt for each part, in any order; None about once a second without one.

        Raises:
            StalledError: No part came for longer than the settings allow.
        """
        ...

    def start_commit(self, task: Task, num_parts: int) -> None:
        """Commit a whole shard, beside all else and with a bound on how many are under way."""
        ...

    def start_ask(self, shard: Shard, committed: Committed) -> None:
        """Ask about a committed shard, beside all else."""
        ...

    def finished(self, wait_s: float = 0.0) -> list[Committed | Asked | Failed]:
        """Commits and asks that ended since the last call; waits up to `wait_s` for the first one."""
        ...

    @property
    def num_open(self) -> int:
        """Commits and asks that have not ended."""
        ...
