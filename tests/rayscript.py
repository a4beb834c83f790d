"""What runs on the workers of a drill: the graph's own workers, around which a script is put.

Light: a drill may start a hundred of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from inverting import Inverting

from pipeline import workers
from pipeline.config import JobConfig
from pipeline.ledger import Task
from pipeline.parts import Part, Receipt, part_from_bytes
from pipeline.rereading import Counter, read_counted
from pipeline.stages import read_parts, stage_part
from pipeline.store import Store
from zipstage.tiles import Tiles


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
        while work in self.held and not (Path(self.folder) / f"go {plain(work)}").exists():
            time.sleep(0.05)  # for a person's hand, as it were: the test gives leave after its kill

    def leave(self, work: str) -> None:
        with (Path(self.folder) / "ended").open("a") as log:
            log.write(json.dumps({"work": work, "pid": os.getpid(), "node": _node(), "at": time.time()}) + "\n")


def plain(work: str) -> str:
    return work.replace("/", "_")


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


class _Slow(Inverting):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def purify(self, tiles: Any) -> Any:
        time.sleep(self.seconds)  # stands for a network
        return super().purify(tiles)


def following(script: Script) -> SimpleNamespace:
    """`pipeline.workers`, whose workers keep to a script."""

    def read(batch: Any, **options: Any) -> Iterator[Any]:
        workers.read_counted = lambda task, config, counter: _watched(script, task, config, counter)
        yield from workers.read(batch, **options)

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
            # In place of the module, which would load torch.
            stub = SimpleNamespace(build_purifier=lambda config, device: (Following(script, self), {"device": "stub"}))
            sys.modules["pipeline.purifier"] = stub  # type: ignore[assignment]
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

    taken = {"read": read, "stage": stage, "commit": commit, "PurifyActor": PurifyActor, "AskActor": AskActor}
    return SimpleNamespace(**{**vars(workers), **taken})


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
    def read(task: Task, config: JobConfig) -> Iterator[Part]:
        for position, part in enumerate(read_parts(task, config)):
            script.enter(f"reading {task.shard.name} {position}")
            yield part

    return read_counted(task, config, counter, read)
