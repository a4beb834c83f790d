"""A job on a real Ray whose workers a test can hold, kill and slow down; in a process of its own.

Each piece of work has a name (`purifying a.tar 3`); what a worker does at it is said by a `Script`.
Workers write down what they begin, so that a test knows whom to kill, and what was done twice.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raychild import TESTS
from rayscript import Script, following, plain

from pipeline import graph
from pipeline.config_loading import load_config, nest
from pipeline.facts import Fact
from pipeline.job import purify
from zipstage.errors import ZipstageError

PATIENCE_S = 900.0
"""On a busy machine everything is slow; whoever waits longer has found a bug."""


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
        (Path(self.script.folder) / f"go {plain(work)}").touch()


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


def main() -> None:
    graph.workers = following(Script(**json.loads(sys.argv[1])))

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
