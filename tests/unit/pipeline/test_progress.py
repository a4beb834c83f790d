from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.facts import Failed, Idle, Planned, Slowest, Started, Summary, Warned
from pipeline.parts import Outcome, Receipt
from pipeline.progress import View, duration, size_of
from pipeline.screen import LINE_S, MAX_LISTED, SAME_LINE_S, closing_table, watching

MIB = 1 << 20


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _at_a_persons_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> View:
    """A run of two shards of 1 MiB each, whose graph is up."""
    view = View(clock)
    view.note(Planned(3, 2, 0, 2 * MIB))
    view.note(Started("cpu", 2))
    return view


def receipt(shard: str, index: int = 0, outcome: Outcome = "staged", images: int = 10, size: int = MIB // 2) -> Receipt:
    is_in = outcome in ("staged", "reused", "adopted")
    return Receipt(shard, "p", index, False, outcome, None if is_in else "broken", images, images + 1, size)


def committed(shard: str, ok: int = 10, undecodable: int = 0) -> Committed:
    statuses = {"ok": ok, "undecodable": undecodable} if undecodable else {"ok": ok}
    return Committed(shard, "0" * 12, {"statuses": statuses, "source": {"size": MIB}})


# --- the state ---------------------------------------------------------------------------------------


def test_the_phase_says_what_the_run_waits_for(clock: Clock):
    view = View(clock)
    phases = [view.phase]
    for fact in (Planned(1, 1, 0, MIB), Started("cpu", 1), receipt("a"), committed("a"), Asked("a", {"ok": 10})):
        view.note(fact)
        phases.append(view.phase)
    assert phases == ["looking", "starting", "waiting for the first part", "purifying", "finishing", "asking"]


def test_a_run_without_work_says_so(clock: Clock):
    view = View(clock)
    view.note(Planned(3, 0, 0, 0))
    assert view.phase == "nothing to do"


def test_shards_refused_before_the_plan_do_not_count_as_lost_work(clock: Clock):
    view = View(clock)
    view.note(Failed("old", "changed"))
    view.note(Planned(2, 1, 0, MIB))
    view.note(Started("cpu", 1))
    view.note(receipt("a"))
    assert view.phase == "purifying"


def test_a_lost_shard_ends_the_purifying_as_a_whole_one_does(view: View):
    for fact in (receipt("a"), committed("a"), receipt("b"), Failed("b", "broken")):
        view.note(fact)
    assert view.phase == "finishing"


def test_samples_count_whatever_their_status_and_images_only_when_purified_now(view: View):
    view.note(receipt("a", 0))
    view.note(receipt("a", 1, "reused", images=0))
    assert (view.samples, view.summary.images) == (11 + 1, 10)


def test_bytes_are_exact_for_committed_shards_and_judged_by_staging_for_open_ones(view: View):
    view.note(receipt("a", size=MIB // 2))
    assert view.size_done_bytes == MIB // 2
    view.note(committed("a"))
    assert view.size_done_bytes == MIB
    for index in range(9):  # PNG may be larger than the JPEG that came
        view.note(receipt("b", index, size=MIB))
    assert view.size_done_bytes == 2 * MIB


def test_the_rate_is_that_of_the_last_half_minute(view: View, clock: Clock):
    assert view.images_per_s is None
    view.note(receipt("a", 0, images=1000))
    for index in range(1, 5):
        clock.now += 2
        view.note(receipt("a", index, images=100))
    assert view.images_per_s == pytest.approx(4 * 100 / 8)
    clock.now += 100
    view.note(receipt("a", 5, images=60))
    clock.now += 2
    view.note(receipt("a", 6, images=60))
    assert view.images_per_s == pytest.approx(30)


def test_the_mean_rate_leaves_out_the_start_of_the_graph(clock: Clock):
    view = View(clock)
    view.note(Planned(1, 1, 0, MIB))
    clock.now += 10
    view.note(Started("cpu", 1))
    assert view.mean_images_per_s is None
    clock.now += 5
    view.note(receipt("a", images=100))
    clock.now += 50  # commits and asks are no purification
    assert view.mean_images_per_s == pytest.approx(20)


def test_the_time_left_follows_the_bytes_since_the_first_part_and_says_nothing_too_early(view: View, clock: Clock):
    clock.now += 60  # purifiers load: no measure of what comes
    view.note(receipt("a", 0, size=MIB // 4))
    clock.now += 1
    view.note(receipt("a", 1, size=MIB // 4))
    assert view.seconds_left is None
    clock.now += 9
    assert view.seconds_left == pytest.approx(10 / 0.25 * 1.5)
    view.note(committed("a"))
    view.note(committed("b"))
    assert view.seconds_left is None


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        (Slowest("purifying", 12), "purifying: 12 parts wait for it"),
        (Slowest("staging", 1), "staging: 1 part waits for it"),
        (Slowest("reading", 0), "reading: the others wait for it"),
    ],
)
def test_the_slowest_stage_is_named_while_it_purifies(view: View, fact: Slowest, told: str):
    view.note(fact)
    assert "slowest" not in dict(view.rows())
    view.note(receipt("a"))
    assert dict(view.rows())["slowest"] == told


def test_one_line_holds_what_a_log_needs(view: View, clock: Clock):
    for fact in (receipt("a"), committed("a", 10, 2), Failed("b", "broken"), Asked("a", {"ok": 12}, flipped=3)):
        clock.now += 5
        view.note(fact)
    line = view.line()
    for part in ("shards 1/2", "10 images", "3 flipped", "2 samples not purified", "1 shard failed"):
        assert part in line
    assert "\n" not in line


# --- on a screen -------------------------------------------------------------------------------------


def drawn(facts: list[object], clock: Clock, step_s: float = 1.0, **console: object) -> str:
    file = io.StringIO()
    with watching(View(clock), Console(file=file, **console)) as watch:  # type: ignore[arg-type]
        for fact in facts:
            clock.now += step_s
            watch(fact)  # type: ignore[arg-type]
    return file.getvalue()


RUN = [Planned(3, 2, 0, 2 * MIB), Started("cpu", 2), *(receipt("a", i) for i in range(40)), committed("a")]


def test_a_log_has_a_line_every_few_seconds_and_not_one_a_part(clock: Clock):
    lines = drawn(RUN, clock, width=80).splitlines()
    assert len(lines) == 2 + len(RUN[2:]) // LINE_S
    assert all("images" in line for line in lines)


def test_a_log_has_no_control_characters_and_does_not_wrap(clock: Clock):
    text = drawn([*RUN, Warned("w" * 300)], clock, width=80)
    assert "\x1b" not in text
    assert any(len(line) > 300 for line in text.splitlines())


def test_a_dumb_terminal_gets_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    text = drawn(RUN, clock, force_terminal=True, width=80)
    assert "\x1b" not in text
    assert "shards 0/2" in text


def test_a_file_gets_lines_also_where_colours_are_forced(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = drawn(RUN, clock, width=80)
    assert "\x1b" not in text
    assert "shards 0/2" in text


def test_a_line_that_says_nothing_new_is_rare(clock: Clock):
    idle = drawn([RUN[0], RUN[1], *[Idle()] * 200], clock, width=80).splitlines()
    assert len(idle) == 2 + int(200 // SAME_LINE_S)


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_gets_one_view_within_its_width(width: int, clock: Clock):
    text = drawn(RUN, clock, force_terminal=True, width=width, height=24, color_system=None, legacy_windows=False)
    assert "1 of 2 committed" in text
    assert "40 staged" in text
    plain = Console(width=width)
    rows = [row for row in text.replace("\r", "\n").split("\n") if "\x1b" not in row]
    assert all(plain.render_str(row).cell_len <= width for row in rows)


def test_a_terminal_is_redrawn_calmly(clock: Clock):
    fast = [receipt("a", i) for i in range(1000)]
    text = drawn([*RUN[:2], *fast], clock, step_s=0.001, force_terminal=True, width=80, legacy_windows=False)
    assert text.count("samples so far") <= 6


def test_no_color_is_honoured(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = drawn(RUN, clock, force_terminal=True, width=80, legacy_windows=False)
    assert "\x1b[38" not in text
    assert "\x1b[3" not in text.replace("\x1b[3m", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_failures_and_warnings_are_told_at_once_in_full(terminal: bool, clock: Clock):
    facts = [*RUN[:2], Warned("careful [x]"), Failed("b", "shard b: broken"), Asked("a", away="no answer")]
    text = drawn(facts, clock, step_s=0.0, force_terminal=terminal, width=200, legacy_windows=False)
    for part in ("careful [x]", "shard b: broken", "shard a: no answer"):
        assert part in text


# --- at the end --------------------------------------------------------------------------------------


def test_the_closing_table_says_what_came_of_it(view: View, clock: Clock):
    summary = Summary("r")
    facts = [
        Planned(4, 3, 0, 3 * MIB),
        receipt("a", images=1200),
        committed("a", 1200, 3),
        Failed("b", "shard b: broken after the key 'x'"),
        Asked("a", {"ok": 1200}, flipped=7),
        committed("c", 5),
        Asked("c", away="it doesn't answer"),
    ]
    for fact in facts:
        clock.now += 10
        summary.note(fact)
        view.note(fact)
    table = closing_table(view, summary, "s3://bucket/out")
    rows = [line.split(maxsplit=1) for line in table.splitlines()]
    assert ["samples", "1,205 ok, 3 undecodable"] in rows
    assert ["shards", "2 of 3 committed, 1 failed"] in rows
    assert ["failed", "shard b: broken after the key 'x'"] in rows
    assert ["flipped", "7 of 1,200"] in rows
    assert ["unanswered", "c: it doesn't answer"] in rows
    assert ["output", "s3://bucket/out"] in rows
    assert any(name == "speed" and "images/s" in value for name, value in rows)


def test_a_thousand_failures_name_the_first_and_count_the_rest(view: View):
    summary = Summary("r", planned=Planned(1000, 1000, 0, MIB))
    for i in range(1000):
        summary.note(Failed(f"{i}", f"shard {i}: broken"))
    lines = [line for line in closing_table(view, summary, "out").splitlines() if line.startswith("failed")]
    assert len(lines) == MAX_LISTED + 1
    assert "980 more" in lines[-1]


def test_an_interrupted_run_says_how_to_go_on(view: View):
    assert "run the same command again" in closing_table(view, Summary("r", interrupted=True), "out")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (42.4, "42 s"), (119, "119 s"), (720, "12 min"), (3 * 3600 + 300, "3 h 05 min")]
)
def test_durations_are_told_in_the_unit_that_people_use(seconds: float, told: str):
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("size", "told"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (MIB * 300, "300 MiB"), (1 << 50, "1,024.0 TiB")],
)
def test_sizes_are_told_in_binary_units(size: int, told: str):
    assert size_of(size) == told
