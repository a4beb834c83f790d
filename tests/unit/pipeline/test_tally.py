from __future__ import annotations

from pipeline.parts import Outcome, Receipt
from pipeline.tally import Tally


def receipt(index: int, is_last: bool = False, outcome: Outcome = "staged") -> Receipt:
    return Receipt("a.tar", "0" * 12, index, is_last, outcome)


def test_a_shard_is_whole_once_when_all_its_parts_are_in_whatever_their_order():
    tally = Tally()
    order = [receipt(2, is_last=True), receipt(0), receipt(0), receipt(1), receipt(1), receipt(2, is_last=True)]
    assert [tally.note(r) for r in order] == [None, None, None, 3, None, None]


def test_a_shard_that_lost_a_part_never_becomes_whole():
    tally = Tally()
    order = [receipt(0), receipt(1, outcome="failed"), receipt(1), receipt(2, is_last=True)]
    assert [tally.note(r) for r in order] == [None] * 4
    assert tally.lost["a.tar"].index == 1


def test_parts_of_whole_and_lost_shards_are_forgotten():
    tally = Tally()
    for index in range(100):
        tally.note(receipt(index, is_last=index == 99))
    tally.note(Receipt("b.tar", "0" * 12, 0, False, "staged"))
    tally.note(Receipt("b.tar", "0" * 12, 1, False, "failed"))
    assert vars(tally)["_parts"] == {}
