"""What is drawn on a real terminal, row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from terminal import Terminal, terminal

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Ended, Fact, Failed, Planned, Slowest, Started, Summary, Warned
from pipeline.live import MAX_WIDTH
from pipeline.parts import Receipt
from pipeline.progress import View
from pipeline.screen import closing_table, watching

MIB = 1 << 20
LONG = "shard cam1/000017.tar, part 3: purifier: " + "this and that went wrong, " * 6 + "the end"
HOSTILE = "shard x: \x1b[2J\x1b[1;1Hgone\nwarning: nobody wrote this\ud800\x07"


def receipt(index: int, images: int = 1000) -> Receipt:
    return Receipt("a", "p", index, False, "staged", None, images, images, MIB)


FACTS: list[Fact] = [
    Planned(1200, 1000, 20, 1000 * MIB),
    Started("cpu", 2),
    *(receipt(index) for index in range(4)),
    Committed("a", "0" * 12, {"statuses": {"ok": 3990, "undecodable": 10}, "source": {"size": 4 * MIB}}),
    Asked("a", {"ok": 4000}, flipped=123),
    Warned("the bucket is slow today"),
    Slowest("purifying", 12),
    *(receipt(index) for index in range(4, 40)),
]


def drawing(facts: list[Fact], log_format: str = "text") -> Iterator[None]:
    """A run that tells these facts, a second apart; a step each."""
    seconds = iter(range(100_000))
    view = View(lambda: float(next(seconds)))
    summary = Summary("night")
    with watching(view, log_format=log_format, run="night") as watch:  # type: ignore[arg-type]
        for fact in facts:
            summary.note(fact)
            watch(fact)
            yield
        watch(Ended(summary))
    if log_format == "text":
        print(closing_table(view, summary, "out/"))
    sys.stdout.flush()


def run_on(facts: list[Fact] = FACTS, **window: Any) -> Any:
    return terminal(drawing, facts, **window)


def is_whole(screen: Terminal) -> None:
    """One view and no leftovers of another: each of its rows once, at the end."""
    rows = screen.rows()
    heads = [i for i, row in enumerate(rows) if row.startswith("zipstage")]
    assert len(heads) == 1, rows
    names = [row[:10].strip() for row in rows[heads[0] :]]
    assert names == ["zipstage", "shards", "bytes", "", "images", "parts", "slowest", "answers", "errors"], rows


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_shows_one_view_and_the_warnings_above_it(columns: int) -> None:
    with run_on(columns=columns) as screen:
        screen.step(len(FACTS))
        is_whole(screen)
        rows = screen.rows()
        assert rows[0] == "warning: the bucket is slow today"
        assert rows[2] == "shards    1 of 1,000 committed"
        assert rows[3].startswith("bytes     about 40.0 MiB of 1,000 MiB")
        assert rows[4] == "            4% " + "█" * 2 + "░" * 38
        assert rows[5].startswith("images    40,000, ")
        assert rows[7] == "slowest   purifying: 12 parts wait for it"
        assert rows[8] == "answers   1 shard, 123 flipped of 4,000"
        assert rows[9] == "errors    10 samples not purified, 0 shards failed"
        assert max(map(len, rows)) <= MAX_WIDTH
        assert screen.screen.cursor.hidden


def test_at_its_end_the_view_makes_room_for_the_table() -> None:
    with run_on() as screen:
        screen.end()
        rows = screen.rows()
        assert rows[0] == "warning: the bucket is slow today"
        assert rows[1].startswith("samples")
        assert rows[-1].startswith("end")
        assert not any(row.startswith("zipstage") for row in rows)
        assert not screen.screen.cursor.hidden


@pytest.mark.parametrize("sizes", [[(200, 50), (80, 24)], [(80, 24), (200, 50)], [(80, 24), (50, 24), (120, 30)]])
def test_a_resized_terminal_keeps_no_leftovers(sizes: list[tuple[int, int]]) -> None:
    facts = [*FACTS, Failed("b", LONG), *(receipt(index) for index in range(40, 60))]
    with run_on(facts, columns=sizes[0][0], lines=sizes[0][1]) as screen:
        screen.step(15)
        for columns, lines in sizes[1:]:
            screen.resize(columns, lines)
            screen.step(3)
            is_whole(screen)
            assert screen.rows()[0].startswith("warning: the bucket")
        screen.step(len(facts) - 24)
        is_whole(screen)


def test_a_terminal_that_is_made_narrow_right_before_the_end_is_left_clean() -> None:
    with run_on() as screen:
        screen.step(len(FACTS))
        screen.resize(40, 24)
        screen.end()
        rows = screen.rows()
        assert rows[0] == "warning: the bucket is slow today"
        assert rows[1].startswith("samples")
        assert not any("█" in row for row in rows)


def test_a_long_message_can_be_read_whole_and_copied_as_one_line() -> None:
    facts = [*FACTS[:3], Failed("b", LONG), receipt(1)]
    with run_on(facts, columns=80) as screen:
        screen.step(len(facts))
        told = next(line for line in screen.raw.decode().splitlines() if "failed:" in line)
        assert f"failed: {LONG}" in told
        joined = "".join(row.ljust(80) for row in screen.rows())
        assert f"failed: {LONG}" in joined


def test_a_hostile_message_moves_no_cursor_and_begins_no_line() -> None:
    facts = [*FACTS[:3], Warned("before"), Failed("x", HOSTILE), receipt(1)]
    with run_on(facts, columns=120) as screen:
        screen.step(len(facts))
        rows = screen.rows()
        assert rows[0] == "warning: before"
        assert rows[1].startswith("failed: shard x: \\x1b[2J")
        assert not any(row.startswith("warning: nobody") for row in rows)
        screen.end()
        assert screen.rows()[0] == "warning: before"
        assert not any(row.startswith("warning: nobody") for row in screen.rows())


def test_without_colours_nothing_is_lost() -> None:
    shown = []
    for environment in ({}, {"NO_COLOR": "1"}):
        with run_on(environment=environment) as screen:
            screen.step(len(FACTS))
            shown.append(screen.rows())
            coloured = {cell.fg for row in screen.screen.buffer.values() for cell in row.values()} != {"default"}
            assert not coloured  # nothing is said by a colour
    assert shown[0] == shown[1]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_nothing_can_be_drawn_or_nobody_looks_there_are_lines(environment: dict[str, str]) -> None:
    with run_on(environment=environment, columns=200) as screen:
        screen.end()
        assert b"\x1b" not in screen.raw
        rows = screen.rows()
        assert any("purifying: shards 1/1,000, " in row for row in rows)
        assert any(row.endswith("warning: the bucket is slow today") for row in rows)


def test_a_small_terminal_shows_the_head_of_the_view() -> None:
    with run_on(columns=40, lines=5) as screen:
        screen.step(len(FACTS))
        assert screen.rows()[0].startswith("zipstage  purifying")
        assert len(screen.rows()) <= 5
        assert all(len(row) <= 40 for row in screen.rows())


def test_json_goes_to_a_terminal_as_to_anywhere() -> None:
    with terminal(drawing, FACTS, "json", columns=200) as screen:
        screen.end()
    lines = [json.loads(line) for line in screen.raw.decode().splitlines()]
    assert {line["run"] for line in lines} == {"night"}
    events = [line["event"] for line in lines]
    assert events[:2] == ["planned", "started"]
    assert "progress" in events
    assert events[-1] == "ended"
