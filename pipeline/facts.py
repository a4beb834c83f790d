"""What a run emits about itself; terminal, log and summary subscribe. Watching is not the work's business."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.alert import Alert
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.errors import ALERT
from pipeline.parts import Receipt
from zipstage.errors import ZipstageError

if TYPE_CHECKING:
    from pipeline.log import Journal
    from pipeline.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Planned:
    """The work is frozen: shards received, those to purify with their bytes, those to ask about alone."""

    shards: int
    to_purify: int
    to_ask: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """The graph is up: where it runs, with how many purifiers."""

    device: str
    purifiers: int


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that people should read, and that stops nothing; about a shard and a part, where it is about one."""

    message: str
    shard: str | None = None
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A shard that this run could not finish: why, at which part if at one, and what a scheduler should make of it."""

    shard: str
    error: str
    exit_code: int = 1
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Slowest:
    """The stage of the graph that the others wait for, and how many parts wait for it."""

    stage: str
    waiting: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing new for about a second; a view may want to redraw."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The run came to its end, by itself or stopped; one that raises tells of none."""

    summary: Summary


Fact = Planned | Started | Warned | Receipt | Committed | Asked | Failed | Slowest | Idle | Ended
Watch = Callable[[Fact], None]


@dataclass(slots=True)
class Summary:
    """What a run came to, counted from its facts; `exit_code` is the command's.

    Args:
        run: Name of the run.
        planned: The frozen work.
        committed: Shards made whole by this run.
        asked: Shards whose answers were completed by this run.
        failed: Shards that are not, with the reason.
        unanswered: Shards that are whole and whose answers are missing, with the reason.
        statuses: Samples by status, of the shards committed by this run.
        answers: Rows by status, of the shards asked about by this run.
        flipped: Rows whose answer changed.
        parts: Parts by outcome.
        images: Images purified by this run.
        alert: Whether the flips concentrate on a class; none: not looked at.
        latest: Where this output was named as the latest, or what stays so; none: it isn't whole.
        interrupted: Whether it was stopped.
        error: What ended the run before its end, in one line.
        journal: The log that the run leaves.
        timeline: When what went through, for its report.
        report: Where its report was written.
    """

    run: str
    planned: Planned | None = None
    committed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    flipped: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    images: int = 0
    exit_codes: set[int] = field(default_factory=set)
    alert: Alert | None = None
    latest: str | None = None
    interrupted: bool = False
    error: str | None = None
    error_code: int = 1
    journal: Journal | None = None
    timeline: Timeline | None = None
    report: str | None = None

    def note(self, fact: Fact) -> None:
        """Count a fact."""
        match fact:
            case Planned():
                self.planned = fact
            case Receipt():
                self.parts[fact.outcome] = self.parts.get(fact.outcome, 0) + 1
                self.images += fact.images if fact.outcome == "staged" else 0
            case Committed():
                self.committed.append(fact.shard)
                _add(self.statuses, fact.statuses)
            case Failed():
                self.failed[fact.shard] = fact.error
                self.exit_codes.add(fact.exit_code)
            case Asked(away=None, error=None):
                self.asked.append(fact.shard)
                _add(self.answers, fact.statuses)
                self.flipped += fact.flipped
            case Asked():
                self.unanswered[fact.shard] = fact.error or fact.away or ""
                self.exit_codes.add(fact.exit_code)
            case _:
                pass

    def end(self, error: Exception) -> None:
        """Note what ended the run; whatever isn't raised on purpose is a bug, and its exit code 1."""
        self.error = str(error) if isinstance(error, ZipstageError) else f"{type(error).__name__}: {error}"
        self.error_code = error.exit_code if isinstance(error, ZipstageError) else 1

    @property
    def exit_code(self) -> int:
        """0 all done; 1 a shard not committed; 2 a classifier that refuses; 75 later; 3 the alert fired; 130 stopped.

        What ended the run comes before what became of its shards, and what is missing before the alert: it is
        looked for again when all is there.
        """
        if self.interrupted:
            return 130
        if self.error is not None:
            return self.error_code
        all_done = ALERT if self.alert is not None and self.alert.fired else 0
        return next((code for code in (1, 2, 75) if code in self.exit_codes), all_done)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "exit_code": self.exit_code,
            "error": self.error,
            "shards": self.planned.shards if self.planned else 0,
            "committed": sorted(self.committed),
            "asked": sorted(self.asked),
            "failed": dict(sorted(self.failed.items())),
            "unanswered": dict(sorted(self.unanswered.items())),
            "statuses": self.statuses,
            "answers": self.answers,
            "flipped": self.flipped,
            "alert": self.alert.to_dict() if self.alert else None,
            "parts": self.parts,
            "images": self.images,
        }


def new_run() -> str:
    """A name for a run that has none: when it began, and what tells two of that second apart."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
