"""The job's main path in one process, without Ray: crashes become cheap, and each can be aimed.

`InProcess` keeps the engine's promises by plain calls. `Dying` is a store that ends the process at
its n-th write. The purifier is a stub that costs nothing and is no identity, so that an image that
went around it shows.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from inverting import Inverting

from pipeline import job
from pipeline.ask import Asked, Asker
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.engine import try_ask, try_commit
from pipeline.facts import Failed, Summary
from pipeline.ledger import Task
from pipeline.parts import Receipt
from pipeline.stages import Purify, read_parts, stage_part
from pipeline.store import Shard, Store
from zipstage.tiles import Tiles

DIED = 9
"""Exit code of a process that ended at its write."""


@dataclass
class InProcess:
    """Runs the graph by plain calls, one part after the other; commits and asks at once.

    Args:
        config: The job.
        output: Where it goes.
        fingerprint: Of the settings.
        purifier: What purifies.
        purified: Counts how often each part was purified, (shard, part).
    """

    config: JobConfig
    output: Store
    fingerprint: str
    purifier: Any = field(default_factory=Inverting)
    purified: Counter[tuple[str, int]] = field(default_factory=Counter)
    device: str = "cpu"
    purifiers: int = 1

    def __enter__(self) -> InProcess:
        self._ended: list[Committed | Asked | Failed] = []
        self._asker: Asker | None = None
        self._loop = asyncio.Runner()
        self._is_draining = False
        self._attempts: Counter[tuple[str, int]] = Counter()
        tries = self.config.cluster.max_attempts
        self._purify = Purify(self.purifier, {"device": "stub"}, self._attempt, tries, self.config.give_up)
        return self

    def __exit__(self, *_: object) -> None:
        if self._asker is not None:
            self._loop.run(self._asker.close())
        self._loop.close()

    def _attempt(self, shard: str, part: int) -> int:
        self._attempts[shard, part] += 1
        self.purified[shard, part] += 1
        return self._attempts[shard, part]

    def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
        for task in window:
            for part in read_parts(task, self.config):
                if self._is_draining:
                    return
                yield stage_part(self._purify(part), self.output, self.config)

    def drain(self) -> None:
        self._is_draining = True

    def start_commit(self, task: Task, num_parts: int) -> None:
        self._ended.append(try_commit(task, num_parts, self.output, self.fingerprint))

    def start_ask(self, shard: Shard) -> None:
        self._asker = self._asker or Asker(self.config, self.output)
        self._ended.append(self._loop.run(try_ask(self._asker, shard, self.output)))

    def finished(self, wait_s: float = 0.0) -> list[Committed | Asked | Failed]:
        ended, self._ended = self._ended, []
        return ended

    @property
    def num_open(self) -> int:
        return len(self._ended)


class Dying(Store):
    """A store whose process ends right before its n-th write; n = 0 never ends it.

    Writes are puts, deletes, and streams right before and right after they are closed: all that
    changes what others see. Right after one is right before the next.
    """

    at = count = 0

    def _write(self, act: Callable[[], Any]) -> Any:
        self.count += 1
        if self.count == self.at:
            os._exit(DIED)
        return act()

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        self._write(lambda: super(Dying, self).put(path, data, create=create))

    def delete(self, path: str) -> None:
        self._write(lambda: super(Dying, self).delete(path))

    def delete_below(self, prefix: str) -> int:
        for stored in list(self.list(prefix)):
            self.delete(stored.path)
        return 0

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        with super().writer(path) as file:
            yield file
            self._write(lambda: None)
        self._write(lambda: None)


Ran = TypeVar("Ran", bound=InProcess)


def run(config: JobConfig, kind: type[Ran] = InProcess, **engine: Any) -> tuple[Summary, Ran | None]:
    """The real main path in this process; the engine comes back for its counts, None when nothing was to do."""
    made: list[Ran] = []

    def engine_of(config: JobConfig, output: Store, fingerprint: str) -> Ran:
        made.append(kind(config, output, fingerprint, **engine))
        return made[0]

    summary = job.purify(config, lambda fact: None, engine_of, run="test")
    return summary, made[0] if made else None


def run_in_a_process(config: JobConfig, dies_at: int, log: Path) -> int:
    """The same in a process of its own that ends right before its n-th write; gives its exit code.

    Each purified part appends a line to `log`, so that a part that was purified twice shows. The
    last line of a run that came to its end is the number of its writes.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported all and opened nothing
    context.set_forkserver_preload(["pipeline.job", "pipeline.stages", "zipstage.purifiers.controls"])
    process = context.Process(target=_run_and_die, args=(config, dies_at, log, dict(os.environ)))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class _Logging(Inverting):
    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def purify(self, tiles: Tiles) -> Tiles:
        with self.log.open("a") as file:
            file.write(f"{tiles.keys[0].tolist()}\n")
        return super().purify(tiles)


def _run_and_die(config: JobConfig, dies_at: int, log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the process that forks has the one of its own start
    opened: list[Dying] = []

    def open_dying(uri: str, patience_s: float) -> Store:
        opened.append(Dying(uri, patience_s))
        opened[-1].at = dies_at
        return opened[-1]

    job.open_store = open_dying
    run(config, purifier=_Logging(log))
    with log.open("a") as file:
        file.write(f"writes {opened[0].count}\n")


def ending(error: BaseException, after: int = 1) -> Any:
    """An engine that raises after so many receipts."""

    class Ending(InProcess):
        def receipts(self, window: Sequence[Task]) -> Iterator[Receipt | None]:
            for count, receipt in enumerate(super().receipts(window)):
                if count == after:
                    raise error
                yield receipt

    return Ending
