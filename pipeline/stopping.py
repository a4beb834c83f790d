"""A run that shall end before its work is done: asked to by a signal, or because its lease is another's.

What asks only leaves its reason; the main path looks at it between two parts, lets the engine stage
what is purified, and then ends with the reason. A second signal doesn't wait for that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DRAIN_S = 15.0
"""Seconds that purified parts have to be staged in; a stopped process has some 30 in all, and to end Ray takes some."""


class Stop:
    """Whether a run shall end, and with what; safe to ask from any thread."""

    def __init__(self) -> None:
        self.reason: BaseException | None = None
        self._is_told = False

    def ask(self, reason: BaseException) -> None:
        """Ask for the end; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def is_asked(self) -> bool:
        return self.reason is not None

    def insist(self) -> None:
        """Raise the reason, when there is one."""
        if self.reason is not None:
            raise self.reason

    def tell_once(self, tell: Callable[[str], None]) -> None:
        """Say what goes on, the first time that it is asked for the end."""
        if self.is_asked and not self._is_told:
            self._is_told = True
            is_signalled = isinstance(self.reason, KeyboardInterrupt)
            why, again = ("", "Another Ctrl-C") if is_signalled else (f" {self.reason}", "Ctrl-C")
            tell(f"stopping:{why} No new parts are begun, what is purified is staged. {again} ends at once.")

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """While the block runs the first Ctrl-C or SIGTERM asks for the end, and the next one interrupts.

        Outside of the main thread, where Python takes no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._noted) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _noted(self, signum: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.ask(KeyboardInterrupt())
