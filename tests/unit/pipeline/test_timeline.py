from __future__ import annotations

import itertools
import json

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Idle, Started, Warned
from pipeline.parts import Receipt
from pipeline.timeline import MAX_BUCKETS, MAX_WARNINGS, Timeline


def receipt(images: int = 10, outcome: str = "staged") -> Receipt:
    return Receipt("a.tar", "p", 0, False, outcome, None, images, images + 1, 1000)  # type: ignore[arg-type]


def timeline(*clock: float) -> Timeline:
    return Timeline(iter((0.0, *clock)).__next__, lambda: 0.0)


def test_each_stage_counts_what_it_has_done_in_the_bucket_of_its_time() -> None:
    line = timeline(0.5, 0.5, 0.5, 0.6, 2.5, 3.0, 3.9)
    for fact in (
        receipt(),
        Committed("a.tar", "0", {"statuses": {"ok": 10, "rejected": 1}}),
        Asked("a.tar", {"ok": 9}),
    ):
        line.note(fact)
    found = line.to_dict()
    assert found["stages"] == {
        "read": [11],
        "purify": [10],
        "stage": [1000],
        "commit": [0, 0, 11],
        "ask": [0, 0, 0, 9],
    }
    assert found["seconds"] == 3.9
    assert (found["started_s"], found["last_part_s"]) == (None, 0.6)
    assert found["began"] == "1970-01-01T00:00:00.000+00:00"


def test_a_part_that_an_earlier_run_staged_was_not_purified_by_this_one() -> None:
    line = timeline(*itertools.repeat(1.0, 9))
    line.note(receipt(outcome="reused"))
    assert line.to_dict()["stages"]["purify"] == []


def test_what_could_not_be_asked_is_no_answer() -> None:
    line = timeline(*itertools.repeat(1.0, 9))
    line.note(Asked("a.tar", away="nobody there"))
    assert line.to_dict()["stages"]["ask"] == []


def test_a_night_has_as_few_buckets_as_a_minute_and_loses_nothing() -> None:
    seconds = range(0, 40_000, 7)
    line = timeline(*(second for second in seconds for _ in range(4)), 40_000.0)
    for _ in seconds:
        line.note(receipt(images=1))
    found = line.to_dict()
    counts = found["stages"]["purify"]
    assert len(counts) <= MAX_BUCKETS
    assert sum(counts) == len(seconds)
    assert found["bucket_s"] == 256.0  # the first power of two whose 240 hold all
    inner = counts[:-1]
    assert max(inner) - min(inner) <= 1  # evenly, as they came


def test_warnings_are_kept_up_to_a_bound_and_all_are_counted() -> None:
    line = timeline(*itertools.repeat(1.0, 9))
    for number in range(MAX_WARNINGS + 7):
        line.note(Warned(f"warning {number}"))
    for fact in (Started("cuda", 4), Idle()):
        line.note(fact)
    found = line.to_dict()
    assert found["warnings"] == [f"warning {number}" for number in range(MAX_WARNINGS)]
    assert found["num_warnings"] == MAX_WARNINGS + 7
    assert (found["device"], found["purifiers"]) == ("cuda", 4)
    assert json.loads(json.dumps(found)) == found
