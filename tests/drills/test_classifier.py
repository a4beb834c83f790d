"""A real classifier server that is away: from the start, and for 20 seconds in the middle of a real job."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from making import samples, tree, write_tar
from raychild import finish, started

from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = [pytest.mark.drill, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
SHARDS, PER_SHARD = 16, 32  # of 90x96 px, four to a tile: eight parts a shard
BEFORE = 10  # of these were purified by an earlier run: so many wait to be asked about when the server goes
AWAY_S = 20.0


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("received")
    for shard in range(SHARDS):
        write_tar(folder / f"{shard:02d}.tar", samples(PER_SHARD, 1000 * shard, 90, 96))
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[str]]:
    """`zipstage serve` as a process of its own, answering; killed at the end, if it still runs."""
    command = [sys.executable, "-m", "jobs", "serve", "jobs/demo/signs.onnx", "--port", str(port), "--name", "signs"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "answers at" not in (line := process.stderr.readline()):
            assert line, "ended before it answered"
        yield process
    finally:
        process.kill()
        process.communicate()


def purification(received: Path, output: Path) -> dict[str, Any]:
    return {"input": str(received), "output": str(output), "part.tiles": 1, "cluster.object_store_mib": 200}


def fields(received: Path, output: Path, port: int) -> dict[str, Any]:
    classifier = {
        "protocol": "open-inference-v2",
        "url": f"http://127.0.0.1:{port}",
        "model": "signs",
        "name": "signs",
        "input.size": 32,
    }
    return {
        **purification(received, output),
        "ask.chunk": 4,
        "alert.enabled": False,  # the pictures are of no class that it knows
        **{f"classifier.{name}": value for name, value in classifier.items()},
    }


def results(output: Path) -> dict[str, bytes]:
    return tree(output, "shards", "tables", "_staging") | {
        path: data for path, data in tree(output, "predictions").items() if path.endswith(".parquet")
    }


@pytest.fixture(scope="module")
def reference(received: Path, port: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("reference") / "out"
    with serving(port):
        summary = finish(fields(received, output, port))
    assert summary["exit_code"] == 0
    assert summary["parts"] == {"staged": SHARDS * PER_SHARD // 4}
    print(f"\nundisturbed: {SHARDS} shards of {PER_SHARD} images in {SHARDS * PER_SHARD // 4} parts, all asked about")
    return results(output)


def rerun_only_asks(first: dict[str, Any], job: dict[str, Any], output: Path, reference: dict[str, bytes]) -> None:
    again = finish(job)
    print(f"  rerun: exit {again['exit_code']}, asked about {len(again['asked'])}, parts purified: {again['parts']}")
    assert again["exit_code"] == 0
    assert again["parts"] == {}
    assert sorted(again["asked"]) == sorted(first["unanswered"])
    assert results(output) == reference
    report = verify(open_store(str(output)))
    print(f"  verify: {report.shards} shards, {report.samples} samples, {report.predictions} sets of answers")
    assert report.findings == []
    assert report.predictions == SHARDS


def test_a_server_that_is_away_for_20_seconds_costs_at_most_a_rerun_that_only_asks(
    received: Path, port: int, reference: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert finish({**purification(received, output), "limit": BEFORE})["exit_code"] == 0
    job = fields(received, output, port)
    told: list[tuple[float, str]] = []
    with started(job) as process:
        assert process.stdout is not None
        with serving(port):
            for line in process.stdout:
                told.append((time.monotonic(), line.strip()))
                if line.strip() == "Asked":
                    break
        gone = time.monotonic()
        time.sleep(AWAY_S)  # what is measured is a real outage, beside a job that goes on
        with serving(port):
            back = time.monotonic()
            told += [(time.monotonic(), line.strip()) for line in process.stdout]
        process.wait()
    summary = json.loads(told[-1][1])
    print(f"\naway for {back - gone:.0f} s after the first shard was asked about: exit {summary['exit_code']}")
    print(f"  committed {len(summary['committed'])}, asked {len(summary['asked'])}, open {len(summary['unanswered'])}")
    assert sorted(summary["committed"]) == [f"{shard:02d}.tar" for shard in range(BEFORE, SHARDS)]
    assert summary["unanswered"]
    assert summary["exit_code"] == 75
    with serving(port):
        rerun_only_asks(summary, job, output, reference)


def test_a_server_that_is_away_from_the_start_costs_no_shard(
    received: Path, port: int, reference: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = fields(received, output, port)
    start = time.monotonic()
    summary = finish(job)
    print(f"\naway from the start: exit {summary['exit_code']} after {time.monotonic() - start:.0f} s")
    print(f"  committed {len(summary['committed'])}, open {len(summary['unanswered'])}")
    print(f"  {next(iter(summary['unanswered'].values()))}")
    assert summary["exit_code"] == 75
    assert len(summary["committed"]) == len(summary["unanswered"]) == SHARDS
    with serving(port):
        rerun_only_asks(summary, job, output, reference)
