"""Drivers that are killed or stopped: 200 in one process, some on a real Ray; and what is left of their processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Bucket
from inprocess import run
from killing import Logging, kin, moments, outlived_s, purified, run_to
from making import job, samples, tree, write_tar
from raydrill import Drill, Script, drill, times

from pipeline.config import JobConfig
from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = pytest.mark.drill

SIGNS = Path(__file__).parents[2] / "jobs" / "demo" / "signs.onnx"
SHARDS, PARTS = 2, 8
LEFT_S = 30.0
"""Seconds after which nothing may be left of a driver's own cluster; on a busy machine even a look takes some."""


def received(folder: Path) -> None:
    for number in range(SHARDS):
        write_tar(folder / f"in/{number}.tar", samples(PARTS, 100 * number, 200, 200))


def outcome(config: JobConfig) -> dict[str, bytes]:
    """Proven, and with nothing left of the work; records by name alone, since they name the input's place."""
    output = open_store(config.output)
    report = verify(output)
    assert (report.findings, report.shards, report.samples) == ([], SHARDS, SHARDS * PARTS)
    folders = ("shards", "tables", "records", "predictions", "_staging")
    found = [stored.path for folder in folders for stored in output.list(folder)]
    return {path: b"" if path.endswith(".json") else output.get(path) for path in found}


# --- in one process -----------------------------------------------------------------------------------


def asking(folder: Path, **fields: Any) -> JobConfig:
    box = {"protocol": "onnx", "path": str(SIGNS), "name": "signs", "input__size": 32}
    return job(folder, part__tiles=1, **{f"classifier__{name}": value for name, value in box.items()}, **fields)


def kill_many(folder: Path, root: str, count: int) -> str:
    """Kill drivers at moments drawn by a seed, each on an output of its own, and run each again; gives the figures."""
    fields = {"input": f"{root}/in"}
    told: list[str] = []
    with moments(told.append):
        run(asking(folder, **fields, output=f"{root}/whole"))
    reference = outcome(asking(folder, output=f"{root}/whole"))
    again = 0
    for number, moment in enumerate(random.Random(count).choices(range(1, len(told) + 1), k=count)):
        config, log = asking(folder, **fields, output=f"{root}/{number}"), folder / f"{number}.log"
        code, said = run_to(config, log, {moment: signal.SIGKILL})
        assert code == -signal.SIGKILL, said
        run(config, purifier=Logging(log))
        assert outcome(config) == reference, (moment, told[moment - 1])
        again += len(purified(log)) - SHARDS * PARTS
        assert len(purified(log)) <= SHARDS * PARTS + 1, (moment, told[moment - 1])
    return f"{count} drivers killed at moments out of {len(told)}: all finished, {again} parts purified twice"


def test_160_killed_drivers_on_disk(tmp_path: Path) -> None:
    received(tmp_path)
    print("\non disk:", kill_many(tmp_path, str(tmp_path), 160))


@pytest.mark.s3
def test_40_killed_drivers_of_a_bucket(s3: Bucket, tmp_path: Path) -> None:
    received(tmp_path)
    for path in (tmp_path / "in").iterdir():
        s3.client.put_object(Bucket=s3.name, Key=f"in/{path.name}", Body=path.read_bytes())
    print("\nin a bucket:", kill_many(tmp_path, s3.uri, 40))


# --- on Ray -------------------------------------------------------------------------------------------


def fields(folder: Path, output: Path) -> dict[str, Any]:
    basic = {"input": str(folder / "in"), "output": str(output), "purifier.method": "none", "part.tiles": 1}
    return {**basic, "cluster.object_store_mib": 200, "cluster.actors": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The received shards, and what an undisturbed run in one process makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    received(folder)
    run(job(folder, part__tiles=1))
    return folder, outcome(job(folder))


def finish(folder: Path, output: Path, reference: dict[str, bytes], script: Script) -> None:
    """Run again to the end; no part is purified that was staged."""
    staged = {path for path in tree(output, "_staging") if path.endswith(".arrow")}
    begun = times(script, "begun", "purifying")
    with drill(script, fields(folder, output)) as again:
        assert again.end()["exit_code"] == 0
    assert outcome(job(folder, output=str(output))) == reference
    for work, count in (times(script, "begun", "purifying") - begun).items():
        _, name, index = work.split()
        parts = [
            path for path in staged if path.startswith(f"_staging/{name}/") and path.endswith(f"{index:0>5}.arrow")
        ]
        assert not parts, (work, count)


def go_to(running: Drill, moment: str) -> None:
    kind, _, count = moment.partition(" ")
    if kind == "up":  # Ray is, the job isn't
        while not kin(running.process.pid):
            assert running.process.poll() is None, running.errors()
            time.sleep(0.05)
    else:
        running.until(kind, int(count or 1))


KILLS = ("up", "Planned", "Started", "Receipt 1", "Receipt 9", "Committed 1")


@pytest.mark.parametrize("moment", KILLS)
def test_of_a_driver_killed_on_ray_nothing_is_left_and_the_next_one_finishes(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, moment: str
) -> None:
    folder, reference = whole
    script = Script(str(tmp_path / "script"), purify_s=1.0)
    with drill(script, fields(folder, tmp_path / "out")) as running:
        go_to(running, moment)
        left = kin(running.process.pid)
        running.process.kill()
        running.process.wait()
        took = outlived_s(left, LEFT_S)
    finish(folder, tmp_path / "out", reference, script)
    print(f"\nSIGKILL at {moment!r}: {len(left)} processes, the last gone after {took:.1f} s; finished by the next run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Started", "Receipt 1", "Receipt 5", "Committed 1"])
def test_a_stopped_driver_on_ray_stages_what_is_purified_and_ends_in_time(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, moment: str, number: int
) -> None:
    folder, reference = whole
    script = Script(str(tmp_path / "script"), purify_s=2.0)
    with drill(script, fields(folder, tmp_path / "out")) as running:
        go_to(running, moment)
        left = kin(running.process.pid)
        began = time.monotonic()
        running.process.send_signal(number)
        code = running.end()["exit_code"]
        took = time.monotonic() - began
        outlived_s(left, LEFT_S)
    assert code == 130
    assert took < 30
    begun = times(script, "begun", "purifying")
    staged = times(script, "ended", "staging")
    assert {work.split(" ", 1)[1] for work in begun} <= {work.split(" ", 1)[1] for work in staged}
    finish(folder, tmp_path / "out", reference, script)
    assert set(times(script, "begun", "purifying").values()) == {1}
    name = signal.Signals(number).name
    print(f"\n{name} at {moment!r}: ended after {took:.1f} s with 130, {len(begun)} parts begun, none thrown away")


def test_a_second_ctrl_c_on_ray_ends_at_once(whole: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    folder, reference = whole
    script = Script(str(tmp_path / "script"), held=["purifying 0.tar 3"])
    with drill(script, fields(folder, tmp_path / "out")) as running:
        running.wait_for("purifying 0.tar 3")
        running.process.send_signal(signal.SIGINT)
        running.until("Warned")
        left = kin(running.process.pid)
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        code = running.end()["exit_code"]
        took = time.monotonic() - began
        outlived_s(left, LEFT_S)
    assert code == 130
    running.pass_("purifying 0.tar 3")
    finish(folder, tmp_path / "out", reference, script)
    print(f"\nsecond Ctrl-C while a part is being purified: ended after {took:.1f} s")


def test_ctrl_c_for_the_whole_group_while_ray_starts_ends_the_command_with_130(tmp_path: Path) -> None:
    received(tmp_path)
    words = ["purify", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--purifier.method", "none"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    while not kin(process.pid):
        assert process.poll() is None
        time.sleep(0.05)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    left = psutil.Process(process.pid).children(recursive=True)
    process.communicate()
    took = time.monotonic() - began
    assert process.returncode == 130
    assert took < 30
    outlived_s(left, LEFT_S)
    print(f"\nCtrl-C for the group while Ray starts: ended after {took:.1f} s with 130")
