"""Ends runs at any moment, and lets two take turns at any: what tests of killed drivers share.

A moment is right before or right after a call of the output's store, or a write into one of its
streams: nothing that others could see lies between two. `run_to` runs the command in a process that
sends itself a signal at such moments, `Turns` runs several drivers in threads of which one moves at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from inprocess import InProcess, Inverting

from pipeline import job
from pipeline.config import JobConfig
from pipeline.reaper import MARK, marked
from pipeline.store import Store, Stored
from zipstage.tiles import Tiles

T = TypeVar("T")
Hook = Callable[[str], None]


class Moments(Store):
    """A store that tells a hook each of its moments, by what is about to happen or has happened."""

    def __init__(self, uri: str, patience_s: float, hook: Hook) -> None:
        super().__init__(uri, patience_s)
        self.hook = hook

    def _around(self, what: str, act: Callable[[], T]) -> T:
        self.hook(f"before {what}")
        result = act()
        self.hook(f"after {what}")
        return result

    def list(self, prefix: str = "") -> Iterator[Stored]:
        return self._around(f"list {prefix}", lambda: super(Moments, self).list(prefix))

    def head(self, path: str) -> Stored:
        return self._around(f"head {path}", lambda: super(Moments, self).head(path))

    def get(self, path: str) -> bytes:
        return self._around(f"get {path}", lambda: super(Moments, self).get(path))

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        self._around(f"put {path}", lambda: super(Moments, self).put(path, data, create=create))

    def delete(self, path: str) -> None:
        self._around(f"delete {path}", lambda: super(Moments, self).delete(path))

    def delete_below(self, prefix: str) -> int:
        return self._around(f"delete {prefix}", lambda: super(Moments, self).delete_below(prefix))

    @contextmanager
    def writer(self, path: str) -> Iterator[Any]:
        with super().writer(path) as file:
            write = file.write

            def told(data: Any) -> int:
                self.hook(f"before write {path}")
                return write(data)

            file.write = told
            yield file
            self.hook(f"before close {path}")
        self.hook(f"after close {path}")


@contextmanager
def moments(hook: Hook) -> Iterator[None]:
    """While the block runs, the main path's output tells the hook its moments."""
    opener = job.open_store

    def open_telling(uri: str, patience_s: float) -> Store:
        return Moments(uri, patience_s, hook)

    job.open_store = open_telling
    try:
        yield
    finally:
        job.open_store = opener


class Logging(Inverting):
    """A purifier that appends a line for each part to a file: a part that was purified twice shows."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def purify(self, tiles: Tiles) -> Tiles:
        with self.log.open("a") as file:
            file.write(f"{tiles.keys[0].tolist()}\n")
        return super().purify(tiles)


def purified(log: Path) -> list[str]:
    """The parts that were purified, in all runs with that log."""
    return log.read_text().splitlines() if log.exists() else []


def run_to(config: JobConfig, log: Path, at: Mapping[int, int]) -> tuple[int, str]:
    """Run `zipstage purify` in a process of its own that sends itself signals; gives its exit code and what it said.

    Args:
        config: The job; the stub purifies.
        log: Takes a line for each part that is purified.
        at: The signal for each moment at which one is sent, counted from 1.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported all and opened nothing
    context.set_forkserver_preload(["killing", "jobs.main", "jobs.commands.purify", "pipeline.screen"])
    said = log.with_suffix(".said")
    process = context.Process(target=_run, args=(config, log, said, dict(at), dict(os.environ)))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, said.read_text()


def _run(config: JobConfig, log: Path, said: Path, at: dict[int, int], environment: dict[str, str]) -> None:
    from jobs import arguments
    from jobs.commands import purify
    from jobs.main import main

    os.environ.update(environment)  # the process that forks has the one of its own start
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    count = 0

    def hook(what: str) -> None:
        nonlocal count
        count += 1
        if count in at:
            os.kill(os.getpid(), at[count])

    def engine_of(config: JobConfig, output: Store, fingerprint: str) -> InProcess:
        return InProcess(config, output, fingerprint, purifier=Logging(log))

    arguments.read_job = lambda tokens, environ: config
    purify.ray_engine = lambda verbose: engine_of
    with moments(hook):
        code = main(["purify"])
    sys.exit(code)


class Turns:
    """Runs several things at once, of which one moves at a time and hands over at its moments: at random, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._stretch = 0  # moments until it hands over: few and many, so that one is steps or whole shards ahead
        self._running: list[int] = []
        self._threads: list[threading.Thread] = []
        self._turn = 0

    def __call__(self, what: str) -> None:
        """A moment of the one whose turn it is, or of a thread that works for it while it waits."""
        if threading.current_thread() in self._threads:
            self._stretch -= 1
            if self._stretch <= 0:
                self._hand_over()
                self._wait()

    def run(self, *acts: Callable[[], Any]) -> list[Any]:
        """Run them to their ends; gives what they return, or what they raise."""
        results: list[Any] = [None] * len(acts)

        def take_part(index: int) -> None:
            threading.current_thread().name = str(index)
            self._wait()
            try:
                results[index] = acts[index]()
            except Exception as error:  # noqa: BLE001 - handed to the test
                results[index] = error
            self._running.remove(index)
            self._hand_over()

        self._running = list(range(len(acts)))
        self._turn = self._random.choice(self._running)
        self._threads = [threading.Thread(target=take_part, args=(index,)) for index in self._running]
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return results

    def _hand_over(self) -> None:
        with self._changed:
            self._turn = self._random.choice(self._running) if self._running else -1
            self._stretch = self._random.choice((1, 2, 4, 16, 64))
            self._changed.notify_all()

    def _wait(self) -> None:
        me = threading.current_thread().name
        with self._changed:
            self._changed.wait_for(lambda: str(self._turn) == me)


def kin(pid: int) -> list[psutil.Process]:
    """What a driver's own cluster consists of now: all that carries its mark."""
    marks = {process.environ().get(MARK) for process in _alive(psutil.Process(pid).children(recursive=True))}
    return [psutil.Process(found) for mark in marks - {None} for found in marked(str(mark))]


def _alive(processes: Sequence[psutil.Process]) -> Iterator[psutil.Process]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process


def outlived_s(processes: Sequence[psutil.Process], patience_s: float) -> float:
    """How long it takes until none of them is left.

    Raises:
        AssertionError: Longer than it may; those that are left are named.
    """
    began = time.monotonic()
    while left := list(_alive(processes)):
        took = time.monotonic() - began
        assert took < patience_s, [(process.pid, process.name()) for process in left]
        time.sleep(0.1)
    return time.monotonic() - began
