"""When what went through: a run's throughput stage by stage, in a bounded number of buckets, for its report.

Subscribes to the run's facts. Buckets grow twice as wide when there are too many, so that a night takes
no more memory than a minute. A part counts when its receipt comes, which is after it was staged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Fact, Started, Warned
from pipeline.parts import Receipt

MAX_BUCKETS = 240
MAX_WARNINGS = 50

STAGES = ("read", "purify", "stage", "commit", "ask")
"""In the order in which data meets them: samples, images, bytes, samples, samples."""


class Timeline:
    """What a run's facts say about time.

    Args:
        clock: Seconds, rising.
        now: The time of day, seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began_s = clock()
        self._began = datetime.fromtimestamp(now(), UTC)
        self._bucket_s = 1.0
        self._counts: dict[str, list[int]] = {stage: [] for stage in STAGES}
        self._warnings: list[str] = []
        self._num_warnings = 0
        self._device, self._purifiers = "", 0
        self._started_s: float | None = None
        self._last_part_s: float | None = None

    def note(self, fact: Fact) -> None:
        """Take in a fact."""
        match fact:
            case Receipt():
                self._add("read", fact.samples)
                if fact.outcome == "staged":
                    self._add("purify", fact.images)
                    self._add("stage", fact.size_bytes)
                    self._last_part_s = self._elapsed_s
            case Committed():
                self._add("commit", sum(fact.statuses.values()))
            case Asked(away=None, error=None):
                self._add("ask", sum(fact.statuses.values()))
            case Started():
                self._device, self._purifiers = fact.device, fact.purifiers
                self._started_s = self._elapsed_s
            case Warned():
                self._num_warnings += 1
                self._warnings += [fact.message] if len(self._warnings) < MAX_WARNINGS else []
            case _:
                pass

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: when the run began, and what went through in each bucket; times are seconds since then."""
        return {
            # To the millisecond: the newest of two runs within a second is the one that a page is made of.
            "began": self._began.isoformat(timespec="milliseconds"),
            "seconds": round(self._elapsed_s, 3),
            "started_s": self._started_s,
            "last_part_s": self._last_part_s,
            "device": self._device,
            "purifiers": self._purifiers,
            "bucket_s": self._bucket_s,
            "stages": {stage: list(counts) for stage, counts in self._counts.items()},
            "warnings": list(self._warnings),
            "num_warnings": self._num_warnings,
        }

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def _add(self, stage: str, count: int) -> None:
        elapsed_s = self._elapsed_s
        while elapsed_s >= MAX_BUCKETS * self._bucket_s:
            self._widen()
        bucket, counts = int(elapsed_s / self._bucket_s), self._counts[stage]
        counts.extend([0] * (bucket + 1 - len(counts)))
        counts[bucket] += count

    def _widen(self) -> None:
        self._bucket_s *= 2
        for stage, counts in self._counts.items():
            self._counts[stage] = [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
