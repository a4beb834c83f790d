"""Nightly reruns over a growing input, in one process: what each night did, and what it left behind.

As a module of its own (`python -m nights FOLDER NIGHTS`) it runs them on a real Ray, a line of JSON a night.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from counting import counted
from inprocess import run
from making import Members, job, samples, write_tar

from jobs.bench.memory import pss_of, tree_of
from pipeline.config import JobConfig
from pipeline.facts import Summary

SHARDS = 3
SAMPLES = 8
"""In a shard, and as many parts: each image takes a tile of its own."""


@dataclass(frozen=True)
class Night:
    """One night.

    Args:
        new: Shards that came since the last one.
        committed: Shards that it made whole.
        parts: Parts by outcome.
        reads: Objects of earlier nights' shards that were opened, by URI.
        calls: Calls of the stores, by method.
        strays: What lies in the output beside what is committed, folders without a file among them.
        files: Open files of the process.
        threads: Threads of the process, of any language.
        pss_bytes: Its memory.
        children: Processes that it started and that still run.
        seconds: How long the run took.
    """

    new: Sequence[str]
    committed: Sequence[str]
    parts: dict[str, int]
    reads: Sequence[str]
    calls: dict[str, int]
    strays: Sequence[str]
    files: int
    threads: int
    pss_bytes: int
    children: int
    seconds: float


def in_process(config: JobConfig, number: int) -> Summary:
    return run(config)[0]


def on_ray(config: JobConfig, number: int) -> Summary:
    from pipeline.job import purify

    return purify(config, lambda fact: None, run=f"night-{number}")


def night(
    folder: Path, number: int, do: Callable[[JobConfig, int], Summary] = in_process, shards: int = SHARDS
) -> Night:
    """Let so many shards arrive and run the job; nothing else happens."""
    config = job(folder, part__tiles=1, cluster__object_store_mib=200)
    earlier = {str(path.relative_to(folder / "in")) for path in (folder / "in").rglob("*.tar")}
    new = [f"{number:04d}/{i}.tar" for i in range(shards)]
    for name in new:
        write_tar(folder / "in" / name, _samples())
    began = time.monotonic()
    with counted() as calls:
        summary = do(config, number)
    seconds = time.monotonic() - began
    return Night(
        new,
        sorted(summary.committed),
        summary.parts,
        sorted(uri for uri in calls.read if any(name in uri for name in earlier)),
        dict(calls.counts),
        strays(folder / "out"),
        len(list(Path("/proc/self/fd").iterdir())),
        _num_threads(),
        pss_of(os.getpid()),
        len(tree_of(os.getpid())) - 1,
        seconds,
    )


@cache
def _samples() -> list[Members]:
    return samples(SAMPLES, 0, 180, 180)


def strays(output: Path) -> list[str]:
    """Staged parts, temporary files, empty folders: whatever a finished run must not leave."""
    found = []
    for path in sorted(output.rglob("*")):
        relative = str(path.relative_to(output))
        is_empty = path.is_dir() and not any(path.iterdir())
        if is_empty or relative.startswith("_staging/") or "#" in path.name or ".tmp" in path.name:
            found.append(relative)
    return found


def _num_threads() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return max(threading.active_count(), next(int(line.split()[1]) for line in lines if line.startswith("Threads:")))


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    for number in range(count):
        said: dict[str, Any] = asdict(night(folder, number, on_ray, shards=1))
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
