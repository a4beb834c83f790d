from __future__ import annotations

import os
import signal
import threading

import pytest

from pipeline.errors import LeaseError
from pipeline.stopping import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: int) -> None:
    stop = Stop()
    before = signal.getsignal(number)
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert stop.is_asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt):
        stop.insist()


def test_whatever_asks_first_is_the_reason() -> None:
    stop = Stop()
    stop.insist()
    stop.ask(LeaseError("another's"))
    stop.ask(KeyboardInterrupt())
    with pytest.raises(LeaseError):
        stop.insist()


def test_people_are_told_once_that_it_stops() -> None:
    stop, told = Stop(), list[str]()
    stop.tell_once(told.append)
    assert told == []
    stop.ask(KeyboardInterrupt())
    stop.tell_once(told.append)
    stop.tell_once(told.append)
    assert len(told) == 1
    assert "Another Ctrl-C ends at once" in told[0]


def test_in_another_thread_signals_stay_what_they_were() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with Stop().on_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_people_are_told_why_it_stops_when_they_did_not_ask() -> None:
    stop, told = Stop(), list[str]()
    stop.ask(LeaseError("run 7 took over."))
    stop.tell_once(told.append)
    assert told[0].startswith("stopping: run 7 took over. No new parts")
    assert "Another" not in told[0]  # their first Ctrl-C will be that
