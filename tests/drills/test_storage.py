"""Storage, for long: each fault at each request of a job, a server that stops, a disk that runs full at each moment."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import SCRIPTS, Bucket
from faulty_s3 import Asked, Fault, FaultyS3
from inprocess import run
from making import job, samples, tree, write_tar
from storing import Scene, quick, tar, write_classifier

from pipeline.errors import StoreError, StoreRefusedError
from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.drill

FAULTS: tuple[Fault, ...] = ("500", "503", "reset", "lost", "head", "cut", "hang", "stall")


@pytest.fixture
def scene(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two shards of 8 parts and more, one of them written in several parts of an upload."""
    quick(monkeypatch)
    write_classifier(tmp_path / "bright.onnx")
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        scene = Scene(s3, proxy, tmp_path)
        scene.put("a/000000.tar", 9, kib=700)
        scene.put("b.tar", 8, first=100, kib=520)
        yield scene


SETTINGS = {"part__max_mib": 1, "part__tiles": 1, "ask__chunk": 5}


def at(number: int, fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if asked.number == number else None


def since(number: int, fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if asked.number >= number else None


def test_each_fault_at_each_request_of_a_job(scene: Scene) -> None:
    """Once: the request is answered the next time that it is sent; each run ends as the undisturbed one."""
    scene.run("whole", **SETTINGS)
    reference, moments = scene.digests("whole"), [asked.kind for asked in scene.proxy.asked]
    show(f"a job of 2 shards is {len(moments)} requests: {counted(moments)}")
    for fault in FAULTS:
        began, again, purified = time.monotonic(), 0, 0
        for number in range(1, len(moments) + 1):
            output = f"{fault}-{number}"
            summary, engine = scene.run(output, at(number, fault), **SETTINGS)
            if summary.exit_code:  # a request that is only sent once: a body of a completion, say
                again += 1
                assert summary.exit_code == 75, (fault, number, summary)
                staged = scene.staged_parts(output)
                summary, engine_of_rerun = scene.run(output, **SETTINGS)
                assert not (set(engine_of_rerun.purified) if engine_of_rerun else set()) & staged, (fault, number)
            assert summary.exit_code == 0, (fault, number, summary)
            assert engine is not None
            purified += sum(engine.purified.values())
            assert scene.digests(output) == reference, (fault, number)
            assert scene.findings(output) == [], (fault, number)
            assert not scene.staged(output), (fault, number)
        took_s = time.monotonic() - began
        show(f"{fault} at each of {len(moments)}: all as undisturbed; {again} reruns, {took_s:.0f} s")
        show(f"{fault} at each of {len(moments)}: {purified / len(moments):g} parts purified a run")


def test_storage_that_goes_away_at_each_request_and_comes_back_for_the_rerun(scene: Scene) -> None:
    scene.run("whole", **SETTINGS)
    reference, moments = scene.digests("whole"), [asked.kind for asked in scene.proxy.asked]
    codes: Counter[int] = Counter()
    reused = 0
    for number in range(1, len(moments) + 1):
        output = f"away-{number}"
        code, lines = ended(scene, output, since(number, "reset"))
        codes[code] += 1
        assert code == 75, (number, lines)
        assert all("storage doesn't answer" in line and "\n" not in line for line in lines), lines
        staged = scene.staged_parts(output)
        summary, engine = scene.run(output, **SETTINGS)
        assert summary.exit_code == 0, (number, summary)
        assert not (set(engine.purified) if engine else set()) & staged, number
        reused += len(staged)
        assert scene.digests(output) == reference, number
        assert scene.findings(output) == [], number
    show(
        f"away from each of {len(moments)} requests on: exit codes {dict(codes)}; the reruns reused {reused} staged "
        "parts, purified none of them again, and all ended as undisturbed"
    )


def ended(scene: Scene, output: str, breaks: Callable[[Asked], Fault | None]) -> tuple[int, list[str]]:
    try:
        summary, _ = scene.run(output, breaks, storage__patience_s=0.2, **SETTINGS)
    except StoreError as error:
        return error.exit_code, [str(error)]
    return summary.exit_code, [*summary.failed.values(), *summary.unanswered.values()]


def counted(kinds: list[Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))


def show(line: str) -> None:
    print(f"    {line}", flush=True)


# --- a server that stops ------------------------------------------------------------------------------


@pytest.fixture
def stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, Path]]:
    """A server of the test's own, with a bucket, and the folder by which it is stopped and started."""
    folder = tmp_path / "server"
    lines = [shlex.split(line)[1].partition("=") for line in server("start.sh", folder).splitlines()]
    environment = {name: value for name, _, value in lines if name.startswith("AWS_")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    session = boto3.Session(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    client = session.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="stopping")
    yield Bucket("stopping", environment, client), folder
    server("stop.sh", folder)


PARTS = 9
"""Of each shard, one a sample."""


@pytest.mark.ray
@pytest.mark.parametrize(("patience_s", "expected"), [(120, 0), (2, 75)])
def test_on_ray_the_server_stops_and_starts_again(
    stopping: tuple[Bucket, Path], tmp_path: Path, patience_s: int, expected: int
) -> None:
    """Ten seconds away are waited out by who has the patience; who hasn't ends with 75, and the rerun finishes."""
    s3, folder = stopping
    scene = Scene(s3, FaultyS3(""), tmp_path)
    for n in range(3):
        s3.client.put_object(Bucket=s3.name, Key=f"in/{n}.tar", Body=tar(PARTS, 100 * n, 700))
    assert finished(purify(s3, "whole", 60))[0] == 0
    process = purify(s3, "out", patience_s)
    while len(scene.staged_parts("out")) < 4:
        assert process.poll() is None, finished(process)
        time.sleep(0.2)
    server("stop.sh", folder)
    began = time.monotonic()
    if expected == 0:
        time.sleep(10)
        server("start.sh", folder)
        code, said = finished(process)
    else:
        code, said = finished(process)
        server("start.sh", folder)
    took_s = time.monotonic() - began
    show(f"patience {patience_s} s: exit code {code}, {took_s:.0f} s after the server stopped: {said}")
    assert code == expected
    if expected:
        assert "storage doesn't answer" in said
    whole = {path.removeprefix("records/")[: len("0.tar")] for path in scene.objects("out", "records")}
    staged = [part for part in scene.staged_parts("out") if part[0] not in whole]
    rerun, said = finished(purify(s3, "out", 60))
    assert rerun == 0, said
    summaries = {path: data for path, data in scene.objects("out", "runs").items() if path.endswith("summary.json")}
    parts = json.loads(summaries[max(summaries)])["parts"]
    show(f"rerun: {len(whole)} of 3 shards were whole, {len(staged)} parts of the others staged; it did {parts}")
    assert parts.get("reused", 0) == len(staged)
    assert parts.get("staged", 0) == PARTS * (3 - len(whole)) - len(staged)
    assert scene.digests("out") == scene.digests("whole")
    assert scene.findings("out") == []


def purify(s3: Bucket, output: str, patience_s: int) -> subprocess.Popen[str]:
    fields = {
        "input": f"{s3.uri}/in/",
        "output": f"{s3.uri}/{output}",
        "purifier.method": "median",
        "part.tiles": 1,
        "part.max_mib": 1,
        "cluster.object_store_mib": 200,
        "storage.patience_s": patience_s,
    }
    flags = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "purify", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and the last line."""
    out, err = process.communicate()
    return process.returncode, (err if process.returncode else out).strip().splitlines()[-1]


def server(script: str, folder: Path) -> str:
    """Start or stop, by its pid, the server of this folder."""
    environment = {**os.environ, "S3_DIR": str(folder), "S3_PYTHON": sys.executable}
    return subprocess.run([SCRIPTS / script], env=environment, check=True, capture_output=True, text=True).stdout


# --- disks --------------------------------------------------------------------------------------------


@pytest.fixture
def received(tmp_path: Path) -> Path:
    for name, first in (("a/000000.tar", 0), ("b.tar", 100)):
        write_tar(tmp_path / "in" / name, samples(16, first, 200, 200))
    return tmp_path


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, where those may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


def temporary(folder: Path) -> list[Path]:
    """What a writer began and didn't end."""
    return [path for path in folder.rglob("*") if path.is_file() and "#" in path.name]


def test_a_disk_that_is_full_at_any_moment_leaves_nothing_half_there(received: Path) -> None:
    run(job(received, part__tiles=2))
    reference = tree(received / "out", "shards", "tables")
    size = sum(map(len, reference.values()))
    for share in range(14):  # of tenths: full with the settings, among parts, in a shard, in the next one
        kib = 4 + size * share // 10 // 1024
        with small_disk(received / f"disk{share}", f"{kib}k") as disk:
            config = job(received, output=str(disk / "out"), part__tiles=2)
            try:
                summary, _ = run(config)
                code, lines = summary.exit_code, list(summary.failed.values())
            except StoreError as error:
                code, lines = error.exit_code, [str(error)]
            there = tree(disk / "out", "shards", "tables")
            show(
                f"{kib} KiB: exit code {code}, {len(there)} of {len(reference)} files; "
                f"{lines[-1].removeprefix(str(disk)) if lines else 'no error'}"
            )
            assert code == 1
            assert all("the disk is full; free some space and run again" in line for line in lines)
            assert temporary(disk) == []
            assert there.items() <= reference.items()  # whole, or not there
            grow(disk)
            rerun, _ = run(config)
            assert rerun.exit_code == 0
            assert tree(disk / "out", "shards", "tables", "_staging") == reference
            assert verify(open_store(config.output)).findings == []


def test_a_read_only_file_system_is_named(received: Path) -> None:
    with small_disk(received / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StoreRefusedError, match=r"settings\.json: can't write: the file system is read-only"):
            run(job(received, output=str(disk / "out")))
