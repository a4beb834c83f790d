"""A job on a real Ray whose workers a test can hold, kill and slow down; in a process of its own.

The purifier is the stub of `inprocess`. Each piece of work has a name (`purifying a.tar 3`); what a
worker does at it is said by a `Script`, a file that all workers read. They write down what they
begin, so that a test knows whom to kill, and what was done twice.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from inprocess import Inverting
from raychild import TESTS

import pipeline.purifier
from pipeline import graph, workers
from pipeline.config import JobConfig, load_config, nest
from pipeline.facts import Fact
from pipeline.job import purify
from pipeline.ledger import Task
from pipeline.parts import Part, Receipt, part_from_bytes
from pipeline.rereading import Counter, read_counted
from pipeline.stages import stage_part
from pipeline.store import Store
from zipstage.errors import ZipstageError
from zipstage.tiles import Tiles

PATIENCE_S = 900.0
"""On a busy machine everything is slow; whoever waits longer has found a bug."""


@dataclass(frozen=True)
class Script:
    """What workers do at which work.

    Args:
        folder: Where they write down what they begin, and look for leave to go on.
        held: Work that waits for leave.
        deadly: Work that kills its worker, at each try.
        purify_s: How long a part takes to purify.
    """

    folder: str
    held: Sequence[str] = ()
    deadly: Sequence[str] = ()
    purify_s: float = 0.0

    def enter(self, work: str) -> None:
        """A worker begins a piece of work: it writes that down, and dies, waits or goes on."""
        with (Path(self.folder) / "begun").open("a") as log:
            log.write(json.dumps({"work": work, "pid": os.getpid(), "node": _node(), "at": time.time()}) + "\n")
        if work in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        while work in self.held and not (Path(self.folder) / f"go {_plain(work)}").exists():
            time.sleep(0.05)  # for a person's hand, as it were: the test gives leave after its kill

    def leave(self, work: str) -> None:
        with (Path(self.folder) / "ended").open("a") as log:
            log.write(json.dumps({"work": work, "pid": os.getpid(), "node": _node(), "at": time.time()}) + "\n")


def _plain(work: str) -> str:
    return work.replace("/", "_")


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


# --- the test's side --------------------------------------------------------------------------------


@dataclass
class Drill:
    """A job in a process of its own.

    Args:
        script: What its workers do.
        process: The driver.
        told: The facts it told so far, by kind and fields.
    """

    script: Script
    process: subprocess.Popen[str]
    told: list[dict[str, Any]] = field(default_factory=list)

    def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait until a fact of a kind was told so many times; gives the last."""
        seen = 0
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith("{"):
                continue
            self.told.append(json.loads(line))
            seen += self.told[-1]["kind"] == kind
            if seen == count:
                return self.told[-1]
        raise AssertionError(f"ended before {kind} number {count}: {self.told[-5:]} {self.errors()}")

    def end(self) -> dict[str, Any]:
        """Wait for the end; gives the summary, or what the run raised."""
        summary = self.until("Summary")
        self.process.wait()
        return summary

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()[-3000:]

    def warnings(self) -> list[str]:
        return [fact["message"] for fact in self.told if fact["kind"] == "Warned"]

    def kill(self, work: str) -> int:
        """Wait until a worker holds at a piece of work, kill it, and let the next one pass; gives its pid."""
        pid = self.holder(work)
        os.kill(pid, signal.SIGKILL)
        self.pass_(work)
        return pid

    def holder(self, work: str) -> int:
        """The pid of the worker that holds at a piece of work."""
        return int(self.wait_for(work)["pid"])

    def wait_for(self, work: str) -> dict[str, Any]:
        """Wait until a piece of work was begun; gives who did."""
        waited_until = time.monotonic() + PATIENCE_S
        while time.monotonic() < waited_until and self.process.poll() is None:
            for one in entries(self.script, "begun"):
                if one["work"] == work:
                    return one
            time.sleep(0.1)
        raise AssertionError(f"nobody began {work!r}: {self.errors() if self.process.poll() is not None else ''}")

    def pass_(self, work: str) -> None:
        (Path(self.script.folder) / f"go {_plain(work)}").touch()


@contextmanager
def drill(script: Script, fields: dict[str, Any]) -> Iterator[Drill]:
    """Start a job; it is killed at the end of the block, if it still runs."""
    Path(script.folder).mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "raydrill", json.dumps(asdict(script)), json.dumps(fields)],
        env=environment(),
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Drill(script, process)
    finally:
        process.kill()
        process.communicate()


def environment() -> dict[str, str]:
    """That of a process whose workers find the tests' modules."""
    search = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}


def entries(script: Script, what: str) -> list[dict[str, Any]]:
    """What workers wrote down: 'begun' or 'ended'."""
    path = Path(script.folder) / what
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def times(script: Script, what: str, stage: str) -> collections.Counter[str]:
    """How often each piece of a stage's work was begun or ended."""
    return collections.Counter(one["work"] for one in entries(script, what) if one["work"].startswith(stage))


# --- the workers' side ------------------------------------------------------------------------------


class _Slow(Inverting):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def purify(self, tiles: Any) -> Any:
        time.sleep(self.seconds)  # stands for a network
        return super().purify(tiles)


def take_over(script: Script) -> None:
    """Have the graph run workers that keep to the script; called in the driver, before it starts Ray."""

    def read(batch: Any, config: Any, attempts: Any) -> Iterator[Any]:
        workers.read_counted = lambda task, config, counter: _watched(script, task, config, counter)
        yield from workers.read(batch, config, attempts)

    def stage(batch: Any, config: Any, output: Any, attempts: Any) -> Any:
        part = part_from_bytes(batch["payload"][0].as_buffer())
        workers.stage_part = lambda part, output, config: _staged(script, part, output, config)
        result = workers.stage(batch, config, output, attempts)
        script.leave(f"staging {part.shard} {part.index}")
        return result

    def commit(task: Any, num_parts: int, output: Any, fingerprint: str) -> Any:
        script.enter(f"committing {task.shard.name}")
        return workers.commit(task, num_parts, output, fingerprint)

    class PurifyActor(workers.PurifyActor):
        def __init__(self, config: Any, device: str, attempts: Any) -> None:
            pipeline.purifier.build_purifier = lambda config, device: (Following(script, self), {"device": "stub"})
            super().__init__(config, device, attempts)

        def __call__(self, batch: Any) -> Any:
            part = part_from_bytes(batch["payload"][0].as_buffer())
            self.work = f"purifying {part.shard} {part.index}"
            result = super().__call__(batch)
            script.leave(self.work)
            return result

    class AskActor(workers.AskActor):
        async def ask(self, shard: Any) -> Any:
            script.enter(f"asking {shard.name}")
            return await super().ask(shard)

    following = {"read": read, "stage": stage, "commit": commit, "PurifyActor": PurifyActor, "AskActor": AskActor}
    graph.workers = SimpleNamespace(**{**vars(workers), **following})


class Following(Inverting):
    """The stub, which takes its time."""

    def __init__(self, script: Script, actor: Any) -> None:
        super().__init__()
        self.script, self.actor = script, actor

    def purify(self, tiles: Tiles) -> Tiles:
        self.script.enter(self.actor.work)
        time.sleep(self.script.purify_s)  # stands for a network
        return super().purify(tiles)


def _staged(script: Script, part: Part, output: Store, config: JobConfig) -> Receipt:
    if part.outcome is None:
        script.enter(f"staging {part.shard} {part.index}")
    return stage_part(part, output, config)


def _watched(script: Script, task: Task, config: JobConfig, counter: Counter) -> Iterator[Part]:
    for position, part in enumerate(read_counted(task, config, counter)):
        if part.outcome != "unreadable":
            script.enter(f"reading {task.shard.name} {position}")
        yield part


def main() -> None:
    # By this name, since workers can't import the one that the process started with.
    importlib.import_module("raydrill").take_over(Script(**json.loads(sys.argv[1])))

    def tell(fact: Fact) -> None:
        kind = type(fact).__name__
        if kind != "Idle":
            print(json.dumps({"kind": kind, "at": time.time(), **_fields(fact)}), flush=True)

    try:
        end = purify(load_config(None, nest(json.loads(sys.argv[2]))), tell).to_dict()
    except ZipstageError as error:
        end = {"raised": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    print(json.dumps({"kind": "Summary", **end}), flush=True)


def _fields(fact: Fact) -> dict[str, Any]:
    known = ("shard", "index", "outcome", "error", "message", "purifiers", "device")
    return {name: getattr(fact, name) for name in known if hasattr(fact, name)}


if __name__ == "__main__":
    main()
