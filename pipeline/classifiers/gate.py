"""What each request of a job goes through before it is sent: its turn, by the rate, and the cap on images.

One gate serves all shards that are asked about at once, so both hold for the whole job. A trap: a
chunk whose answers aren't complete is asked about again by the rerun. So room is promised to whole
chunks before their first request; what is sent beside that (a retry, a control) takes what is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from pipeline.classifier_config import ClassifierConfig
from pipeline.errors import SpentError


@dataclass
class _Promise:
    left: int


_promise: ContextVar[_Promise | None] = ContextVar("promise", default=None)


class Gate:
    """Lets requests through; for use by one event loop.

    Args:
        rate_per_s: Requests a second, evenly spaced; None for as fast as they come.
        max_queries: Images that may be sent in all, a retried one once more; None for any number.
        where: The classifier, for messages.
        clock: Seconds that only grow.
        sleep: Waits for so many.
    """

    def __init__(
        self,
        rate_per_s: float | None = None,
        max_queries: int | None = None,
        where: str = "classifier",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.num_asked = 0
        self._gap_s = 1 / rate_per_s if rate_per_s else 0.0
        self._next_s = float("-inf")
        self._max_queries, self._num_promised = max_queries, 0
        self._where, self._clock, self._sleep = where, clock, sleep
        self._spent: str | None = None

    @classmethod
    def of(cls, config: ClassifierConfig) -> Self:
        return cls(config.rate_per_s, config.max_queries, f"classifier {config.title}")

    def check(self) -> None:
        """Raise if no more is asked.

        Raises:
            SpentError: `max_queries` is reached.
        """
        if self._spent is not None:
            raise SpentError(self._spent)

    def close(self, why: str) -> None:
        """Let nothing more through that costs a query."""
        if self._max_queries is not None:
            self._spent = f"{self._where}: max_queries {self._max_queries:,}: {why}. Run again to go on."

    @contextmanager
    def promised(self, num_images: int) -> Iterator[None]:
        """Keep room for so many images while the block runs.

        Raises:
            SpentError: There is not so much room; nor is anything else begun from now on.
        """
        self.check()
        self._make_room(num_images)
        promise = _Promise(num_images)
        self._num_promised += num_images
        token = _promise.set(promise)
        try:
            yield
        finally:
            _promise.reset(token)
            self._num_promised -= promise.left

    async def admit(self, num_images: int) -> None:
        """Wait for the turn of one request with so many images, and count them.

        Raises:
            SpentError: They are more than may be sent; the request must not be.
        """
        promise = _promise.get() or _Promise(0)
        kept = min(num_images, promise.left)
        if num_images > kept:
            self._make_room(num_images - kept)
        promise.left -= kept
        self._num_promised -= kept
        self.num_asked += num_images
        await self._turn()

    def _make_room(self, num_images: int) -> None:
        if self._max_queries is None or self.num_asked + self._num_promised + num_images <= self._max_queries:
            return
        self.close(
            f"{self.num_asked + self._num_promised:,} images are asked about in this run, {num_images:,} more "
            "would be too many"
        )
        self.check()

    async def _turn(self) -> None:
        if not self._gap_s:
            return
        now = self._clock()
        turn = max(now, self._next_s)
        self._next_s = turn + self._gap_s
        if turn > now:
            await self._sleep(turn - now)
