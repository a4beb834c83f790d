"""What people see while a job runs: a live view on a terminal, a line every few seconds elsewhere.

Both write to stderr, so that stdout holds the closing table alone. A dumb terminal gets lines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.ask import Asked
from pipeline.facts import Fact, Failed, Planned, Started, Summary, Warned, Watch
from pipeline.progress import View, counts, duration, rate_of
from pipeline.verdict import verdict

REDRAW_S = 0.5
LINE_S = 5.0
SAME_LINE_S = 60.0
"""After how long a line that says nothing new comes again: a log shall show that the run is alive."""

MAX_LISTED = 20


class Renderer(Protocol):
    """Draws a view while its block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, fact: Fact) -> None:
        """Called after the view noted a fact."""
        ...


@contextmanager
def watching(view: View, console: Console | None = None) -> Iterator[Watch]:
    """Hand out what a job tells its facts to, drawn in the way that the console can take.

    Args:
        view: The state; stays after the block.
        console: Where to draw; none: stderr.
    """
    console = console or Console(stderr=True)
    is_live = console.is_terminal and not console.is_dumb_terminal
    renderer: Renderer = LiveView(view, console) if is_live else LogLines(view, console)

    def watch(fact: Fact) -> None:
        view.note(fact)
        renderer.show(fact)

    with renderer:
        yield watch


class LiveView:
    """One view on a terminal, redrawn at most twice a second; gone at the end, when the table comes."""

    def __init__(self, view: View, console: Console) -> None:
        self._view, self._console = view, console
        # stdout stays whatever the command made of it: Ray prints there
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._drawn = float("-inf")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, fact: Fact) -> None:
        if (message := told(fact)) is not None:
            self._console.print(Text(message))
        now = self._view.clock()
        if now - self._drawn >= REDRAW_S or isinstance(fact, Planned | Started):
            self._drawn = now
            self._live.update(self._drawing(), refresh=True)

    def _drawing(self) -> Any:  # noqa: ANN401 - a rich renderable
        view = self._view
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for name, value in view.rows():
            table.add_row(name or "zipstage", Text(value, style="bold" if not name else ""))
            if name == "bytes" and view.planned.size_bytes:
                table.add_row("", ProgressBar(view.planned.size_bytes, view.size_done_bytes, width=40))
        return table


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

    def show(self, fact: Fact) -> None:
        if (message := told(fact)) is not None:
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


def told(fact: Fact) -> str | None:
    """The message of a fact that people should not miss; None of the others."""
    match fact:
        case Warned():
            return f"warning: {fact.message}"
        case Failed():
            return f"failed: {fact.error}"
        case Asked(error=str() as reason) | Asked(away=str() as reason):
            return f"unanswered: shard {fact.shard}: {reason}"
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
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_LISTED
    return lines[:MAX_LISTED] + ([f"... and {more:,} more, see runs/ in the output"] if more > 0 else [])
