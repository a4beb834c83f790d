"""Counts what workers begin and end, in one place for the whole job: who dies can't count for itself.

For two readers: a stage asks how often its work was tried, and gives up what always ends its worker;
the watchdog asks where work stands. A trap: a worker dies for reasons of its own as well (a node is
lost, a neighbour takes the memory), and healthy work must not be given up for that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

StageName = Literal["reading", "purifying", "staging"]
STAGES: tuple[StageName, ...] = ("reading", "purifying", "staging")

MERCY = 3
"""Times `max_attempts` that are granted at most on top of it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is at: a shard's part in a stage; readers work on the whole shard, as part 0."""

    stage: StageName
    shard: str
    part: int = 0


@dataclass(frozen=True, slots=True)
class Try:
    """A try that was begun and has not ended, as far as anybody knows."""

    node: str
    since: float


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Work that was begun and not ended, and for how long the latest try of it has been going on."""

    work: Work
    for_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the graph stands.

    Args:
        under_way: What was begun and not ended, the longest first.
        done: Parts that left each stage.
    """

    under_way: tuple[UnderWay, ...]
    done: dict[StageName, int]

    def under_way_in(self, stage: StageName) -> list[UnderWay]:
        return [one for one in self.under_way if one.work.stage == stage]


class Attempts:
    """Counts tries of work.

    A try counts against its work when it was begun, never ended, and its node lives still. Each
    other work that lost its worker and was done all the same shows that workers die here for other
    reasons: it forgives one more.

    Args:
        max_attempts: Tries before work is given up by the stages; says how much is forgiven.
        is_alive: Whether a node is still there.
        clock: Seconds, rising.
        max_ahead: Parts that may be read and not staged, over all shards.
    """

    def __init__(
        self,
        max_attempts: int,
        is_alive: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        max_ahead: float = math.inf,
    ) -> None:
        self._max_attempts, self._is_alive, self._clock = max_attempts, is_alive, clock
        self._max_ahead = max_ahead
        self._open: dict[Work, list[Try]] = {}
        self._survived: set[Work] = set()
        self._given_up: set[Work] = set()
        self._is_draining = False
        self._done: dict[StageName, dict[str, int]] = {stage: {} for stage in STAGES}  # a bit for each part
        self._num_done: dict[StageName, int] = dict.fromkeys(STAGES, 0)

    def begin(self, stage: StageName, shard: str, part: int = 0, node: str = "") -> int:
        """Note one more try.

        Returns:
            The how manyth that counts it is, from 1; above `max_attempts` it must not be made; 0: nor now, since
            nothing more is purified.
        """
        if self._is_draining and stage == "purifying":
            return 0
        work = Work(stage, shard, part)
        if work in self._given_up:  # an engine that lost its result asks again
            return self._max_attempts + 1
        lost = [one for one in self._open.get(work, ()) if self._is_alive(one.node)]
        forgiven = min(len(self._survived), MERCY * self._max_attempts)
        number = 1 + max(0, len(lost) - forgiven)
        if number > self._max_attempts:
            self._given_up.add(work)
            self._open.pop(work, None)
        else:
            self._open[work] = [*lost, Try(node, self._clock())]
        return number

    def advance(self, shard: str, part: int) -> None:
        """Note that a reader hands on a part; one that gets further than any before starts anew."""
        if part >= self.num_read(shard):
            work = Work("reading", shard)
            self._open[work] = self._open.get(work, [])[-1:]
        self._note_done("reading", shard, part)

    def num_read(self, shard: str) -> int:
        """How many parts readers have handed on of a shard."""
        return self._done["reading"].get(shard, 0).bit_length()

    def may_hand_on(self, shard: str, part: int) -> bool:
        """Whether a reader should hand on this part now, or wait until more of those before it are staged.

        Never held back are parts that are handed on again, since what is ahead may wait for them.
        """
        ahead = self._num_done["reading"] - self._num_done["staging"]
        return ahead < self._max_ahead or part < self.num_read(shard) or self._is_draining

    def end(self, stage: StageName, shard: str, part: int = 0) -> None:
        """Note that a try came to its end, whatever came of it."""
        work = Work(stage, shard, part)
        if len(self._open.pop(work, ())) > 1:
            self._survived.add(work)
        if stage != "reading":
            self._note_done(stage, shard, part)

    def drain(self) -> int:
        """Begin no more purification.

        Returns:
            How many parts are being purified, or wait purified for being staged.
        """
        self._is_draining = True
        waiting = {
            shard: parts & ~self._done["staging"].get(shard, 0) for shard, parts in self._done["purifying"].items()
        }
        being = sum(work.stage == "purifying" and bool(tries) for work, tries in self._open.items())
        return being + sum(parts.bit_count() for parts in waiting.values())

    def progress(self) -> Progress:
        """Where the graph stands."""
        now = self._clock()
        under_way = [
            UnderWay(work, now - tries[-1].since)
            for work, tries in self._open.items()
            if tries and self._is_alive(tries[-1].node)
        ]
        under_way.sort(key=lambda one: -one.for_s)
        return Progress(tuple(under_way), dict(self._num_done))

    def _note_done(self, stage: StageName, shard: str, part: int) -> None:
        before = self._done[stage].get(shard, 0)
        self._done[stage][shard] = before | 1 << part
        self._num_done[stage] += not before >> part & 1
