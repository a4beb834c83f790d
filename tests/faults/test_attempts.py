"""Workers that die: what is tried again, what is given up, and that nothing is lost in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
from inprocess import InProcess, run
from making import job, samples, tree, write_tar
from workerprocess import Dies, InAWorker

from pipeline.attempts import Attempts
from pipeline.config import JobConfig
from pipeline.errors import StoreAwayError
from pipeline.inputs import find_shards
from pipeline.ledger import Task
from pipeline.parts import Part, Receipt
from pipeline.rereading import read_counted
from pipeline.stages import read_parts, stage_part
from pipeline.store import open_store
from pipeline.verify import verify

OUTPUTS = ("shards", "tables", "_staging")
PARTS = 8


def shards(folder: Path, *names: str) -> None:
    """Shards of eight parts each, when a part is one tile."""
    for number, name in enumerate(names):
        write_tar(folder / "in" / name, samples(PARTS, 100 * number, 200, 200))


def undisturbed(folder: Path) -> dict[str, bytes]:
    whole = folder / "whole"
    run(job(whole, input=str(folder / "in"), part__tiles=1))
    return tree(whole / "out", *OUTPUTS)


# --- readers ----------------------------------------------------------------------------------------


class DiedError(Exception):
    """Stands for a reader's process that was killed."""


@dataclass
class Rereading(InProcess):
    """Runs a reader that died again and skips by position what came before, as Ray does.

    Args:
        reader: What reads, given the how manyth try it is.
        tries: Of each shard.
    """

    reader: Callable[[Task, JobConfig, int], Iterator[Part]] = lambda task, config, time: read_parts(task, config)
    tries: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Rereading:
        super().__enter__()
        self.attempts = Attempts(self.config.cluster.max_attempts, lambda node: True)
        return self

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        for task in window:
            for part in self._skipping(task):
                yield stage_part(self._purify(part), self.output, self.config)

    def _skipping(self, task: Task) -> Iterator[Part]:
        came = 0
        while True:
            time = self.tries[task.shard.name] = self.tries.get(task.shard.name, 0) + 1
            reader = read_counted(
                task, self.config, Counting(self.attempts), lambda t, c, time=time: self.reader(t, c, time)
            )
            try:
                for part in islice(reader, came, None):
                    came += 1
                    yield part
                return
            except DiedError:
                continue


@dataclass
class Counting:
    attempts: Attempts

    def begin(self, shard: str) -> int:
        return self.attempts.begin("reading", shard)

    def num_read(self, shard: str) -> int:
        return self.attempts.num_read(shard)

    def advance(self, shard: str, part: int) -> None:
        self.attempts.advance(shard, part)

    def end(self, shard: str) -> None:
        self.attempts.end("reading", shard)


def dying_after(parts: int, *, until: int = 10**9, name: str = "a.tar") -> Callable[..., Iterator[Part]]:
    """Reads so many parts and dies, at each try before the given one."""

    def read(task: Task, config: JobConfig, time: int) -> Iterator[Part]:
        if task.shard.name != name or time >= until:
            yield from read_parts(task, config)
            return
        yield from islice(read_parts(task, config), parts)
        raise DiedError

    return read


def test_a_reader_that_died_is_run_again_and_each_part_is_there_once(tmp_path: Path) -> None:
    shards(tmp_path, "a.tar", "b.tar")
    reference = undisturbed(tmp_path)
    summary, engine = run(job(tmp_path, part__tiles=1), Rereading, reader=dying_after(5, until=3))
    assert summary.exit_code == 0
    assert engine is not None
    assert engine.tries == {"a.tar": 3, "b.tar": 1}
    assert set(engine.purified.values()) == {1}
    assert tree(tmp_path / "out", *OUTPUTS) == reference


@pytest.mark.parametrize("parts", [0, 1, 5])
def test_a_reader_that_always_dies_is_given_up_and_its_shard_named(tmp_path: Path, parts: int) -> None:
    shards(tmp_path, "a.tar", "b.tar")
    summary, engine = run(job(tmp_path, part__tiles=1), Rereading, reader=dying_after(parts))
    assert summary.exit_code == 1
    assert summary.committed == ["b.tar"]
    where = f"after its part {parts - 1}" if parts else "before its first part"
    assert f"shard a.tar: given up: 5 readers died {where}" in summary.failed["a.tar"]
    assert engine is not None
    assert engine.tries["a.tar"] <= 7  # five that get no further than the one before, and the one that says so
    assert not (tmp_path / "out/shards/a.tar").exists()


def test_a_reader_that_gets_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    shards(tmp_path, "a.tar")

    def read(task: Task, config: JobConfig, time: int) -> Iterator[Part]:
        yield from islice(read_parts(task, config), time)
        if time < PARTS:
            raise DiedError

    summary, engine = run(job(tmp_path, part__tiles=1), Rereading, reader=read)
    assert summary.exit_code == 0
    assert engine is not None
    assert engine.tries == {"a.tar": PARTS}
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_what_a_second_try_finds_is_heard_though_it_stands_where_the_first_one_was(tmp_path: Path) -> None:
    shards(tmp_path, "a.tar", "b.tar")

    def read(task: Task, config: JobConfig, time: int) -> Iterator[Part]:
        if task.shard.name == "a.tar" and time == 1:
            yield from islice(read_parts(task, config), 5)
            raise DiedError
        if task.shard.name == "a.tar":
            error = StoreAwayError("the input's storage is away")
            yield Part("a.tar", task.plan, 0, is_last=True).failed("away", str(error))
            return
        yield from read_parts(task, config)

    summary, _ = run(job(tmp_path, part__tiles=1), Rereading, reader=read)
    assert summary.failed == {"a.tar": "the input's storage is away"}
    assert summary.exit_code == 75
    assert summary.committed == ["b.tar"]


@pytest.mark.parametrize(("lost", "said"), [(3, "7 of 8 parts"), (PARTS - 1, "7 parts")])
def test_a_graph_that_loses_a_part_in_silence_fails_its_shard_by_name(tmp_path: Path, lost: int, said: str) -> None:
    shards(tmp_path, "a.tar", "b.tar")

    @dataclass
    class Losing(InProcess):
        def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
            for receipt in super().receipts(window):
                if receipt is None or (receipt.shard, receipt.index) != ("a.tar", lost):
                    yield receipt

    summary, _ = run(job(tmp_path, part__tiles=1), Losing)
    assert summary.exit_code == 1
    assert summary.committed == ["b.tar"]
    assert f"shard a.tar: {said} came in" in summary.failed["a.tar"]
    rerun, engine = run(job(tmp_path, part__tiles=1))
    assert rerun.exit_code == 0
    assert engine is not None
    assert engine.purified.total() == 0  # all of them are staged


# --- purifiers --------------------------------------------------------------------------------------


def test_a_part_that_always_kills_its_worker_fails_its_shard_alone_after_max_attempts(tmp_path: Path) -> None:
    shards(tmp_path, "a.tar", "b.tar")
    summary, engine = run(
        job(tmp_path, part__tiles=1, cluster__max_attempts=2),
        InAWorker,
        dies=lambda shard, part, time: (shard, part) == ("a.tar", 3),
    )
    assert engine is not None
    assert engine.begun["a.tar", 3] == 2
    assert summary.exit_code == 1
    assert summary.committed == ["b.tar"]
    assert "shard a.tar, part 3: given up: 2 attempts ended its worker" in summary.failed["a.tar"]
    assert not (tmp_path / "out/shards/a.tar").exists()
    assert verify(open_store(str(tmp_path / "out"))).findings == []

    reference = undisturbed(tmp_path)
    rerun, engine = run(job(tmp_path, part__tiles=1))
    assert rerun.exit_code == 0
    assert engine is not None
    assert engine.purified == {("a.tar", 3): 1}
    assert tree(tmp_path / "out", *OUTPUTS) == reference


def test_twenty_kills_of_healthy_parts_over_five_runs_never_give_one_up(tmp_path: Path) -> None:
    shards(tmp_path, "a.tar", "b.tar", "c.tar")
    reference = undisturbed(tmp_path)
    begun: Counter[tuple[str, int]] = Counter()
    for number in range(5):
        # The worst case: all four kills of a run hit one part.
        kind = Stopping if number < 4 else InAWorker
        summary, engine = run(job(tmp_path, part__tiles=1), kind, dies=first_four_times())
        assert engine is not None
        begun += engine.begun
        assert summary.failed == {}
        assert max(engine.begun.values()) == 5
    assert len(begun) == 3 * PARTS
    assert begun.total() == 3 * PARTS + 20  # each part once, and once more for each kill
    assert tree(tmp_path / "out", *OUTPUTS) == reference
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def first_four_times() -> Dies:
    first: list[tuple[str, int]] = []

    def dies(shard: str, part: int, time: int) -> bool:
        first.append((shard, part))
        return (shard, part) == first[0] and time <= 4

    return dies


@dataclass
class Stopping(InAWorker):
    """A run that is stopped after four parts."""

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        staged = 0
        for receipt in super().receipts(window):
            yield receipt
            staged += receipt is not None and receipt.outcome == "staged"
            if staged == 4:
                raise KeyboardInterrupt


# --- the counting -----------------------------------------------------------------------------------


def test_a_try_whose_node_was_lost_does_not_count() -> None:
    alive = {"one", "two"}
    attempts = Attempts(2, lambda node: node in alive)
    assert attempts.begin("purifying", "a.tar", 0, "one") == 1
    alive.remove("one")
    assert attempts.begin("purifying", "a.tar", 0, "two") == 1
    assert attempts.begin("purifying", "a.tar", 0, "two") == 2
    assert attempts.begin("purifying", "a.tar", 0, "two") == 3


def test_a_part_that_was_done_and_got_lost_again_starts_anew() -> None:
    attempts = Attempts(1, lambda node: True)
    for _ in range(5):
        assert attempts.begin("purifying", "a.tar", 0) == 1
        attempts.end("purifying", "a.tar", 0)


def test_others_that_lost_their_worker_and_were_done_all_the_same_forgive_one_more_each_up_to_a_bound() -> None:
    def tries_of_a_bad_part(healthy: int) -> int:
        attempts = Attempts(2, lambda node: True)
        for part in range(healthy):
            attempts.begin("purifying", "healthy.tar", part)
            attempts.begin("purifying", "healthy.tar", part)
            attempts.end("purifying", "healthy.tar", part)
        return next(tries for tries in range(99) if attempts.begin("purifying", "bad.tar") > 2)

    assert [tries_of_a_bad_part(healthy) for healthy in (0, 1, 3, 6, 50)] == [2, 3, 5, 8, 8]


def test_parts_that_kill_their_workers_do_not_forgive_one_another() -> None:
    attempts = Attempts(3, lambda node: True)
    for _ in range(3):
        for part in range(10):
            assert attempts.begin("purifying", "bad.tar", part) <= 3
    assert all(attempts.begin("purifying", "bad.tar", part) > 3 for part in range(10))
    assert all(attempts.begin("purifying", "bad.tar", part) > 3 for part in range(10))  # and it stays so


def test_readers_wait_while_too_many_parts_are_read_and_not_staged_but_not_for_what_comes_again() -> None:
    attempts = Attempts(3, lambda node: True, max_ahead=3)
    for part in range(3):
        assert attempts.may_hand_on("a.tar", part)
        attempts.advance("a.tar", part)
    assert not attempts.may_hand_on("a.tar", 3)
    assert not attempts.may_hand_on("b.tar", 0)
    assert all(attempts.may_hand_on("a.tar", part) for part in range(3))  # lost with a node, and read anew
    for _ in range(2):  # a stage that is run again counts once
        attempts.end("staging", "a.tar", 1)
    assert attempts.may_hand_on("b.tar", 0)
    attempts.advance("b.tar", 0)
    assert not attempts.may_hand_on("a.tar", 3)
    attempts.drain()
    assert attempts.may_hand_on("a.tar", 3)


def test_what_could_not_be_read_holds_nobody_back(tmp_path: Path) -> None:
    attempts = Attempts(3, lambda node: True, max_ahead=1)
    config = job(tmp_path)
    for name in "abcd":
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.tar").write_bytes(b"no tar")
    for shard in find_shards(config.input):
        assert attempts.may_hand_on(shard.name, 0)
        (part,) = read_counted(Task(shard, "0" * 12, frozenset()), config, Counting(attempts))
        assert part.outcome == "unreadable"
        attempts.end("staging", part.shard, part.index)
