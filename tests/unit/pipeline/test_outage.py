from __future__ import annotations

import pytest

from pipeline.commit import Committed
from pipeline.errors import StoreAwayError, StoreRefusedError
from pipeline.facts import Fact, Failed
from pipeline.outage import Outage
from pipeline.parts import Receipt
from pipeline.stopping import Stop


def away(shard: str) -> Failed:
    return Failed(shard, f"{shard}: storage doesn't answer", 75)


def receipt(outcome: str) -> Receipt:
    return Receipt("x.tar", "0" * 12, 0, False, outcome, "the disk is full")  # type: ignore[arg-type]


@pytest.fixture
def stop() -> Stop:
    return Stop()


def test_three_shards_in_a_row_that_find_storage_away_end_the_run_and_are_told(stop: Stop) -> None:
    told: list[Fact] = []
    outage = Outage(told.append, stop)
    outage.tell(away("a"))
    outage.tell(away("b"))
    assert not stop.is_asked
    outage.tell(away("c"))
    with pytest.raises(StoreAwayError, match="c: storage doesn't answer"):
        stop.insist()
    assert told == [away("a"), away("b"), away("c")]


def test_one_shard_that_says_so_again_and_again_doesnt(stop: Stop) -> None:
    outage = Outage(lambda fact: None, stop)
    for _ in range(5):
        outage.tell(away("a"))
    assert not stop.is_asked


@pytest.mark.parametrize("success", [receipt("staged"), receipt("adopted"), Committed("x.tar", "0" * 12, {})])
def test_what_reaches_storage_in_between_shows_that_it_is_there(success: Fact, stop: Stop) -> None:
    outage = Outage(lambda fact: None, stop)
    for shard in ("a", "b", "c", "d"):
        outage.tell(away(shard))
        outage.tell(success)
    assert not stop.is_asked


def test_a_part_that_an_earlier_run_staged_shows_nothing(stop: Stop) -> None:
    outage = Outage(lambda fact: None, stop)
    for fact in (away("a"), away("b"), receipt("reused"), away("c")):
        outage.tell(fact)
    assert stop.is_asked


def test_shards_that_fail_for_reasons_of_their_own_end_nothing(stop: Stop) -> None:
    outage = Outage(lambda fact: None, stop)
    for shard in "abcdef":
        outage.tell(Failed(shard, "broken"))
        outage.tell(receipt("unreadable"))
    assert not stop.is_asked


def test_what_storage_refuses_whatever_comes_ends_the_run_at_once(stop: Stop) -> None:
    Outage(lambda fact: None, stop).tell(receipt("refused"))
    with pytest.raises(StoreRefusedError, match="the disk is full"):
        stop.insist()
