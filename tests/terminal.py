"""A real terminal for tests: a pseudo terminal with pyte behind it, and a process that draws on it step by step.

The process is told when to go on, so nothing is a matter of time: what is on the screen after a step is all that it
drew.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pty
import select
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pyte

PATIENCE_S = 120.0

Step = Callable[[], object]
Script = Callable[[], Iterator[None]]
"""Draws a step each time that it is asked for the next one; runs on the terminal."""


class Terminal:
    """The screen that a process draws on.

    Attributes:
        raw: All that was written so far.
    """

    def __init__(self, columns: int, lines: int, master: int, told: Connection) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=1.0)
        self._stream = pyte.ByteStream(self.screen)
        self._master, self._told = master, told
        self.raw = b""

    def step(self, count: int = 1) -> bool:
        """Let the process draw; False once it has ended, and what it drew at its end is there."""
        for _ in range(count):
            self._told.send("go")
            while self._told not in (ready := select.select([self._master, self._told], [], [], PATIENCE_S)[0]):
                assert ready, "the process on the terminal stands still"
                self._take()
            try:
                self._told.recv()
            except EOFError:
                self._take_all()
                return False
            self._take_all()
        return True

    def end(self) -> None:
        """Let it draw to its end."""
        while self.step():
            pass

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size, as most terminals do: rows that are too long now are broken."""
        rows = self.rows()
        cursor_row = self.screen.cursor.y
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        above, last = rows[:cursor_row], rows[cursor_row] if cursor_row < len(rows) else ""
        broken = [piece for row in above for piece in _broken(row, columns)] + _broken(last, columns)
        self.screen.resize(lines, columns)
        self.screen.reset()
        self._stream.feed("\r\n".join(broken).encode())

    def rows(self) -> list[str]:
        """What is on the screen, without the empty rows below."""
        rows = [row.rstrip() for row in self.screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _take_all(self) -> None:
        while select.select([self._master], [], [], 0)[0]:
            if not self._take():
                return

    def _take(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody is at the other end any more
            return False
        self.raw += data
        self._stream.feed(data)
        return True


def _broken(row: str, columns: int) -> list[str]:
    return [row[at : at + columns] for at in range(0, len(row), columns)] or [""]


@contextmanager
def terminal(
    script: Callable[..., Iterator[None]],
    *arguments: Any,
    columns: int = 80,
    lines: int = 24,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run a script on a terminal of its own; its process is ended with the block, if it still runs.

    Args:
        script: Draws, a step for each `next`; a function of a module.
        arguments: Its arguments.
        columns: Of the window.
        lines: Of the window.
        environment: Variables beside TERM, which is that of a usual terminal.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported all and opened nothing
    context.set_forkserver_preload(["pipeline.job", "pipeline.stages", "zipstage.purifiers.controls"])
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    mine, other = context.Pipe()
    variables = {"TERM": "xterm-256color", **(environment or {})}
    process = context.Process(target=_draw, args=(os.ttyname(slave), other, variables, script, arguments))
    process.start()
    other.close()
    try:
        yield Terminal(columns, lines, master, mine)
    finally:
        process.terminate()
        process.join()
        mine.close()
        os.close(slave)
        os.close(master)


def _draw(
    name: str,
    told: Connection,
    variables: dict[str, str],
    script: Callable[..., Iterator[None]],
    arguments: tuple[Any, ...],
) -> None:
    """Sit down at the terminal, and draw when told to."""
    os.setsid()
    tty = os.open(name, os.O_RDWR)  # the first terminal that a session opens is its own: it hears of its size
    for number in (0, 1, 2):
        os.dup2(tty, number)
    for number in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        os.environ.pop(number, None)
    os.environ.update(variables)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    steps = script(*arguments)
    while True:
        told.recv()
        try:
            next(steps)
        except StopIteration:
            sys.stdout.flush()
            sys.stderr.flush()
            return
        told.send("done")
