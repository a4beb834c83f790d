"""The job's main path with a purifier in a process of its own that may die, and is replaced.

A part whose process died is tried again, as Ray's pool of actors does it, for ever: what bounds it is
`pipeline.attempts`, which lives in the test's own process. The test decides at each part whether
its process is killed (SIGKILL, by pid) right when it has begun.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from inprocess import InProcess, Inverting

from pipeline.attempts import Attempts
from pipeline.parts import Part, part_from_bytes, part_to_bytes
from pipeline.stages import Purify
from zipstage.tiles import Tiles

Dies = Callable[[str, int, int], bool]
"""Whether the process dies at a part: NAME, part, and the how manyth time it is begun in this run."""


@dataclass
class InAWorker(InProcess):
    """Purifies in a process of its own.

    Args:
        dies: Decides at each part.
        begun: Counts how often each part was begun.
    """

    dies: Dies = lambda shard, part, time: False
    begun: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __enter__(self) -> InAWorker:
        super().__enter__()
        self._counting = Attempts(self.config.cluster.max_attempts, lambda node: True)
        self._worker = Worker(self.config.cluster.max_attempts, self.config.give_up)
        self._purify: Any = self._purify_there
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.kill()

    def _purify_there(self, part: Part) -> Part:
        while True:
            self._worker.send(part_to_bytes(part))
            while (answer := self._worker.receive()) is not None:
                if isinstance(answer, bytes):
                    self._counting.end("purifying", part.shard, part.index)
                    return part_from_bytes(answer)
                if answer == "begin":
                    self._worker.send(self._counting.begin("purifying", part.shard, part.index))
                elif self._is_to_die(part):
                    self._worker.kill()
                else:
                    self.purified[part.shard, part.index] += 1
                    self._worker.send("go")
            self._worker = Worker(self.config.cluster.max_attempts, self.config.give_up)

    def _is_to_die(self, part: Part) -> bool:
        self.begun[part.shard, part.index] += 1
        return self.dies(part.shard, part.index, self.begun[part.shard, part.index])


class Worker:
    """A process that purifies what it is sent."""

    def __init__(self, max_attempts: int, gives_up: bool) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipeline.job", "pipeline.stages"])
        self._mine, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_purify_what_comes, args=(theirs, max_attempts, gives_up))
        self._process.start()
        theirs.close()

    def send(self, what: object) -> None:
        self._mine.send(what)

    def receive(self) -> Any:
        """What it says; None when it died."""
        try:
            return self._mine.recv()
        except (EOFError, ConnectionResetError):
            self.kill()
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class _Asking(Inverting):
    """Says that it begins, and waits for its go."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self._parent = parent

    def purify(self, tiles: Tiles) -> Tiles:
        self._parent.send("begun")
        self._parent.recv()
        return super().purify(tiles)


def _purify_what_comes(parent: Connection, max_attempts: int, gives_up: bool) -> None:
    def attempt(shard: str, part: int) -> int:
        parent.send("begin")
        number: int = parent.recv()
        return number

    purify = Purify(_Asking(parent), {"device": "stub"}, attempt, max_attempts, gives_up)
    while True:
        parent.send(part_to_bytes(purify(part_from_bytes(parent.recv()))))
