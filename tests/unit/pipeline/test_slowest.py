from __future__ import annotations

import pytest

from pipeline.attempts import Progress, StageName, UnderWay, Work
from pipeline.facts import Slowest
from pipeline.slowest import slowest


def at_work(stage: StageName, count: int) -> tuple[UnderWay, ...]:
    return tuple(UnderWay(Work(stage, "a.tar", part), 1.0) for part in range(count))


@pytest.mark.parametrize(
    ("read", "purified", "staged", "under_way", "expected"),
    [
        (20, 4, 4, at_work("purifying", 2), Slowest("purifying", 14)),
        (20, 19, 4, at_work("purifying", 1) + at_work("staging", 2), Slowest("staging", 13)),
        (20, 10, 8, at_work("purifying", 2), Slowest("purifying", 8)),
        (6, 4, 4, at_work("purifying", 2) + at_work("reading", 1), Slowest("reading", 0)),
        (0, 0, 0, (), Slowest("reading", 0)),
        (5, 5, 5, (), Slowest("reading", 0)),
    ],
)
def test_the_slowest_stage_is_the_one_that_parts_wait_for(
    read: int, purified: int, staged: int, under_way: tuple[UnderWay, ...], expected: Slowest
) -> None:
    progress = Progress(under_way, {"reading": read, "purifying": purified, "staging": staged})
    assert slowest(progress) == expected
