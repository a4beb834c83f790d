"""Watches a graph from outside: says when purifiers wait for a node, and ends a graph that stands still.

An engine whose actors have no room waits for ever, and Ray's own watch for progress doesn't notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.attempts import Progress
from pipeline.errors import TRY_AGAIN, StalledError
from pipeline.sizing import Node, Sizing, num_placed
from pipeline.stall import stalled

LOOK_S = 5.0
"""Seconds between two looks at the nodes."""


class Watchdog:
    """Looked at whenever nothing came for a while.

    Args:
        stall_s: Seconds without a part before the graph is given up.
        sizing: The pool of purifiers.
        nodes: The nodes that live.
        progress: What the workers have begun and ended.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        stall_s: float,
        sizing: Sizing,
        nodes: Callable[[], Sequence[Node]],
        progress: Callable[[], Progress],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall_s, self._sizing, self._nodes, self._progress = stall_s, sizing, nodes, progress
        self._clock = clock
        self._heard = self._looked = clock()
        self._said = ""

    def heard(self) -> None:
        """A part came."""
        self._heard = self._clock()

    def look(self) -> str | None:
        """What people should know now and were not told yet.

        Raises:
            StalledError: No part came for too long; the stage that stands still is named.
        """
        now = self._clock()
        if now - self._heard > self._stall_s:
            waits = self._without_room()
            line = stalled(self._stall_s, self._progress(), f"{waits}. " if waits else "")
            raise StalledError(line, TRY_AGAIN if waits else 1)
        if now - self._looked < LOOK_S:
            return None
        self._looked = now
        before, self._said = self._said, self._without_room()
        if not self._said or self._said == before:
            return None
        return (
            f"{self._said}; the others go on. If no node comes, run again: what is missing is sized for what is left."
        )

    def _without_room(self) -> str:
        """How many purifiers wait for room, and what they need; empty: none."""
        nodes, pool = self._nodes(), self._sizing
        waiting = pool.purifiers - num_placed(nodes, pool)
        if waiting <= 0:
            return ""
        each = f"{pool.gpus:g} GPU and {pool.cpus:g} CPU" if pool.gpus else f"{pool.cpus:g} CPU"
        left = f"{sum(node.gpus for node in nodes)} GPUs" if pool.gpus else f"{sum(node.cpus for node in nodes):g} CPUs"
        return f"{waiting} of {pool.purifiers} purifiers wait for room, {each} each: the cluster has {left} now"
