"""One view on a terminal while a job runs, redrawn calmly; gone at the end, when the table comes.

A trap: most terminals that are made narrower break what stands there into more rows, and what redraws erases as many
rows as it drew: the rest would stay for good. So lines are short, and rows that a narrower terminal made are erased
as well.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from pipeline.facts import Fact, Planned, Started
from pipeline.progress import View

REDRAW_S = 0.5

MAX_WIDTH = 78
"""Columns of the view on terminals of any width: most are never made narrower than that."""

_NAME_WIDTH = 10
_BAR_WIDTH = 40
_ERASE_ROW = (ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))


class LiveView:
    """Draws a view, and what people should not miss above it; at most twice a second.

    Args:
        view: The state, which has noted each fact before it comes here.
        console: A terminal.
    """

    def __init__(self, view: View, console: Console) -> None:
        self._view, self._console = view, console
        # stdout stays whatever the command made of it: Ray prints there
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._drawn_at = float("-inf")
        self._lines: list[Text] = []
        self._width = console.width  # when they were drawn

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heed_width()
        self._live.__exit__(kind, error, trace)

    def show(self, fact: Fact, message: str | None) -> None:
        """Called after the view noted a fact.

        Args:
            fact: It.
            message: What people should not miss of it.
        """
        if message is not None:
            self._heed_width()
            self._console.print(Text(message), soft_wrap=True)  # a terminal's own wrapping can be copied and undone
        now = self._view.clock()
        if now - self._drawn_at >= REDRAW_S or isinstance(fact, Planned | Started):
            self._heed_width()
            self._drawn_at, self._lines = now, self._drawing()
            self._live.update(Group(*self._lines), refresh=True)

    def _heed_width(self) -> None:
        """Erase the rows that the drawn lines have beyond one each, since the terminal was made narrower."""
        width, before = self._console.width, self._width
        self._width = width
        if width >= before:
            return
        drawn = (min(line.cell_len, before) for line in self._lines[: self._console.height])
        num_more = sum(max(0, -(-cells // width) - 1) for cells in drawn)
        self._console.control(Control(*_ERASE_ROW * num_more))

    def _drawing(self) -> list[Text]:
        lines = []
        for name, value in self._view.rows():
            lines.append(_line(name or "zipstage", value, is_headline=not name))
            if name == "bytes" and self._view.planned.size_bytes:
                lines.append(_line("", self._bar(self._view.size_done_bytes / self._view.planned.size_bytes)))
        return lines

    def _bar(self, share: float) -> str:
        """Says with its characters and a number what is done: colours aren't everywhere, nor for everyone."""
        done = round(share * _BAR_WIDTH)
        full, empty = "#." if self._console.options.ascii_only else "█░"
        return f"{share:4.0%} {full * done}{empty * (_BAR_WIDTH - done)}"


def _line(name: str, value: str, *, is_headline: bool = False) -> Text:
    line = Text.assemble(
        (name.ljust(_NAME_WIDTH), "dim"), (value, "bold" if is_headline else ""), no_wrap=True, overflow="ellipsis"
    )
    line.truncate(MAX_WIDTH, overflow="ellipsis")
    return line
