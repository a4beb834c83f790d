from __future__ import annotations

import pytest

from pipeline.commit import Committed
from pipeline.errors import StoreAwayError, StoreRefusedError
from pipeline.facts import Fact, Failed
from pipeline.outage import Outage
from pipeline.parts import Receipt


def away(shard: str) -> Failed:
    return Failed(shard, f"{shard}: storage doesn't answer", 75)


def receipt(outcome: str) -> Receipt:
    return Receipt("x.tar", "0" * 12, 0, False, outcome, "the disk is full")  # type: ignore[arg-type]


def test_three_shards_in_a_row_that_find_storage_away_end_the_run_and_are_told_first() -> None:
    told: list[Fact] = []
    outage = Outage(told.append)
    outage.tell(away("a"))
    outage.tell(away("b"))
    with pytest.raises(StoreAwayError, match="c: storage doesn't answer"):
        outage.tell(away("c"))
    assert told == [away("a"), away("b"), away("c")]


def test_one_shard_that_says_so_again_and_again_doesnt() -> None:
    outage = Outage(lambda fact: None)
    for _ in range(5):
        outage.tell(away("a"))


@pytest.mark.parametrize("success", [receipt("staged"), receipt("adopted"), Committed("x.tar", "0" * 12, {})])
def test_what_reaches_storage_in_between_shows_that_it_is_there(success: Fact) -> None:
    outage = Outage(lambda fact: None)
    for shard in ("a", "b", "c", "d"):
        outage.tell(away(shard))
        outage.tell(success)


def test_a_part_that_an_earlier_run_staged_shows_nothing() -> None:
    outage = Outage(lambda fact: None)
    outage.tell(away("a"))
    outage.tell(away("b"))
    outage.tell(receipt("reused"))
    with pytest.raises(StoreAwayError):
        outage.tell(away("c"))


def test_shards_that_fail_for_reasons_of_their_own_end_nothing() -> None:
    outage = Outage(lambda fact: None)
    for shard in "abcdef":
        outage.tell(Failed(shard, "broken"))
        outage.tell(receipt("unreadable"))


def test_what_storage_refuses_whatever_comes_ends_the_run_at_once() -> None:
    with pytest.raises(StoreRefusedError, match="the disk is full"):
        Outage(lambda fact: None).tell(receipt("refused"))
