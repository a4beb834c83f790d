"""What one driver does for a whole job: finds and plans its shards, and counts the receipts of its parts.

Both are done for a tenth and for the whole, so that what grows faster than the job shows.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jobs.bench.memory import pss_of
from jobs.bench.speed import run_job
from pipeline import ledger
from pipeline.ask import Asked
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.facts import Failed
from pipeline.info import write_info
from pipeline.inputs import find_shards, refuse_overlap
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.progress import View, size_of
from pipeline.store import Shard, Store, open_store

PARTS_A_SHARD = 100
OPEN_SHARDS = 8
"""Shards whose receipts come in turns."""

FINGERPRINT = "0" * 64

_WRITERS = 16


@dataclass(frozen=True, slots=True)
class Planning:
    """Finding and planning so many shards, of which every second is committed and every tenth has a staged part.

    Args:
        shards: How many.
        to_purify: Of them.
        plan_s: Seconds until the work was frozen: input, records and staging listed.
        plan_cpu_s: Of them, those of this process's CPU.
        new_info_s: Seconds to write `_info.json` for the first time, which reads each record.
        known_info_s: Seconds to write it again.
        held_bytes: What the frozen work takes in memory.
    """

    shards: int
    to_purify: int
    plan_s: float
    plan_cpu_s: float
    new_info_s: float
    known_info_s: float
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The same for a tenth of the shards, and for all."""

    few: Planning
    many: Planning

    def rows(self) -> list[tuple[str, str]]:
        return [
            (
                f"{one.shards:,} shards",
                f"planned in {one.plan_s:.2f} s, of which {one.plan_cpu_s:.2f} s of this process's CPU "
                f"({1e6 * one.plan_cpu_s / one.shards:.0f} us each), "
                f"{size_of(max(one.held_bytes, 0))} held; _info.json in {one.new_info_s:.2f} s, "
                f"again in {one.known_info_s:.2f} s",
            )
            for one in (self.few, self.many)
        ]


@dataclass(frozen=True, slots=True)
class Counting:
    """Counting so many receipts: seconds, those of the CPU, and by how much the driver's memory grew."""

    receipts: int
    seconds: float
    cpu_s: float
    grown_bytes: int


@dataclass(frozen=True, slots=True)
class Receipts:
    """The same for a tenth of the receipts, and for all."""

    few: Counting
    many: Counting

    def rows(self) -> list[tuple[str, str]]:
        return [
            (
                f"{one.receipts:,}",
                f"receipts counted in {one.seconds:.1f} s, of which {one.cpu_s:.1f} s of this process's CPU "
                f"({1e6 * one.cpu_s / one.receipts:.1f} us each); driver grew by {size_of(max(one.grown_bytes, 0))}",
            )
            for one in (self.few, self.many)
        ]


def measure_listing(config: JobConfig, root: str, shards: int) -> Listing:
    """Find and plan shards that are names alone.

    Args:
        config: The job; its input and output are set here.
        root: Local folder or bucket's prefix; a folder of its own is made there, and gone afterwards.
        shards: How many.
    """
    return Listing(*(_plan(config, f"{root}/zipstage-bench-{os.getpid()}-{n}", n) for n in (shards // 10, shards)))


def _plan(config: JobConfig, root: str, count: int) -> Planning:
    place, output = open_store(root), open_store(f"{root}/out")
    config = config.model_copy(update={"input": (f"{root}/in",), "output": output.uri})
    try:
        _put_all(place, {f"in/{i % 100:02d}/{i:06d}.tar": b"" for i in range(count)})
        _put_all(output, _ledger_of(find_shards(config.input), config))
        before, began, cpu = pss_of(os.getpid()), time.monotonic(), time.process_time()
        shards = find_shards(config.input)
        refuse_overlap(config.output, config.input, shards)
        plan = ledger.make_plan(config, shards, output, FINGERPRINT)
        plan_s, cpu_s, held = time.monotonic() - began, time.process_time() - cpu, pss_of(os.getpid()) - before
        new_s, known_s = _time_info(output), _time_info(output)
        return Planning(len(plan.shards), len(plan.tasks), plan_s, cpu_s, new_s, known_s, held)
    finally:
        place.delete_below("")


def _time_info(output: Store) -> float:
    began = time.monotonic()
    write_info(output)
    return time.monotonic() - began


def _ledger_of(shards: Sequence[Shard], config: JobConfig) -> dict[str, bytes]:
    record = json.dumps({"statuses": {"ok": 1}}).encode()
    found = {ledger.record_path(shard.name, shard.identity): record for shard in shards[::2]}
    for shard in shards[1::10]:
        found[ledger.staged_path(shard.name, ledger.plan_identity(shard, FINGERPRINT, config), 0)] = b""
    return found


def _put_all(store: Store, data_by_path: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(_WRITERS) as writers:
        for _ in writers.map(lambda item: store.put(*item), data_by_path.items()):
            pass


def measure_receipts(config: JobConfig, folder: Path, receipts: int) -> Receipts:
    """Run the main path over an engine that does nothing: what is left is what the driver does."""
    return Receipts(*(_count(config, folder / str(n), n) for n in (receipts // 10, receipts)))


def _count(config: JobConfig, folder: Path, count: int) -> Counting:
    (folder / "in").mkdir(parents=True)
    for number in range(max(1, count // PARTS_A_SHARD)):
        (folder / "in" / f"{number:06d}.tar").touch()
    config = config.model_copy(update={"input": (str(folder / "in"),), "output": str(folder / "out")})
    view = View()
    before, began, cpu = pss_of(os.getpid()), time.monotonic(), time.process_time()
    run_job(config, view.note, Idling)
    seconds, cpu_s, grown = time.monotonic() - began, time.process_time() - cpu, pss_of(os.getpid()) - before
    shutil.rmtree(folder)
    return Counting(sum(view.summary.parts.values()), seconds, cpu_s, grown)


@dataclass
class Idling:
    """An engine that purifies nothing and says that all is done: receipts in turns from some shards at once."""

    config: JobConfig
    output: Store
    fingerprint: str
    device: str = "none"
    purifiers: int = 0
    _ended: list[Committed | Asked | Failed] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        for at in range(0, len(window), OPEN_SHARDS):
            some = window[at : at + OPEN_SHARDS]
            for index in range(PARTS_A_SHARD):
                for task in some:
                    # As text, which is how they come.
                    text = Receipt(task.shard.name, task.plan, index, index == PARTS_A_SHARD - 1, "staged").to_json()
                    yield Receipt.from_json(text)

    def drain(self) -> None:
        pass

    def start_commit(self, task: Task, num_parts: int) -> None:
        size = task.shard.stored.size
        record: dict[str, Any] = {"statuses": {"ok": num_parts}, "source": {"size": size}, "outputs": {}}
        self._ended.append(Committed(task.shard.name, task.shard.identity, record))

    def start_ask(self, shard: Shard) -> None:
        pass

    def finished(self, wait_s: float = 0.0) -> list[Committed | Asked | Failed]:
        ended, self._ended = self._ended, []
        return ended

    @property
    def num_open(self) -> int:
        return len(self._ended)
