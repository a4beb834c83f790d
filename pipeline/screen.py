"""What people see while a job runs: a live view on a terminal, a line every few seconds elsewhere, JSON when asked.

All write to stderr, so that stdout holds the closing table alone. A dumb terminal gets lines, and so does a CI, whose
terminal nobody sits at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console

from pipeline.ask import Asked
from pipeline.config import LogFormat
from pipeline.facts import Fact, Failed, Planned, Started, Summary, Warned, Watch
from pipeline.live import LiveView
from pipeline.log import SAME_LINE_S, RunLog
from pipeline.plain import plain
from pipeline.progress import View, counts, duration, rate_of
from pipeline.verdict import verdict

LINE_S = 5.0

MAX_LISTED = 20


class Renderer(Protocol):
    """Draws a view while its block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, fact: Fact, message: str | None) -> None:
        """Called after the view noted a fact, with what people should not miss of it."""
        ...


@contextmanager
def watching(
    view: View, console: Console | None = None, log_format: LogFormat = "text", run: str = ""
) -> Iterator[Watch]:
    """Hand out what a job tells its facts to, drawn in the way that the console can take.

    Args:
        view: The state; stays after the block.
        console: Where to draw; none: stderr.
        log_format: `json` for a log of objects, on whatever console.
        run: The run's name, for such a log.
    """
    console = console or Console(stderr=True)
    renderer: Renderer = LogLines(view, console)
    if log_format == "json":
        renderer = JsonLines(view, console, run)
    elif _is_screen(console):
        renderer = LiveView(view, console)

    def watch(fact: Fact) -> None:
        view.note(fact)
        renderer.show(fact, told(fact))

    with renderer:
        yield watch


def _is_screen(console: Console) -> bool:
    """Whether there is a terminal that can be drawn on, and somebody before it."""
    is_forced = "FORCE_COLOR" in os.environ and not console.file.isatty()  # colours are wanted, and there is no screen
    return console.is_terminal and not console.is_dumb_terminal and not is_forced and not os.environ.get("CI")


class LogLines:
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, view: View, console: Console) -> None:
        self._view, self._console = view, console
        self._printed, self._last = view.clock(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, fact: Fact, message: str | None) -> None:
        if message is not None:
            self._print(message)
        silent_s = self._view.clock() - self._printed
        if silent_s < LINE_S and not isinstance(fact, Planned | Started):
            return
        line = self._view.line()
        if line != self._last or silent_s >= SAME_LINE_S:
            self._printed, self._last = self._view.clock(), line
            self._print(line)

    def _print(self, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._console.print(f"{stamp} {line}", soft_wrap=True, markup=False, highlight=False, emoji=False)


class JsonLines:
    """The same for machines: an object a line."""

    def __init__(self, view: View, console: Console, run: str) -> None:
        self._view, self._file = view, console.file
        self._log = RunLog(view, run, self._print, LINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # then the run itself has told of its end
            return
        if isinstance(error, Exception):
            self._view.summary.end(error)
        self._view.summary.interrupted = isinstance(error, KeyboardInterrupt)
        self._log.end(self._view.summary)

    def show(self, fact: Fact, message: str | None) -> None:
        self._log.note(fact)

    def _print(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()


def told(fact: Fact) -> str | None:
    """The message of a fact that people should not miss; None of the others."""
    match fact:
        case Warned():
            return plain(f"warning: {fact.message}")
        case Failed():
            return plain(f"failed: {fact.error}")
        case Asked(error=str() as reason) | Asked(away=str() as reason):
            return plain(f"unanswered: shard {fact.shard}: {reason}")
        case _:
            return None


def closing_table(view: View, summary: Summary, output: str) -> str:
    """What a run came to: names and values, one a line; at most twenty shards are named of each kind.

    Args:
        view: The state that was drawn; knows the rate.
        summary: What the run returned.
        output: Where it went.
    """
    planned = summary.planned or Planned(0, 0, 0, 0)
    rows = [("samples", counts(summary.statuses) or "none")]
    rows.append(
        ("shards", f"{len(summary.committed):,} of {planned.to_purify:,} committed, {len(summary.failed):,} failed")
    )
    if (earlier := planned.shards - planned.to_purify) > 0:
        rows.append(("", f"{earlier:,} not purified now: committed earlier, or refused"))
    rows += [("failed", reason) for reason in _some(list(summary.failed.values()))]
    if summary.asked or summary.unanswered or planned.to_ask:
        rows.append(("answers", counts(summary.answers) or "none"))
        rows.append(("flipped", f"{summary.flipped:,} of {sum(summary.answers.values()):,}"))
    rows += [("unanswered", line) for line in _some([f"{name}: {why}" for name, why in summary.unanswered.items()])]
    if (rate := view.mean_images_per_s) is not None:
        rows.append(("speed", f"{rate_of(rate)} images/s, {duration(view.elapsed_s)} in all"))
    if summary.interrupted:
        rows.append(("stopped", "run the same command again: it does only what is missing"))
    if summary.alert is not None:
        rows.append(("alert", f"{'FIRED: ' if summary.alert.fired else 'quiet: '}{summary.alert.words}"))
    rows.append(("output", output))
    if summary.report is not None:
        rows.append(("report", summary.report))
    if summary.latest is not None:
        rows.append(("latest", summary.latest))
    rows.append(("end", verdict(summary)))
    return "\n".join(f"{name:<11}{plain(value)}" for name, value in rows)


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_LISTED
    return lines[:MAX_LISTED] + ([f"... and {more:,} more, see runs/ in the output"] if more > 0 else [])
