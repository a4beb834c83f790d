from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess import InProcess
from making import job, samples, write_tar
from storing import write_classifier

from pipeline import job as main_path
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.errors import StoreError
from pipeline.facts import Failed, Idle, Planned, Started, Summary, Warned
from pipeline.log import Journal, RunLog
from pipeline.parts import Receipt
from pipeline.plain import MAX_TEXT, plain
from pipeline.progress import View
from pipeline.store import Store

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)
HOSTILE = 'x\n{"level": "error"}\r\x1b[2J\x00\x85\u2028\ud800"\\'


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(facts: list[Any], step_s: float = 0.0, every_s: float = 5.0) -> list[dict[str, Any]]:
    """The lines of a run, read by another reader of JSON than what wrote them."""
    clock, lines = Clock(), list[str]()
    view = View(clock)
    log = RunLog(view, "night", lines.append, every_s, lambda: NOON)
    for fact in facts:
        clock.now += step_s
        view.note(fact)
        log.note(fact)
    return [json.loads(line) for line in lines]


def committed(shard: str = "a.tar") -> Committed:
    return Committed(shard, "0" * 12, {"statuses": {"ok": 9, "rejected": 1}, "source": {"size": 100}})


FACTS = [
    Planned(3, 2, 1, 200),
    Started("cpu", 2),
    Warned("careful", "a.tar", 4),
    Receipt("b.tar", "p", 7, False, "failed", "shard b.tar, part 7: purifier: broken"),
    Failed("b.tar", "shard b.tar, part 7: purifier: broken", 1, 7),
    committed(),
    Asked("a.tar", {"ok": 9}, flipped=2),
    Asked("c.tar", away="it doesn't answer", exit_code=75),
]


def test_each_line_says_when_how_grave_which_run_and_what() -> None:
    lines = logged(FACTS)
    for line in lines:
        assert list(line)[:5] == ["time", "level", "run", "event", "message"]
        assert datetime.fromisoformat(line["time"]) == NOON.replace(microsecond=123000)
        assert line["time"].endswith("Z")
        assert line["level"] in ("info", "warning", "error")
        assert line["run"] == "night"
        assert line["message"]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("planned", "info"),
        ("started", "info"),
        ("warning", "warning"),
        ("part_failed", "warning"),
        ("shard_failed", "error"),
        ("shard_committed", "info"),
        ("shard_answered", "info"),
        ("shard_unanswered", "warning"),
    ]


def test_a_line_about_a_shard_or_a_part_names_it() -> None:
    by_event = {line["event"]: line for line in logged(FACTS)}
    about = {event: (line.get("shard"), line.get("part")) for event, line in by_event.items()}
    assert about == {
        "planned": (None, None),
        "started": (None, None),
        "warning": ("a.tar", 4),
        "part_failed": ("b.tar", 7),
        "shard_failed": ("b.tar", 7),
        "shard_committed": ("a.tar", None),
        "shard_answered": ("a.tar", None),
        "shard_unanswered": ("c.tar", None),
    }
    assert by_event["planned"]["size_bytes"] == 200
    assert by_event["shard_committed"]["statuses"] == {"ok": 9, "rejected": 1}
    assert by_event["shard_answered"]["flipped"] == 2
    assert by_event["shard_unanswered"]["exit_code"] == 75


def test_progress_is_told_every_few_seconds_and_rarely_when_nothing_moves() -> None:
    receipts = [Receipt("a.tar", "p", i, False, "staged", None, 10, 10, 50) for i in range(20)]
    moving = [line for line in logged([*FACTS[:2], *receipts], step_s=1.0) if line["event"] == "progress"]
    assert len(moving) == 22 // 5
    assert moving[-1]["images"] == 180
    assert moving[-1]["shards_to_purify"] == 2
    standing = [line for line in logged([*FACTS[:2], *[Idle()] * 240], step_s=1.0) if line["event"] == "progress"]
    assert 4 <= len(standing) <= 5


@pytest.mark.parametrize(
    ("summary", "level", "words"),
    [
        (Summary("night", planned=Planned(1, 1, 0, 9), committed=["a"]), "info", "exit 0: 1 of 1 shards are new"),
        (Summary("night", unanswered={"a": "x"}, exit_codes={75}), "warning", "exit 75"),
        (Summary("night", interrupted=True), "warning", "exit 130"),
        (Summary("night", failed={"a": "x"}, exit_codes={1}), "error", "exit 1"),
        (Summary("night", error="bucket gone: there is no such bucket"), "error", "exit 1: bucket gone"),
    ],
)
def test_the_last_line_says_how_the_run_ended(summary: Summary, level: str, words: str) -> None:
    last = json.loads(Journal("night", lambda: NOON).ended(summary).splitlines()[-1])
    assert (last["event"], last["level"], last["exit_code"]) == ("ended", level, summary.exit_code)
    assert last["message"].startswith(words)


# --- what others wrote -------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", [Warned(HOSTILE, HOSTILE), Failed(HOSTILE, HOSTILE), Asked(HOSTILE, away=HOSTILE)])
def test_hostile_text_stays_in_its_line(fact: Any) -> None:
    lines = list[str]()
    RunLog(View(), "night", lines.append, 5.0).note(fact)
    (line,) = lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told["message"] == told["shard"] == plain(HOSTILE)
    assert "\ud800" not in told["message"]


@given(st.text(st.characters(categories=None), max_size=60))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    shown.encode()  # raises where half of a character is left
    if text.isprintable():
        assert shown == text


def test_a_very_long_text_is_cut() -> None:
    assert len(plain("\x00" * 10 * MAX_TEXT)) == MAX_TEXT
    assert plain("a" * MAX_TEXT) == "a" * MAX_TEXT


def test_the_log_of_a_run_with_many_failures_keeps_its_beginning_and_its_end() -> None:
    journal = Journal("night", lambda: NOON)
    for i in range(20_000):
        journal.note(Failed(f"{i:05d}.tar", "broken " * 10))
    data = journal.ended(Summary("night"))
    lines = [json.loads(line) for line in data.splitlines()]
    assert len(data) < Journal.HEAD_BYTES + Journal.TAIL_BYTES + 1000
    assert lines[0]["shard"] == "00000.tar"
    assert (lines[-2]["shard"], lines[-1]["event"]) == ("19999.tar", "ended")
    (gap,) = (line for line in lines if line["event"] == "gap")
    kept = [line["shard"] for line in lines if line["event"] == "shard_failed"]
    assert 20_000 - len(kept) == gap["lines"]
    assert lines.index(gap) == int(kept[lines.index(gap) - 1].removesuffix(".tar")) + 1


# --- in the output -----------------------------------------------------------------------------------


def left(config: JobConfig, run: str = "night") -> list[dict[str, Any]]:
    path = Path(config.output) / f"runs/{run}/log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def purify(config: JobConfig, engine: type[InProcess] = InProcess) -> Summary:
    return main_path.purify(config, lambda fact: None, engine, run="night")


def test_a_run_leaves_its_log_beside_its_summary(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    write_tar(tmp_path / "in/b.tar", samples(3))
    (tmp_path / "in/broken.tar").write_bytes((tmp_path / "in/a.tar").read_bytes()[:2000])
    summary = purify(job(tmp_path))
    lines = left(job(tmp_path))
    assert lines[0]["event"] == "planned"
    assert {line["shard"] for line in lines if line["event"] == "shard_committed"} == set(summary.committed)
    (failed,) = (line for line in lines if line["event"] == "shard_failed")
    assert failed["message"] == summary.failed["broken.tar"]
    assert "part" not in failed  # where a shard can't be read, no part is to blame
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("ended", 1)


class _Failing(InProcess):
    """Its second part can't be purified."""

    def _attempt(self, shard: str, part: int) -> int:
        return super()._attempt(shard, part) if part != 1 else 99


def test_the_error_of_a_worker_carries_shard_and_part(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(200))
    purify(job(tmp_path, part__tiles=1), _Failing)
    about = [(line["event"], line.get("shard"), line.get("part")) for line in left(job(tmp_path))]
    assert ("part_failed", "a.tar", 1) in about
    assert ("shard_failed", "a.tar", 1) in about


class _Ending(InProcess):
    error: BaseException = RuntimeError("out of luck")

    def start_commit(self, *_: Any) -> None:
        raise self.error


class _Stopped(_Ending):
    error = KeyboardInterrupt()


def test_the_log_is_left_however_the_run_ends(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    with pytest.raises(RuntimeError):
        purify(job(tmp_path), _Ending)
    assert left(job(tmp_path))[-1]["message"] == "exit 1: RuntimeError: out of luck"
    assert purify(job(tmp_path), _Stopped).exit_code == 130
    assert left(job(tmp_path))[-1]["exit_code"] == 130


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Store.put

    def refusing(self: Store, path: str, data: bytes, *, create: bool = False) -> None:
        if path.endswith("log.jsonl"):
            raise StoreError("no room for logs")
        put(self, path, data, create=create)

    monkeypatch.setattr(Store, "put", refusing)
    write_tar(tmp_path / "in/a.tar", samples(3))
    assert purify(job(tmp_path)).exit_code == 0
    assert not (tmp_path / "out/runs/night/log.jsonl").exists()


def test_no_secret_is_in_a_log(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    write_classifier(tmp_path / "bright.onnx")
    secrets = {"purifier__seed": "seed-7f3a", "classifier__token": "token-91bc"}
    classifier = {"classifier__protocol": "open-inference-v2", "classifier__url": "http://127.0.0.1:9"}
    config = job(tmp_path, **secrets, **classifier, classifier__model="m", classifier__name="m", classifier__attempts=1)
    assert purify(config).exit_code == 75  # nobody answers there
    text = (tmp_path / "out/runs/night/log.jsonl").read_text()
    assert "shard_unanswered" in text
    assert not any(secret in text for secret in secrets.values())
