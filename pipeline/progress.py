"""What is known of a running job: `View` notes its facts, and knows neither terminal nor log.

`pipeline.screen` draws it. What is shown as "about" is judged by bytes, since nobody counts a
shard's samples before it is read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.commit import Committed
from pipeline.facts import Fact, Failed, Planned, Slowest, Started, Summary
from pipeline.parts import Receipt

RATE_S = 30.0
"""Seconds that the shown rate is averaged over."""

SETTLE_S = 5.0
"""Seconds after which a guess of the time left is better than none."""

Clock = Callable[[], float]


@dataclass(slots=True)
class View:
    """The state of a run, as far as its facts tell it.

    Args:
        clock: Seconds, rising.
        summary: Counts, as the run itself keeps them.
        samples: Received samples that went through, of any status.
    """

    clock: Clock = time.monotonic
    summary: Summary = field(default_factory=lambda: Summary(""))
    samples: int = 0
    device: str = ""
    purifiers: int = 0
    slowest: Slowest | None = None
    _began: float = 0.0
    _started: float | None = None
    _first: tuple[float, int] | None = None  # when the first part came, and the bytes done by then
    _last: float | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _committed_bytes: int = 0
    _staged_bytes: dict[str, int] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def note(self, fact: Fact) -> None:
        """Take in a fact."""
        self.summary.note(fact)
        match fact:
            case Slowest():
                self.slowest = fact
            case Started():
                self.device, self.purifiers, self._started = fact.device, fact.purifiers, self.clock()
            case Receipt():
                self._note_receipt(fact)
            case Committed():
                self._committed_bytes += fact.record["source"]["size"]
                self._staged_bytes.pop(fact.shard, None)
            case Failed() if self.summary.planned is not None:  # what is refused before was never planned
                self._staged_bytes.pop(fact.shard, None)
                self._lost.add(fact.shard)
            case _:
                pass

    def _note_receipt(self, receipt: Receipt) -> None:
        self.samples += receipt.samples
        if receipt.is_in and receipt.shard not in self._lost:
            staged = self._staged_bytes.get(receipt.shard, 0)
            self._staged_bytes[receipt.shard] = staged + receipt.size_bytes
        if receipt.outcome == "staged":
            self._last = now = self.clock()
            self._first = self._first or (now, self.size_done_bytes)
            self._recent.append((now, receipt.images))
            while self._recent[0][0] < now - RATE_S:
                self._recent.popleft()

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self._began

    @property
    def planned(self) -> Planned:
        return self.summary.planned or Planned(0, 0, 0, 0)

    @property
    def phase(self) -> str:
        """What the run is at, in a word or two."""
        if self.summary.planned is None:
            return "looking"
        if not self.device:
            return "starting" if self.planned.to_purify or self.planned.to_ask else "nothing to do"
        if len(self.summary.committed) + len(self._lost) < self.planned.to_purify:
            return "purifying" if self.summary.parts else "waiting for the first part"
        return "asking" if self.planned.to_ask or self.summary.asked or self.summary.unanswered else "finishing"

    @property
    def size_done_bytes(self) -> int:
        """Received bytes that are done: of committed shards exactly, of open ones judged by what is staged."""
        open_bytes = sum(self._staged_bytes.values())
        return min(self._committed_bytes + open_bytes, self.planned.size_bytes)

    @property
    def images_per_s(self) -> float | None:
        """Over the last half minute; None before there is anything to divide by."""
        if not self._recent:
            return None
        since, now = self._recent[0][0], self.clock()
        images = sum(count for _, count in self._recent) - self._recent[0][1]
        return images / (now - since) if now > since and images else None

    @property
    def mean_images_per_s(self) -> float | None:
        """From when the graph was up until its last part."""
        if self._started is None or self._last is None or self._last <= self._started:
            return None
        return self.summary.images / (self._last - self._started)

    @property
    def seconds_left(self) -> float | None:
        """By the bytes done since the first part came; None while that says nothing."""
        done, size = self.size_done_bytes, self.planned.size_bytes
        if self._first is None or not self._first[1] < done < size:
            return None
        took = self.clock() - self._first[0]
        return took * (size - done) / (done - self._first[1]) if took >= SETTLE_S else None

    @property
    def num_errors(self) -> int:
        """Samples without a purified image, as far as their shards are committed."""
        return sum(count for status, count in self.summary.statuses.items() if status != "ok")

    def line(self) -> str:
        """The run in one line, for a log."""
        plan, summary = self.planned, self.summary
        parts = [f"{self.phase}: shards {len(summary.committed):,}/{plan.to_purify:,}"]
        parts.append(f"{summary.images:,} images")
        if (rate := self.images_per_s) is not None:
            parts.append(f"{rate_of(rate)} images/s")
        if (left := self.seconds_left) is not None:
            parts.append(f"about {duration(left)} left")
        if summary.asked or summary.unanswered:
            parts.append(f"{many(len(summary.asked), 'shard')} answered, {summary.flipped:,} flipped")
        if self.num_errors:
            parts.append(f"{many(self.num_errors, 'sample')} not purified")
        if summary.failed:
            parts.append(f"{many(len(summary.failed), 'shard')} failed")
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, str]]:
        """The run as names and values, for a screen; the first has no name."""
        plan, summary = self.planned, self.summary
        rate = f", {rate_of(self.images_per_s)} images/s" if self.images_per_s is not None else ""
        rows = [
            ("", self._headline()),
            ("shards", f"{len(summary.committed):,} of {plan.to_purify:,} committed"),
            ("bytes", f"about {size_of(self.size_done_bytes)} of {size_of(plan.size_bytes)}"),
            ("images", f"{summary.images:,}{rate}; {self.samples:,} samples so far"),
            ("parts", counts(summary.parts) or "none yet"),
        ]
        if self.slowest is not None and self.phase == "purifying":
            waiting = self.slowest.waiting
            waits = (
                f"{many(waiting, 'part')} wait{'s' if waiting == 1 else ''} for it"
                if waiting
                else "the others wait for it"
            )
            rows.append(("slowest", f"{self.slowest.stage}: {waits}"))
        if plan.to_ask or summary.asked or summary.unanswered:
            flipped = f"{summary.flipped:,} flipped of {sum(summary.answers.values()):,}"
            is_open = f"; {many(len(summary.unanswered), 'shard')} open" if summary.unanswered else ""
            rows.append(("answers", f"{many(len(summary.asked), 'shard')}, {flipped}{is_open}"))
        if self.num_errors or summary.failed:
            rows.append(
                (
                    "errors",
                    f"{many(self.num_errors, 'sample')} not purified, {many(len(summary.failed), 'shard')} failed",
                )
            )
        return rows

    def _headline(self) -> str:
        where = f" on {self.purifiers} x {self.device}" if self.device else ""
        left = f", about {duration(self.seconds_left)} left" if self.seconds_left is not None else ""
        return f"{self.phase}{where}, {duration(self.elapsed_s)}{left}"


def counts(by_name: dict[str, int]) -> str:
    """'1,200 ok, 3 undecodable'."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(by_name.items(), key=lambda item: -item[1]))


def many(count: int, name: str) -> str:
    """'1 shard', '1,200 shards'."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """'42 s', '12 min', '3 h 05 min'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def size_of(size_bytes: float) -> str:
    """'1.2 GiB'."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def rate_of(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 10 else f"{images_per_s:.2f}"
