from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from pipeline.classifiers.gate import Gate
from pipeline.errors import SpentError


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.now = 0.0
        self.turns = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


def test_requests_are_spaced_evenly_however_many_ask_at_once():
    clock = Clock()

    async def ask():
        gate = Gate(rate_per_s=4, clock=clock, sleep=clock.sleep)
        sent = []

        async def one():
            await gate.admit(1)
            sent.append(clock())

        await asyncio.gather(*(one() for _ in range(9)))
        clock.now = 100.0  # after a pause there is no burst
        await asyncio.gather(*(one() for _ in range(3)))
        return sent

    assert asyncio.run(ask()) == [i / 4 for i in range(9)] + [100.0, 100.25, 100.5]


def test_without_a_rate_nobody_sleeps():
    async def never(seconds):
        raise AssertionError(seconds)

    asyncio.run(Gate(sleep=never).admit(1))


def test_a_chunk_without_room_for_all_of_it_is_not_begun_and_nothing_else_is():
    async def ask():
        gate = Gate(max_queries=10, where="classifier signs")
        with gate.promised(6):
            await gate.admit(4)
            said = "classifier signs: max_queries 10: 6 images are asked about in this run"
            with pytest.raises(SpentError, match=said), gate.promised(5):
                pass
            await gate.admit(2)  # what was begun goes on
        with pytest.raises(SpentError), gate.promised(1):  # though there would be room
            pass
        return gate.num_asked

    assert asyncio.run(ask()) == 6


def test_a_retry_takes_what_no_other_chunk_was_promised_and_no_more():
    async def ask():
        gate = Gate(max_queries=10)
        promised = asyncio.Event()

        async def other():
            with gate.promised(4):
                promised.set()
                await asyncio.sleep(0)
                await gate.admit(4)

        async def retrying():
            await promised.wait()
            with gate.promised(4):
                await gate.admit(4)
                await gate.admit(2)
                with pytest.raises(SpentError):
                    await gate.admit(1)

        await asyncio.gather(other(), retrying())
        return gate.num_asked

    assert asyncio.run(ask()) == 10


def test_what_a_chunk_that_failed_did_not_ask_is_free_again():
    async def ask():
        gate = Gate(max_queries=10)
        with suppress(RuntimeError), gate.promised(8):
            await gate.admit(2)
            raise RuntimeError
        with gate.promised(8):
            await gate.admit(8)
        return gate.num_asked

    assert asyncio.run(ask()) == 10


def test_a_gate_without_a_cap_stays_open_when_its_count_is_lost():
    gate = Gate()
    gate.close("the count was lost")
    gate.check()
    capped = Gate(max_queries=5)
    capped.close("the count was lost")
    with pytest.raises(SpentError, match=r"the count was lost\. Run again to go on"):
        capped.check()
