"""Asking that is killed anywhere: the rerun asks about the open chunks alone, and no answer is lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from inprocess import DIED, run, run_in_a_process
from making import job, samples, tree, write_tar
from scripted_server import Request, ScriptedServer, reset

from pipeline.config import JobConfig

COUNT, CHUNK = 5, 2
CHUNKS = 3
FIELDS = {
    "classifier__protocol": "open-inference-v2",
    "classifier__model": "colour",
    "classifier__name": "box",
    "classifier__concurrency": 1,
    "ask__chunk": CHUNK,  # a request for each chunk: its pictures are all of one size
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


class Killed:
    """A shard that is purified and not asked about, a copy of it for each kill, and what was asked in all."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.folder, self.server = folder, server
        write_tar(folder / "in/a.tar", samples(COUNT))
        run(job(folder))
        (folder / "out").rename(folder / "open")
        run(self.config("whole"))
        self.reference = self.answers("whole")
        assert server.pictures.total() == 2 * COUNT
        assert server.num_asked == CHUNKS

    def config(self, name: str) -> JobConfig:
        if not (self.folder / name).exists():
            shutil.copytree(self.folder / "open", self.folder / name / "out")
        fields: dict[str, Any] = {**FIELDS, "classifier__url": self.server.url, "input": str(self.folder / "in")}
        return job(self.folder / name, **fields)

    def answers(self, name: str) -> dict[str, bytes]:
        return tree(self.folder / name / "out", "predictions", "_staging")

    def die(self, name: str, at: int) -> int:
        self.server.forget()
        return run_in_a_process(self.config(name), at, self.folder / f"{name}.log")

    def check_rerun(self, name: str) -> None:
        """Run again in peace: only the chunk that was under way is asked about twice."""
        summary, engine = run(self.config(name))
        assert summary.exit_code == 0
        assert engine is None or engine.purified.total() == 0
        assert self.answers(name) == self.reference, name
        found = pq.read_table(self.folder / name / "out/predictions/box/a.tar.parquet")["index"].to_pylist()
        assert found == list(range(COUNT))
        asked = self.server.pictures
        assert len(asked) == 2 * COUNT
        assert max(asked.values()) <= 2
        assert sum(times == 2 for times in asked.values()) <= 2 * CHUNK
        assert self.server.num_asked <= CHUNKS + 1


def test_asking_that_dies_before_any_of_its_writes_is_finished_by_the_next_run(
    tmp_path: Path, server: ScriptedServer
) -> None:
    killed = Killed(tmp_path, server)
    assert killed.die("peace", 0) == 0
    writes = int((tmp_path / "peace.log").read_text().splitlines()[-1].removeprefix("writes "))
    assert writes >= CHUNKS + 3 + CHUNKS  # staged, predictions opened and closed, record, staging dropped
    asked_twice = 0
    for n in range(1, writes + 1):
        assert killed.die(f"at{n}", n) == DIED
        killed.check_rerun(f"at{n}")
        asked_twice += killed.server.num_asked - CHUNKS
    assert asked_twice == CHUNKS  # between a request and its staging, once for each chunk


@pytest.mark.parametrize("number", range(CHUNKS))
def test_asking_that_is_killed_while_a_request_is_under_way_is_finished_by_the_next_run(
    tmp_path: Path, server: ScriptedServer, number: int
) -> None:
    killed = Killed(tmp_path, server)

    def kill(request: Request) -> Any:
        if request.number != number:
            return None
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        return reset

    server.script = kill
    assert killed.die("killed", 0) == -signal.SIGKILL
    assert len(tree(tmp_path / "killed/out", "_staging")) == number
    server.script = None
    killed.check_rerun("killed")
    assert server.num_asked == CHUNKS + 1
