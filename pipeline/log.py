"""A run's log as JSON, one object a line, for whoever collects logs; what is told on a terminal, and each shard's end.

Every line has `time` (RFC 3339, UTC), `level`, `run`, `event` and `message`; `shard` and `part` where it is about one.
Messages may hold what others wrote: a line is ASCII, without control characters, and bounded.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.errors import ALERT, TRY_AGAIN
from pipeline.facts import Ended, Fact, Failed, Planned, Started, Summary, Warned
from pipeline.parts import Receipt
from pipeline.plain import plain
from pipeline.progress import View, counts, many, size_of
from pipeline.verdict import verdict

Level = Literal["info", "warning", "error"]
Event = tuple[Level, str, str, Mapping[str, Any]]
Now = Callable[[], datetime]

SAME_LINE_S = 60.0
"""After how long progress that says nothing new is told again: a log shall show that the run is alive."""

KEPT_S = 60.0
"""Seconds between two lines of progress in the log that a run leaves in its output."""

_INTERRUPTED = 130
_IN_HAND = (ALERT, TRY_AGAIN, _INTERRUPTED)
"""Exit codes that tell of no fault."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class RunLog:
    """Writes a line for each fact that people are told, and one about the progress every few seconds.

    Args:
        view: The state of the run, which has noted each fact before it comes here.
        run: The run's name.
        write: Takes a line, without its end.
        every_s: Seconds between two lines of progress.
        now: The time of day.
    """

    def __init__(self, view: View, run: str, write: Callable[[str], None], every_s: float, now: Now = utc_now) -> None:
        self._view, self._run, self._write, self._now = view, run, write, now
        self._every_s = every_s
        self._told_at, self._told = view.clock(), ""

    def note(self, fact: Fact) -> None:
        """Write what is to be told of a fact, and the progress when it is time."""
        if isinstance(fact, Ended):
            self.end(fact.summary)
            return
        if (event := _event(fact)) is not None:
            self.tell(*event)
        silent_s = self._view.clock() - self._told_at
        if silent_s >= self._every_s:
            words = self._view.line()
            if words != self._told or silent_s >= SAME_LINE_S:
                self._told_at, self._told = self._view.clock(), words
                self.tell("info", "progress", words, _progress(self._view))

    def end(self, summary: Summary) -> None:
        """Write how the run ended."""
        code = summary.exit_code
        level: Level = "info" if code == 0 else "warning" if code in _IN_HAND else "error"
        words = verdict(summary) if summary.error is None else f"exit {code}: {summary.error}"
        facts = {"exit_code": code, "statuses": summary.statuses, "answers": summary.answers}
        self.tell(level, "ended", words, {**facts, "flipped": summary.flipped, "images": summary.images})

    def tell(self, level: Level, event: str, message: str, facts: Mapping[str, Any]) -> None:
        """Write a line."""
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write(
            as_line({"time": time, "level": level, "run": self._run, "event": event, "message": message, **facts})
        )


class Journal:
    """The log that a run leaves in its output: its first lines and its last ones, so that no night grows it.

    Args:
        run: The run's name.
        now: The time of day.
    """

    HEAD_BYTES, TAIL_BYTES = 256 << 10, 768 << 10

    def __init__(self, run: str, now: Now = utc_now) -> None:
        self._view = View()
        self._log = RunLog(self._view, run, self._keep, KEPT_S, now)
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_bytes = self._tail_bytes = self._num_dropped = 0

    def note(self, fact: Fact) -> None:
        self._view.note(fact)
        self._log.note(fact)

    def ended(self, summary: Summary) -> bytes:
        """All of it, with how the run ended; what was left out in the middle is counted in a line of its own."""
        self._log.end(summary)
        tail, self._tail, self._tail_bytes = self._tail, deque(), 0
        if self._num_dropped:
            words = f"{self._num_dropped:,} lines are left out here"
            self._log.tell("info", "gap", words, {"lines": self._num_dropped})
        return "".join(f"{line}\n" for line in (*self._head, *self._tail, *tail)).encode()

    def _keep(self, line: str) -> None:
        size = len(line) + 1
        if not self._tail and self._head_bytes + size <= self.HEAD_BYTES:
            self._head.append(line)
            self._head_bytes += size
            return
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > self.TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft()) + 1
            self._num_dropped += 1


def _event(fact: Fact) -> Event | None:
    """Level, event, message and fields of a fact; None of those that nobody is told one by one."""
    match fact:
        case Planned():
            size = size_of(fact.size_bytes)
            words = f"{many(fact.shards, 'shard')}: {fact.to_purify:,} to purify ({size}), {fact.to_ask:,} to ask about"
            return "info", "planned", words, asdict(fact)
        case Started():
            return "info", "started", f"on {fact.purifiers} x {fact.device}", asdict(fact)
        case Warned():
            return "warning", "warning", fact.message, _about(fact.shard, fact.part)
        case Receipt(outcome="failed" | "given up", error=str() as error):
            return "warning", "part_failed", error, {**_about(fact.shard, fact.index), "outcome": fact.outcome}
        case Failed():
            return "error", "shard_failed", fact.error, {**_about(fact.shard, fact.part), "exit_code": fact.exit_code}
        case Committed():
            return "info", "shard_committed", counts(fact.statuses), {"shard": fact.shard, "statuses": fact.statuses}
        case Asked(away=None, error=None):
            words = f"{counts(fact.statuses)}; {fact.flipped:,} flipped"
            facts = {"shard": fact.shard, "statuses": fact.statuses, "flipped": fact.flipped}
            return "info", "shard_answered", words, facts
        case Asked():
            reason = fact.error or fact.away or ""
            return "warning", "shard_unanswered", reason, {"shard": fact.shard, "exit_code": fact.exit_code}
        case _:
            return None


def _about(shard: str | None, part: int | None) -> dict[str, Any]:
    return {name: value for name, value in (("shard", shard), ("part", part)) if value is not None}


def _progress(view: View) -> dict[str, Any]:
    summary = view.summary
    return {
        "phase": view.phase,
        "slowest_stage": view.slowest.stage if view.slowest else None,
        "shards_committed": len(summary.committed),
        "shards_to_purify": view.planned.to_purify,
        "shards_failed": len(summary.failed),
        "shards_answered": len(summary.asked),
        "images": summary.images,
        "images_per_s": None if view.images_per_s is None else round(view.images_per_s, 2),
        "seconds_left": None if view.seconds_left is None else round(view.seconds_left),
        "samples_not_purified": view.num_errors,
        "flipped": summary.flipped,
    }


def as_line(facts: Mapping[str, Any]) -> str:
    """One JSON object in ASCII; texts are plain and bounded."""
    return json.dumps({name: plain(value) if isinstance(value, str) else value for name, value in facts.items()})
